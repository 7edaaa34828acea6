"""What a file is that was given as a checkpoint and is none, for the message that refuses it."""

import codecs
import pickle
import pickletools
import re
import zipfile
from contextlib import suppress
from pathlib import Path

_HEAD = 512  # bytes that tell most kinds of files apart
_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<?xml")
_EXPORTED = (".onnx", ".pt2")
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7z"}
_FOREIGN = re.compile(r"GLOBAL ([\w.]+)")
# What `plain_values` says.
_REFUSED = re.compile(r"^it (?:holds|makes|gives|encodes|changes) [^\n]+", re.MULTILINE)
_OTHER_PROTOCOLS = [bytes([number]) for number in range(3, pickle.HIGHEST_PROTOCOL + 1)]
_SHORTEST = 8  # letters of a text; fewer may be the first bytes of anything
_AGAIN = "download the file itself"


def kind_of(path: Path) -> str | None:
    """What the file is and what to do about it, as the end of "FILE: is ..."; None if it may be a
    checkpoint, whole or damaged."""
    head = _head(path)
    if stands_for := stand_in_of(path):
        return stands_for
    if path.suffix in _EXPORTED:
        return (
            "an exported file, which predict.py, demo.py and Grounder.load take as it is; give the"
            " checkpoint that it was made of"
        )
    for magic, name in _PACKED.items():
        if head.startswith(magic):
            return f"an archive packed with {name}, not a checkpoint; unpack it"
    if _is_safetensors(head, path.stat().st_size):
        return (
            "in the format of safetensors, not of torch.save; convert it: torch.save({'model': "
            "safetensors.torch.load_file(FILE)}, 'FILE.pth')"
        )
    return _zip_kind(path) or _pickle_kind(path, head) or _text_kind(head)


def stand_in_of(path: Path) -> str | None:
    """As `kind_of`, of what lies in the place of a file of any kind that was not fetched."""
    head = _head(path)
    if not head:
        return f"an empty file; {_AGAIN} again"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGES):
        return f"a web page, such as a host's warning or login page, not a checkpoint; {_AGAIN}"
    if head.startswith(_POINTER):
        return "a pointer of git-lfs, not the checkpoint that it stands for; run git lfs pull"
    return None


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(_HEAD)


def _is_safetensors(head: bytes, size: int) -> bool:
    return 8 + int.from_bytes(head[:8], "little") <= size and head[8:9] == b"{"


def _zip_kind(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        return None
    if any(name.endswith("/constants.pkl") for name in names):
        return (
            "a TorchScript program, not a checkpoint; save its state dict: torch.save({'model': "
            "torch.jit.load(FILE).state_dict()}, 'FILE.pth')"
        )
    if any(Path(name).name == "data.pkl" for name in names):
        return None
    inside = ", ".join(names[:3]) or "nothing"
    return f"a zip archive that torch.save did not write (in it: {inside}); unpack it"


def _pickle_kind(path: Path, head: bytes) -> str | None:
    """torch.save writes protocol 2; another one is of the program that wrote the file."""
    if head[:1] != b"\x80" or head[1:2] not in _OTHER_PROTOCOLS:
        return None
    classes = ", ".join(_classes_in(path)) or "plain values"
    return f"a plain pickle of {classes}, not written by torch.save; save its state dict by that"


def _classes_in(path: Path) -> list[str]:
    """The classes that a pickle names, in order, as far as it can be read."""
    found: dict[str, None] = {}
    texts: list[str] = []
    with suppress(ValueError), open(path, "rb") as file:
        for operation, argument, _ in pickletools.genops(file):
            if operation.name == "STACK_GLOBAL":
                found[".".join(texts[-2:])] = None
            elif isinstance(argument, str):
                texts.append(argument)
    return list(found)


def _text_kind(head: bytes) -> str | None:
    """A text is told by its first line, as far as it is printable."""
    try:
        # The last character may be cut.
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return None
    line = text.strip().partition("\n")[0].strip()
    if not line.isprintable() or len(line) < _SHORTEST:
        return None
    return f"a text that begins {line[:60]!r}, not a checkpoint; {_AGAIN}"


def foreign_content(error: Exception) -> str | None:
    """What torch.load refused in a pickle, without torch's advice to load it all the same; None if
    the bytes are damaged."""
    text = str(error)
    if found := _FOREIGN.search(text):
        return f"an object of the class {found[1]}"
    found = _REFUSED.search(text)
    return found[0] if found else None

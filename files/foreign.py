"""Files that other people wrote: text in the encoding they saved it in, paths of their system.

Text is UTF-8, with or without the byte order mark that Windows puts before it. Anything else is an
error that names the file and the place, never text with wrong letters.
"""

import codecs
import contextlib
import json
import os
import re
import tokenize
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any, TextIO

import numpy as np

# What numpy raises depends on which part of a file is damaged.
_NO_ARRAY = (ValueError, EOFError, OSError, TypeError, SyntaxError, MemoryError, OverflowError,
             zipfile.BadZipFile, tokenize.TokenError)  # fmt: skip
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decode(content: bytes, source: str) -> str:
    """The text of a file; `source` names it in errors.

    Raises:
        ValueError: it is not UTF-8.
    """
    _refuse_wide(content[:4], source)
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise _not_utf8(content, source) from None


def read_text(path: str | os.PathLike[str], what: str = "") -> str:
    """The text of a file.

    Args:
        what: kind of file, for messages ("annotation file").

    Raises:
        ValueError: it is not UTF-8.
    """
    return decode(Path(path).read_bytes(), f"{what} {os.fspath(path)}".strip())


@contextlib.contextmanager
def open_text(path: str | os.PathLike[str], what: str = "") -> Iterator[TextIO]:
    """As `read_text`, to be read piece by piece: the error comes where the block reaches it."""
    source = f"{what} {os.fspath(path)}".strip()
    with open(path, "rb") as head:
        _refuse_wide(head.read(4), source)
    try:
        with open(path, encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError:
        raise _not_utf8(Path(path).read_bytes(), source) from None


def _refuse_wide(head: bytes, source: str) -> None:
    # Text of one byte per letter holds no zeros, and text of two bytes per letter many.
    if head.startswith(_UTF16) or b"\0" in head:
        raise ValueError(f"{source} is UTF-16, or no text at all; save it as UTF-8")


def _not_utf8(content: bytes, source: str) -> ValueError:
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts from behind the byte order mark.
        mark = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0
        at = error.start + mark
        line = content.count(b"\n", 0, at) + 1
        return ValueError(
            f"{source} is not UTF-8: byte 0x{content[at]:02x} in line {line} (byte {at} of the"
            " file) is of another encoding, such as Latin-1 or cp1252; save it as UTF-8"
        )
    return ValueError(f"{source} is not UTF-8; save it as UTF-8")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, of whose values none is lost to another one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {key!r} comes twice in one object")
    return found


JSON = json.JSONDecoder(object_pairs_hook=_once)
"""Reads objects of which no key comes twice."""


def parse_json(text: str, source: str, remedy: str = "fetch it again") -> Any:
    """The value of a JSON text.

    Args:
        source: what it is the text of, remedy: what to do if it is not JSON; for messages.

    Raises:
        ValueError: not JSON, an object that has a key twice, a number of thousands of digits, or
            thousands of lists in lists.
    """
    try:
        return JSON.decode(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source} is not valid JSON ({error}); {remedy}") from error


def load_array(path: str | os.PathLike[str], what: str) -> np.ndarray:
    """The array of an `.npy` file that exists; `what` it is, for messages.

    Raises:
        ValueError: it holds none, or objects.
    """
    try:
        found = np.load(path, allow_pickle=False)
    except _NO_ARRAY as error:
        raise ValueError(f"{what} {path} is no array of numpy ({error})") from error
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{what} {path} is no array of numpy but an archive of several")
    return found


def one_line(text: str, most: int = 1000) -> str:
    """Text that a file brought along, to be shown on a terminal: one line, without the characters
    that steer a terminal or turn the direction of writing, and of at most about `most` letters."""
    text = re.sub(r"\s*\n\s*", " ", text)
    if len(text) > most:
        text = f"{text[: most * 2 // 3]} [...] {text[-most // 3 :]}"
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def forward_slashes(path: str) -> str:
    """A path that may have been written on Windows, relative and with forward slashes:
    `VG_100K\\1.jpg` is `VG_100K/1.jpg`, and of `C:\\data\\1.jpg` the drive is left away. A path
    without a backslash stays as it is."""
    if "\\" not in path:
        return path
    windows = PureWindowsPath(path)
    return windows.relative_to(windows.anchor).as_posix()

"""What two runs left, compared value by value, without what the clock says."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

LINES = (".jsonl", ".txt")
# What the clock or the number of starts decides.
_OF_THE_CLOCK = {"samples_per_second", "phrases_per_second"}
_NOT_COMPARED = ("tensorboard",)
# Drawn from heat maps in half precision where they are read from the disk again.
_DRAWN = (".html", ".png")


def files_of(folder: Path) -> dict[str, Path]:
    """The files of a run by name, without curves, pages and what a killed process left half
    written, which has a hidden name."""
    return {
        str(path.relative_to(folder)): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.name.endswith((".tmp", ".partial", *_DRAWN))
        and path.relative_to(folder).parts[0] not in _NOT_COMPARED
    }


def unreadable(folder: Path) -> list[str]:
    """What says why a file of the folder cannot be read as a whole; of a file of lines that are
    added one by one, the last may be unfinished."""
    found = []
    for name, path in files_of(folder).items():
        try:
            content_of(path)
        except (ValueError, OSError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
            found.append(f"{name}: {error}")
    return found


def differences(folder: Path, reference: Path) -> list[str]:
    """Files, and values in them, that are not the same."""
    ours, theirs = files_of(folder), files_of(reference)
    found = [f"only in one: {name}" for name in sorted(ours.keys() ^ theirs.keys())]
    for name in sorted(ours.keys() & theirs.keys()):
        a, b = (dict(flat(content_of(files[name]))) for files in (ours, theirs))
        keys = [key for key in a.keys() | b.keys() if not same(a.get(key), b.get(key))]
        if keys:
            found.append(f"{name} differs in {', '.join(sorted(map(str, keys))[:3])}")
    return found


def content_of(path: Path) -> Any:
    """The values of a file."""
    if path.suffix in (".pth", ".ckpt") or path.name.endswith(".pt"):
        return torch.load(path, map_location="cpu", weights_only=True)
    if path.suffix == ".pt2":
        with zipfile.ZipFile(path) as archive:  # whose folder has the name of the partial file
            return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    if path.suffix in (".npz", ".npy"):
        with open(path, "rb") as file:
            loaded = np.load(file)
            return dict(loaded) if path.suffix == ".npz" else loaded
    if path.suffix == ".json":
        content = json.loads(path.read_text(encoding="utf-8"))
        if path.name.endswith("manifest.json"):
            # The table that is written after every trial makes this checkout another one.
            content.pop("git", None)
        return content
    if path.suffix in LINES:
        lines = [_line(line) for line in path.read_bytes().split(b"\n")[:-1]]
        # An evaluation that was killed before it was stored is made, and told of, again.
        once = {json.dumps(line, default=str): line for line in lines}
        return list(once.values()) if path.name == "evaluations.txt" else lines
    return path.read_bytes()


def _line(line: bytes) -> Any:
    """A JSON object, or the line of another file."""
    if not line.startswith(b"{"):
        return line
    return {key: v for key, v in json.loads(line).items() if key not in _OF_THE_CLOCK}


def flat(value: Any, prefix: str = "") -> Any:
    """(dotted key, value) of nested dicts and lists."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, below in items:
            yield from flat(below, f"{prefix}/{key}")
    else:
        yield prefix, value


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit."""
    if torch.is_tensor(a) and torch.is_tensor(b):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    return type(a) is type(b) and a == b

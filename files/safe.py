"""Files that appear complete or not at all, and names that stay in their folder."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePath

# Of one part of a path and of the whole, in bytes, on any file system of today.
_LONGEST_NAME, _LONGEST_PATH = 255, 4000


def inside(name: str, what: str, remedy: str = "correct the name") -> PurePath:
    """A file name that data bring along, before it is joined with a folder: it stays below that.

    "a/../b.jpg" is "b.jpg". Symbolic links below the folder are followed. `what` and `remedy` begin
    and end the error's message.

    Raises:
        ValueError: an absolute path, one that leads out by "..", or no name that a file can have.
    """
    require_file_name(name, what, remedy)
    path = PurePath(os.path.normpath(name))
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{what} {name!r} leads out of the folder it belongs to; {remedy}")
    return path


def require_file_name(name: str, what: str, remedy: str = "correct the name") -> None:
    """Raises ValueError for a path that no file can have; `what` and `remedy` as of `inside`."""
    try:
        longest = max(map(len, os.fsencode(name).split(b"/")))
    except UnicodeError:  # half a pair of surrogates
        longest = _LONGEST_NAME + 1
    if longest > _LONGEST_NAME or len(name) > _LONGEST_PATH or "\0" in name:
        raise ValueError(f"{what} {name[:80]!r} is no name that a file can have; {remedy}")


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a path to write to; the file appears at `path` complete or not at all, even if killed.

    An existing file is replaced once the block ends without an error; the folder is made if
    missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        sync(partial)
        partial.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)  # so that the rename survives a power cut


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file so that a reader sees the old or the new content, never half of it."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def remove_partial(folder: str | Path, pattern: str) -> None:
    """Removes what killed processes left half written of files called `pattern` (a glob)."""
    for partial in Path(folder).glob(f".{pattern}.*.tmp"):
        partial.unlink(missing_ok=True)


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def sync(path: Path) -> None:
    """Brings a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

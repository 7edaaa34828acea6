"""The folder of what visitors of the page hand in: bounded in bytes and in age."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path


class Uploads:
    """Files below a folder, the oldest of which are deleted to make room for new ones.

    Args:
        folder: nothing else is written to it.
        most: bytes of all files together.
        seconds: how long a file is kept after it was last used.
    """

    def __init__(self, folder: Path, most: int, seconds: float = 1800) -> None:
        self.folder = folder.resolve()
        self._most, self._seconds = most, seconds
        self._kept: frozenset[Path] = frozenset()
        self._lock = threading.Lock()

    def keep_these(self) -> None:
        """What is there now, such as examples, is never deleted and does not count."""
        self._kept = frozenset(self._files())

    def holds(self, path: str) -> bool:
        """Is it an existing file below the folder, links and ".." resolved?"""
        try:
            real = Path(path).resolve()
            return real.is_relative_to(self.folder) and real.is_file()
        except (OSError, RuntimeError, ValueError):  # too long, a circle of links, a null byte
            return False

    def use(self, path: str) -> None:
        """The file is kept from now on as if it had just come."""
        if self.holds(path):
            os.utime(path)

    def make_room(self, more: int = 0, *, now: float | None = None) -> bool:
        """Delete what is too old, and the oldest until `more` bytes fit; do they?

        Files of the last minute are never deleted, as somebody is asking about them.
        """
        now = time.time() if now is None else now
        with self._lock:
            known = sorted(self._ages(now), reverse=True)
            total = sum(size for _, size, _ in known)
            for age, size, file in known:
                if age < 60 or (age < self._seconds and total + more <= self._most):
                    break
                file.unlink(missing_ok=True)
                total -= size
            for folder in self.folder.iterdir():
                if folder.is_dir() and now - folder.stat().st_mtime > 60:
                    _remove_if_empty(folder)
        return total + more <= self._most

    def _files(self) -> Iterator[Path]:
        for folder, _, names in os.walk(self.folder):
            yield from (Path(folder, name) for name in names)

    def _ages(self, now: float) -> Iterator[tuple[float, int, Path]]:
        """Seconds since its last use, bytes, file."""
        for file in self._files():
            try:
                found = file.lstat()
            except FileNotFoundError:  # moved to its place meanwhile
                continue
            if file not in self._kept:
                yield now - found.st_mtime, found.st_size, file


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        pass  # there is something in it

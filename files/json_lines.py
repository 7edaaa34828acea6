"""A log that survives what kills its writer: one JSON object per line."""

import json
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from groundwork.files.foreign import JSON
from groundwork.files.safe import sync, write_text
from groundwork.utils import is_main


class JsonLines:
    """A file with one JSON object per line, which an interrupted run finds again.

    Rows are added at the end, not atomically: a process that is killed meanwhile may leave its last
    line unfinished. `rows` does not see such a line and the next `append` cuts it off. Threads of a
    process may share the object; of a process group only process 0 writes, the others' `append` and
    `replace` do nothing.

    Args:
        path: the file; it and its folder are made by the first row.
        sync: False: when `append` returns, the operating system has the rows, and this process may
            be killed. True: the disk has them, and the power may fail; that takes milliseconds.
    """

    def __init__(self, path: str | Path, *, sync: bool = False):
        self.path = Path(path)
        self.sync = sync
        self._lock = threading.Lock()

    def append(self, *rows: Mapping[str, Any]) -> None:
        """Adds rows of JSON values (nan and inf are kept as JavaScript writes them)."""
        if not is_main() or not rows:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            created = not self.path.exists()
            with self.path.open("a+b") as file:
                _drop_unfinished_line(file)
                file.write(_json_lines(rows))
                if self.sync:
                    file.flush()
                    os.fsync(file.fileno())
            if self.sync and created:
                sync(self.path.parent)

    def rows(self) -> list[dict[str, Any]]:
        """All rows; ValueError if a line, but for an unfinished last one, is no JSON object."""
        if not self.path.exists():
            return []
        found = []
        for number, line in enumerate(self.path.read_bytes().split(b"\n")[:-1], 1):
            try:
                row = JSON.decode(line.decode())
            except (ValueError, RecursionError) as error:  # of JSON, or of UTF-8
                raise ValueError(f"{self.path} line {number}: {error}; delete the line") from error
            if not isinstance(row, dict):
                raise ValueError(f"{self.path} line {number} is no object; delete the line")
            found.append(row)
        return found

    def replace(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Makes `rows` the whole file, atomically: how a resumed run drops rows after its step."""
        if is_main():
            write_text(self.path, _json_lines(rows).decode())


def _json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _drop_unfinished_line(file: BinaryIO) -> None:
    """Cuts a file that is open for reading and appending after its last line end."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
    if file.read(1) not in (b"", b"\n"):
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)

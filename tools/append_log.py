"""A file of JSON lines that an interrupted run finds again: every row is on disk once appended."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class AppendLog:
    """JSON objects, one per line; `append` may be called from several threads.

    Opening it cuts off a last line that a killed process left half written, so that the next row
    does not continue it.

    Attributes:
        rows: what the file held when it was opened.

    Raises:
        ValueError: another line is not a JSON object.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._file = path.open("a+b")
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._file.truncate(len(whole))
        self.rows: list[dict[str, Any]] = []
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise ValueError(f"{path} line {number}: {error}; delete the line") from error
            if not isinstance(row, dict):
                raise ValueError(f"{path} line {number} is not an object; delete the line")
            self.rows.append(row)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows; they have reached the disk when this returns."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with self._lock:
            self._file.write(text.encode())
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> AppendLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""What readers do not take as it stands, said in the log whenever a list is read, also from a
cache, and counted by the check before a run."""

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from groundwork.files.safe import write_text

_logger = logging.getLogger("groundwork.readers")
_NAMED = 5


@dataclass(frozen=True)
class Note:
    """count: of entries or boxes. text: names the file, what is done with them, and the first."""

    count: int
    text: str


class _Collector(logging.Handler):
    def __init__(self, found: list[Note]) -> None:
        super().__init__()
        self.found = found

    def emit(self, record: logging.LogRecord) -> None:
        match record.args:
            case (int(count), str(text)):
                self.found.append(Note(count, text))


def say(path: object, what: str, places: Sequence[str]) -> None:
    """Take note of some entries of a file, if there are any.

    Args:
        what: they are, and what is done with them. places: their names for messages.
    """
    if places:
        few = ", ".join(places[:_NAMED]) + (", ..." if len(places) > _NAMED else "")
        _say(Note(len(places), f"{path}: {what}: {few}"))


def _say(note: Note) -> None:
    _logger.warning("%d times: %s", note.count, note.text)


@contextlib.contextmanager
def collected() -> Iterator[list[Note]]:
    """The notes that are taken within the block."""
    found: list[Note] = []
    handler = _Collector(found)
    _logger.addHandler(handler)
    try:
        yield found
    finally:
        _logger.removeHandler(handler)


def save(notes: Sequence[Note], path: Path) -> None:
    """Keep notes for `repeat`."""
    write_text(path, json.dumps([astuple(note) for note in notes]) + "\n")


def repeat(path: Path) -> None:
    """Take again the notes of a file that `save` wrote."""
    for count, text in json.loads(path.read_text(encoding="utf-8")):
        _say(Note(count, text))

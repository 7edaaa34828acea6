"""Pseudo-labels: one box per expression, which a model found. One JSON object a line.

{"image": path, "width": int, "height": int, "text": str, "box": [x1, y1, x2, y2], "split": str,
 "record_id": str, "phrase_id": str, "image_ids": [str], "sentence": str, "start": int,
 "objectness": float, "similarity": float, "margin": float, "agreement": float}

Boxes are xyxy pixels of the original image, inside it. The last four may be null: how much the
box looks like an object, how well it fits the expression, how much better than the second best, and
the mean IoU with the boxes of the other expressions of the same object.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from groundwork.dataset.formats import entries
from groundwork.dataset.formats.grouping import in_a_row
from groundwork.dataset.record import Phrase, Record
from groundwork.files import foreign
from groundwork.files.safe import atomic_write
from groundwork.geometry import Box

CONFIDENCE = ("objectness", "similarity", "margin", "agreement")


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """As in the file; the fields of image and expression are those of `Record` and `Phrase`."""

    image: str
    width: int
    height: int
    text: str
    box: Box
    split: str = ""
    record_id: str = ""
    phrase_id: str = ""
    image_ids: tuple[str, ...] = ()
    sentence: str = ""
    start: int = -1
    objectness: float | None = None
    similarity: float | None = None
    margin: float | None = None
    agreement: float | None = None

    def record(self, source: str = "") -> Record:
        """The record of this expression alone."""
        phrase = Phrase(self.text, self.phrase_id, (self.box,), start=self.start)
        return Record(
            self.image, self.width, self.height, (phrase,), self.split, self.record_id, source,
            self.sentence, self.image_ids,
        )  # fmt: skip


_FIELDS = {field.name for field in fields(Label)}
_TEXTS = ("image", "text", "split", "record_id", "phrase_id", "sentence")
_KINDS: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(_TEXTS, (str, "a text")),
    **dict.fromkeys(("width", "height", "start"), (int, "a whole number")),
    **dict.fromkeys(CONFIDENCE, (int | float | None, "a number or null")),
    "image_ids": (list, "a list of texts"),
}


def read(path: str | os.PathLike[str], split: str | None = None) -> Iterator[Record]:
    """Labels as records: those in a row of one object, or of one sentence, are a record.

    Args:
        split: that of all records; None: what each label says.
    """
    for record in in_a_row(label.record(source) for source, label in load(path)):
        yield record if split is None else replace(record, split=split)


def load(path: str | os.PathLike[str]) -> Iterator[tuple[str, Label]]:
    """The labels of a file, each with its place for messages."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"pseudo-labels {path} do not exist; pseudo_label.py writes them")
    with foreign.open_text(path, "pseudo-labels") as file:
        for number, line in enumerate(file, 1):
            source = f"{path}:{number}"
            yield source, _label(foreign.parse_json(line, source, "write it again"), source)


def _label(entry: Any, source: str) -> Label:
    if not isinstance(entry, dict) or not entry.keys() <= _FIELDS:
        raise ValueError(f"{source}: no pseudo-label: {str(entry)[:120]}")
    for key in ("image", "text", "width", "height"):
        entries.need(entry, key, source)
    for key, value in entry.items():
        kind, what = _KINDS.get(key, (object, ""))
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{source}: {key} must be {what}, got {value!r}")
    box = entries.box(entry, "box", source)
    if not (0 <= box[0] < box[2] <= entry["width"] and 0 <= box[1] < box[3] <= entry["height"]):
        raise ValueError(f"{source}: box {list(box)} is empty or not inside the image")
    ids = tuple(map(str, entry.get("image_ids", ())))
    return Label(**{**entry, "box": box, "image_ids": ids})


def write(labels: Iterable[Label], path: str | os.PathLike[str]) -> int:
    """Write labels; returns how many."""
    count = 0
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8") as file:
        for label in labels:
            file.write(json.dumps(_entry(label), ensure_ascii=False) + "\n")
            count += 1
    return count


def _entry(label: Label) -> Mapping[str, Any]:
    return {
        key: round(value, 6) if isinstance(value, float) else value
        for key, value in asdict(label).items()
    }

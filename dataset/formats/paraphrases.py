"""Pairs of expressions for the same thing.

[{image, phrase, paraphrase, box: [x1, y1, x2, y2], size: [height, width]}]; `size` may be missing
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from groundwork.dataset.formats import entries
from groundwork.dataset.record import Phrase, Record

PHRASE, PARAPHRASE = "phrase", "paraphrase"


def read(path: str | os.PathLike[str], split: str) -> Iterator[Record]:
    """One record per pair, with two phrases of the ids `PHRASE` and `PARAPHRASE`, in this order."""
    for index, (source, entry) in enumerate(entries.load_entries(path)):
        box = entries.boxes(entries.need(entry, "box", source), "box", source)
        phrases = tuple(
            Phrase(text=str(entries.need(entry, key, source)), phrase_id=key, boxes=box)
            for key in (PHRASE, PARAPHRASE)
        )
        image = str(entries.need(entry, "image", source))
        width, height = _size(entry, source)
        yield Record(image, width, height, phrases, split, f"{split}-{index}", source)


def _size(entry: Mapping[str, Any], source: str) -> tuple[int | None, int | None]:
    value = entry.get("size") or [None, None]
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"{source}: size must be [height, width], got {value!r}")
    return entries.size({"height": value[0], "width": value[1]}, source)


def write(records: Iterable[Record], path: str | os.PathLike[str]) -> int:
    """Write one pair per record; returns how many.

    Raises:
        ValueError: a record that is not a pair of phrases with one box.
    """
    return entries.save_entries(path, map(_entry, records))


def _entry(record: Record) -> dict[str, Any]:
    found = {phrase.phrase_id: phrase for phrase in record.phrases}
    boxes = {phrase.boxes for phrase in record.phrases}
    if list(found) != [PHRASE, PARAPHRASE] or len(boxes) != 1 or len(found[PHRASE].boxes) != 1:
        here = record.source or record.image
        raise ValueError(f"{here}: a pair is a {PHRASE!r} and a {PARAPHRASE!r} with one box")
    texts = {name: phrase.text for name, phrase in found.items()}
    (box,) = entries.plain(found[PHRASE].boxes)
    size = {"size": [record.height, record.width]} if record.height and record.width else {}
    return {"image": record.image, **texts, "box": box, **size}

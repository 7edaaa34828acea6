"""Visual Genome lists of AMC and SelfEQ.

train_file: [{image, caption: str | [str], bbox: [[x1, y1, x2, y2], ...]}]
relation_file: the same plus relation: {group: str, synonym: [str], ...}
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from groundwork.dataset.formats import entries
from groundwork.dataset.record import Phrase, Record


def read(path: str | os.PathLike[str]) -> Iterator[Record]:
    """One record per entry, one phrase per caption; every caption shares the entry's boxes and
    relation.
    """
    for source, entry in entries.load_entries(path):
        boxes = entries.boxes(entry.get("bbox") or [], "bbox", source)
        group, synonyms = entries.relation(entry.get("relation"), source)
        phrases = tuple(
            Phrase(text=caption, boxes=boxes, synonyms=synonyms, group=group)
            for caption in entries.texts(entry, "caption", source)
        )
        image = str(entries.need(entry, "image", source))
        yield Record(image, None, None, phrases, split="train", source=source)


def write(records: Iterable[Record], path: str | os.PathLike[str]) -> int:
    """Write one entry per record; returns how many.

    Raises:
        ValueError: a record whose phrases have different boxes or relations, or without phrases.
    """
    return entries.save_entries(path, map(_entry, records))


def _entry(record: Record) -> dict[str, Any]:
    here = record.source or record.image
    if len({phrase.boxes for phrase in record.phrases}) != 1:
        raise ValueError(f"{here}: all captions of an entry share its boxes, and there is one")
    return {
        "image": record.image,
        "caption": [phrase.text for phrase in record.phrases],
        "bbox": entries.plain(record.phrases[0].boxes),
    } | entries.relation_entry(record.phrases, here)

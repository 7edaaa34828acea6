"""COCO caption list of SelfEQ, train_file and relation_file in one, without boxes.

[{image, phrase_chunks: str | [str], relation: {group: str, synonym: [str], ...}}]
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from groundwork.dataset.formats import entries
from groundwork.dataset.record import Phrase, Record


def read(path: str | os.PathLike[str]) -> Iterator[Record]:
    """One record per entry, one phrase per chunk; every chunk shares the entry's relation."""
    for source, entry in entries.load_entries(path):
        group, synonyms = entries.relation(entry.get("relation"), source)
        phrases = tuple(
            Phrase(text=chunk, synonyms=synonyms, group=group)
            for chunk in entries.texts(entry, "phrase_chunks", source)
        )
        image = str(entries.need(entry, "image", source))
        yield Record(image, None, None, phrases, split="train", source=source)


def write(records: Iterable[Record], path: str | os.PathLike[str]) -> int:
    """Write one entry per record; returns how many.

    Raises:
        ValueError: a record whose phrases have boxes or different relations, or without phrases.
    """
    return entries.save_entries(path, map(_entry, records))


def _entry(record: Record) -> dict[str, Any]:
    here = record.source or record.image
    if not record.phrases or any(phrase.boxes for phrase in record.phrases):
        raise ValueError(f"{here}: an entry has chunks, and no boxes; write a VG list")
    chunks = [phrase.text for phrase in record.phrases]
    relation = entries.relation_entry(record.phrases, here)
    return {"image": record.image, "phrase_chunks": chunks} | relation

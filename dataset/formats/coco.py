"""COCO caption list of SelfEQ, train_file and relation_file in one, without boxes.

[{image, phrase_chunks: str | [str], relation: {group: str, synonym: [str], ...}}]
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from dataset.formats import entries
from dataset.record import Phrase, Record


def read(path: str | os.PathLike[str]) -> Iterator[Record]:
    """One record per entry, one phrase per chunk; every chunk shares the entry's relation.

    Raises:
        FileNotFoundError, ValueError: naming file, entry and key.
    """
    for source, entry in entries.load_entries(path):
        chunks = entries.need(entry, "phrase_chunks", source)
        group, synonyms = entries.relation(entry.get("relation"), source)
        phrases = tuple(
            Phrase(text=chunk, synonyms=synonyms, group=group)
            for chunk in entries.texts(chunks, "phrase_chunks", source)
        )
        image = str(entries.need(entry, "image", source))
        yield Record(image, None, None, phrases, split="train", source=source)

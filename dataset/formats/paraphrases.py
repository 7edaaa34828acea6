"""Pairs of expressions for the same thing: [{image, phrase, paraphrase, box: [x1, y1, x2, y2]}]."""

from __future__ import annotations

import os
from collections.abc import Iterator

from dataset.formats import entries
from dataset.record import Phrase, Record

PHRASE, PARAPHRASE = "phrase", "paraphrase"


def read(path: str | os.PathLike[str], split: str) -> Iterator[Record]:
    """One record per pair, with two phrases of the ids `PHRASE` and `PARAPHRASE`, in this order.

    Raises:
        FileNotFoundError, ValueError: naming file, entry and key.
    """
    for index, (source, entry) in enumerate(entries.load_entries(path)):
        box = entries.boxes(entries.need(entry, "box", source), "box", source)
        phrases = tuple(
            Phrase(text=str(entries.need(entry, key, source)), phrase_id=key, boxes=box)
            for key in (PHRASE, PARAPHRASE)
        )
        image = str(entries.need(entry, "image", source))
        yield Record(image, None, None, phrases, split, f"{split}-{index}", source)

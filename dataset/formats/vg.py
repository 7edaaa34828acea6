"""Visual Genome lists of AMC and SelfEQ.

train_file: [{image, caption: str | [str], bbox: [[x1, y1, x2, y2], ...]}]
relation_file: the same plus relation: {group: str, synonym: [str], ...}
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any

from groundwork.dataset.formats import entries
from groundwork.dataset.record import Phrase, Record


def read(
    path: str | os.PathLike[str], *, key: str = "caption", boxed: bool = True
) -> Iterator[Record]:
    """One record per entry, one phrase per caption; every caption shares the entry's boxes and
    relation.

    Args:
        key: of the captions. boxed: the entries have boxes.
    """
    for source, entry in entries.load_entries(path):
        boxes = entries.boxes(entry.get("bbox") or [], "bbox", source) if boxed else ()
        group, synonyms = entries.relation(entry.get("relation"), source)
        phrases = tuple(
            Phrase(text, boxes=boxes, synonyms=synonyms, group=group)
            for text in entries.texts(entry, key, source)
        )
        image = str(entries.need(entry, "image", source))
        yield Record(image, None, None, phrases, split="train", source=source)


def write(
    records: Iterable[Record],
    path: str | os.PathLike[str],
    *,
    key: str = "caption",
    boxed: bool = True,
) -> int:
    """Write one entry per record; returns how many. Arguments as of `read`.

    Raises:
        ValueError: a record whose phrases have different boxes or relations, or boxes for which
            there is no place, or without phrases.
    """
    return entries.save_entries(path, (_entry(record, key, boxed) for record in records))


def _entry(record: Record, key: str, boxed: bool) -> dict[str, Any]:
    here = record.source or record.image
    shared = {phrase.boxes for phrase in record.phrases}
    if len(shared) != 1:
        raise ValueError(f"{here}: all captions of an entry share its boxes, and there is one")
    if not boxed and any(shared):
        raise ValueError(f"{here}: an entry has chunks, and no boxes; write a VG list")
    texts = [phrase.text for phrase in record.phrases]
    boxes = {"bbox": entries.plain(shared.pop())} if boxed else {}
    return {"image": record.image, key: texts, **boxes} | entries.relation_entry(
        record.phrases, here
    )

"""Records as the JSON files of the trees that RefCLIP and ALVG print.

A phrase with several boxes becomes one box around all of them where a file holds one per phrase.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dataset.record import Phrase, Record
from geometry import enclosing_box, xyxy_to_xywh


def plain(values: Iterable[float]) -> list[float]:
    """Numbers as Python's own, whole ones as int; fractions to a thousandth."""
    rounded = (round(float(value), 3) for value in values)
    return [int(value) if value.is_integer() else value for value in rounded]


def xywh(phrase: Phrase) -> list[float]:
    """The box around all boxes of a phrase as corner, width and height."""
    return plain(xyxy_to_xywh(enclosing_box(phrase.boxes)))


def referents(records: Iterable[Record], *, merge: bool) -> Iterator[tuple[Record, list[Phrase]]]:
    """(record, phrases of one object): with `merge` all phrases of an image with one id, in the
    order of the first; else every phrase for itself."""
    groups: dict[tuple[str, str], tuple[Record, list[Phrase]]] = {}
    for record in records:
        for phrase in record.phrases:
            if not merge:
                yield record, [phrase]
                continue
            key = (record.image, phrase.phrase_id)
            groups.setdefault(key, (record, []))[1].append(phrase)
    yield from groups.values()


def simrec(
    splits: Mapping[str, list[Record]], categories: Mapping[str, int] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """anns/NAME.json of RefCLIP and SimREC: {split: [{iid, bbox: xywh, cat_id, refs, mask_id}]}.

    In "train" one entry is one object with all its phrases, elsewhere one phrase. `cat_id` is -1
    where the record's category is not among `categories`.
    """
    return {
        split: [
            {
                "iid": image_number(record),
                "bbox": xywh(phrases[0]),
                "cat_id": (categories or {}).get(phrases[0].category, -1),
                "refs": [phrase.text for phrase in phrases],
                "mask_id": int(phrases[0].phrase_id),
            }
            for record, phrases in referents(records, merge=split == "train")
        ]
        for split, records in splits.items()
    }


def instances(splits: Mapping[str, list[Record]]) -> dict[str, list[dict[str, Any]]]:
    """annotations/NAME/instances.json of ALVG: {split: [{image_id, height, width, expressions,
    bbox: xywh, mask}]}; objects as in `simrec`."""
    return {
        split: [
            {
                "image_id": image_number(record),
                "height": record.height,
                "width": record.width,
                "expressions": [phrase.text for phrase in phrases],
                "bbox": xywh(phrases[0]),
                **_mask(phrases[0]),
            }
            for record, phrases in referents(records, merge=split == "train")
        ]
        for split, records in splits.items()
    }


def _mask(phrase: Phrase) -> dict[str, Any]:
    if len(phrase.masks) != 1 or phrase.masks[0].endswith(".npy"):
        return {}
    return {"mask": json.loads(phrase.masks[0])}


def image_number(record: Record) -> int:
    """The number after the last "_" of the image's file name."""
    stem = Path(record.image).stem.rpartition("_")[2]
    if not stem.isdecimal():
        raise ValueError(f"{record.source}: image {record.image!r} has no number in its name")
    return int(stem)

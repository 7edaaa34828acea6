"""SimREC's and RefCLIP's `anns/*.json`.

{split: [{iid: int, bbox: [x, y, w, h], cat_id: int, refs: [str], mask_id: int}]}
A training entry has all sentences of an object, an entry of another split has one.
Merged pre-training lists (string `iid`, `data_source`) are refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dataset.formats import entries
from dataset.record import Phrase, Record
from geometry import xywh_to_xyxy, xyxy_to_xywh

# Picture and identity of an `iid`, by the name of the file: RefCLEF's pictures are SAIAPR's.
_COCO = ("COCO_train2014_{:012d}.jpg", "coco:{}")
_SAIAPR = ("{}.jpg", "saiapr:{}")


def read(path: str | os.PathLike[str], splits: Iterable[str] | None = None) -> Iterator[Record]:
    """One record per entry, one phrase per sentence; `splits` None: all of the file.

    Phrase id is the mask_id (REFER's ref_id), record id the iid. `category` holds cat_id as text.

    Raises:
        FileNotFoundError, ValueError: naming file, split, entry and key.
    """
    by_split = entries.load_json(path)
    name, identity = _SAIAPR if "refclef" in Path(path).stem else _COCO
    if not isinstance(by_split, dict):
        raise ValueError(f"{path}: expected {{split: [entry]}}, got {type(by_split).__name__}")
    for split in splits or by_split:
        rows = entries.need(by_split, split, os.fspath(path))
        for index, entry in enumerate(rows):
            source = f"{os.fspath(path)}[{split}][{index}]"
            iid = entries.need(entry, "iid", source)
            if not isinstance(iid, int):
                raise ValueError(f"{source}: iid {iid!r} is no number; merged lists are not read")
            box = entries.boxes([entries.need(entry, "bbox", source)], "bbox", source)
            boxes = tuple(tuple(row) for row in xywh_to_xyxy(box).tolist())
            phrase_id = str(entries.need(entry, "mask_id", source))
            category = str(entries.need(entry, "cat_id", source))
            texts = entries.texts(entries.need(entry, "refs", source), "refs", source)
            phrases = tuple(
                Phrase(text, phrase_id=phrase_id, boxes=boxes, category=category) for text in texts
            )
            yield Record(
                name.format(iid), None, None, phrases, split, str(iid), source,
                image_ids=(identity.format(iid),),
            )  # fmt: skip


def write(records: Iterable[Record], path: str | os.PathLike[str]) -> dict[str, int]:
    """Write records of single boxes; returns the number of entries per split.

    Consecutive phrases of a training record with the same id are one entry.

    Raises:
        ValueError: a phrase without exactly one box, or an id that is no number.
    """
    by_split: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        rows = by_split.setdefault(record.split, [])
        entry: dict[str, Any] | None = None
        for phrase in record.phrases:
            if len(phrase.boxes) != 1 or not (phrase.phrase_id + record.record_id).isdecimal():
                raise ValueError(
                    f"{record.source}: {phrase.text!r} needs one box and numbers as phrase and"
                    " record id in this format"
                )
            if (
                entry is None
                or record.split != "train"
                or entry["mask_id"] != int(phrase.phrase_id)
            ):
                category = phrase.category
                entry = {
                    "iid": int(record.record_id),
                    "bbox": xyxy_to_xywh(phrase.boxes[0]).tolist(),
                    "cat_id": int(category) if category.isdecimal() else -1,
                    "refs": [],
                    "mask_id": int(phrase.phrase_id),
                }
                rows.append(entry)
            entry["refs"].append(phrase.text)
    entries.save_json(path, by_split)
    return {split: len(rows) for split, rows in by_split.items()}

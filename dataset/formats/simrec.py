"""SimREC's and RefCLIP's `anns/*.json`.

{split: [{iid: int, bbox: [x, y, w, h], cat_id: int, refs: [str], mask_id: int}]},
    where cat_id and mask_id, which RefCLIP does not read, may be missing
merged pre-training lists of SimREC: iid is a text, and each entry has data_source; Visual Genome's
also has url, the last two parts of which are its image

A training entry has all sentences of an object, an entry of another split has one.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from groundwork.dataset.formats import entries, image_names
from groundwork.dataset.formats.entries import number
from groundwork.dataset.record import Phrase, Record
from groundwork.geometry import xyxy_to_xywh

# The collection that the `iid` of a file of this name counts: RefCLEF's images are SAIAPR's.
_BY_NAME = {"refclef": "saiaprtc12", "flickr": "flickr"}


def read(path: str | os.PathLike[str], splits: Iterable[str] | None = None) -> Iterator[Record]:
    """One record per entry, one phrase per sentence; `splits` None: all of the file.

    Phrase id is the mask_id (REFER's ref_id) or else the entry's place in the file, record id the
    iid. `category` holds cat_id as text.
    Images are COCO's unless the entry's data_source or the file's name ("refclef", "flickr30k")
    says otherwise.
    """
    stem = Path(path).stem
    usual = next((kind for name, kind in _BY_NAME.items() if name in stem), "coco")
    for split, place, entry, source in entries.split_entries(path, splits, "refs"):
        iid = number(entry, "iid", source)
        kind = image_names.source_in(entry, usual, source)
        name, identity = image_names.named(kind, iid, source)
        name = image_names.of_url(entry["url"], iid, source) if "url" in entry else name
        yield Record(
            name, None, None, _phrases(entry, place, source), split, str(iid), source,
            image_ids=(identity,),
        )  # fmt: skip


def _phrases(entry: Mapping[str, Any], place: int, source: str) -> tuple[Phrase, ...]:
    boxes = entries.corners(entries.box(entry, "bbox", source))
    phrase_id, category = str(entry.get("mask_id", place)), str(entry.get("cat_id", ""))
    texts = entries.texts(entry, "refs", source)
    return tuple(Phrase(text, phrase_id, boxes, category=category) for text in texts)


def write(
    records: Iterable[Record], path: str | os.PathLike[str], *, merged: bool = False
) -> dict[str, int]:
    """Write records of single boxes; returns the number of entries per split.

    Consecutive phrases of a training record with the same id are one entry.

    Args:
        merged: write a merged pre-training list, whose images are of several collections.

    Raises:
        ValueError: a phrase without exactly one box, an id that is no number, or ("merged") a
            record without an identity of its image.
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
                entry = _image(record, merged) | {
                    "bbox": xyxy_to_xywh(phrase.boxes[0]).tolist(),
                    "cat_id": int(category) if category.isdecimal() else -1,
                    "refs": [],
                    "mask_id": int(phrase.phrase_id),
                }
                rows.append(entry)
            entry["refs"].append(phrase.text)
    entries.save_json(path, by_split)
    return {split: len(rows) for split, rows in by_split.items()}


def _image(record: Record, merged: bool) -> dict[str, Any]:
    if not merged:
        return {"iid": int(record.record_id)}
    kind = image_names.source_of(record)
    url = {"url": record.image} if kind == "visual-genome" else {}
    return {"iid": record.record_id, "data_source": kind, **url}

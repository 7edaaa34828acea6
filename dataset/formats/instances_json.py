"""`instances.json` of SeqTR, SimVG and ALVG.

{split: [{image_id, height, width, expressions: [str], bbox, mask?, data_source?}]}
single target: bbox [x, y, w, h], mask: polygons or one RLE; mixed lists name `data_source`
gRefCOCO: bbox [E][k] of [x, y, w, h] and annotations [E][k] (category_id -1: no target, the box is
a dummy), segmentation? [E][k]. A key `info` is no split. An expression with a -1 among its targets
means nothing, and has the others as boxes, with which the release trains.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import compress
from typing import Any

from groundwork.dataset.formats import entries, image_names
from groundwork.dataset.record import Phrase, Record
from groundwork.geometry import xyxy_to_xywh

_NOTHING = -1


def read(
    path: str | os.PathLike[str], splits: Iterable[str] | None = None, data_source: str = "coco"
) -> Iterator[Record]:
    """One record per entry, one phrase per expression; `splits` None: all of the file.

    Args:
        data_source: "coco", "vg", "saiaprtc12" or "flickr", for entries that name none.
    """
    for split, _, entry, source in entries.split_entries(path, splits, "expressions"):
        image_id = entries.number(entry, "image_id", source)
        kind = image_names.source_in(entry, data_source, source)
        name, identity = image_names.named(kind, image_id, source)
        texts = entries.texts(entry, "expressions", source)
        form = _several if "annotations" in entry else _single
        yield Record(
            name, *entries.size(entry, source),
            form(entry, texts, source), split, str(image_id), source,
            image_ids=(identity,),
        )  # fmt: skip


def _single(entry: Mapping[str, Any], texts: tuple[str, ...], source: str) -> tuple[Phrase, ...]:
    boxes = entries.corners(entries.box(entry, "bbox", source))
    masks = (_compact(entry["mask"]),) if entry.get("mask") else ()
    return tuple(Phrase(text, boxes=boxes, masks=masks) for text in texts)


def _several(entry: Mapping[str, Any], texts: tuple[str, ...], source: str) -> tuple[Phrase, ...]:
    targets, boxes = entry["annotations"], entries.need(entry, "bbox", source)
    outlines = entry.get("segmentation") or [[]] * len(texts)
    for key, value in (("annotations", targets), ("bbox", boxes), ("segmentation", outlines)):
        if not isinstance(value, list) or len(value) != len(texts):
            raise ValueError(
                f"{source}: expressions, annotations, bbox, segmentation differ in length: {key}"
                f" is no list with one list for each of {len(texts)}: {str(value)[:80]}"
            )
    return tuple(
        _phrase(text, target, rows or [], shapes or [], f"{source}: {text!r}")
        for text, target, rows, shapes in zip(texts, targets, boxes, outlines, strict=True)
    )


def _phrase(text: str, target: Any, rows: Any, shapes: Any, source: str) -> Phrase:
    if not isinstance(target, list) or not all(isinstance(one, Mapping) for one in target):
        raise ValueError(
            f"{source}: annotations must be a list of objects with a category_id, -1 or an empty"
            f" list where nothing is meant, got {target!r}"
        )
    meant = [_is_object(one, source) for one in target]
    if not any(meant):
        return Phrase(text, matches_nothing=True)
    rows = entries.listed(rows, f"{source}: bbox")
    shapes = entries.listed(shapes, f"{source}: segmentation")
    if not len(meant) == len(rows) == len(shapes or rows):
        raise ValueError(
            f"{source} has {len(meant)} annotations, {len(rows)} boxes, {len(shapes)} masks"
        )
    masks = tuple(map(_compact, compress(shapes, meant)))
    boxes = entries.corners(entries.boxes(list(compress(rows, meant)), "bbox", source))
    return Phrase(text, boxes=boxes, masks=masks, matches_nothing=not all(meant))


def _is_object(target: Mapping[str, Any], source: str) -> bool:
    if "category_id" not in target:
        return True
    return entries.number(target, "category_id", source) != _NOTHING


def _compact(mask: Any) -> str:
    return json.dumps(mask, separators=(",", ":"))


def write(records: Iterable[Record], path: str | os.PathLike[str]) -> dict[str, int]:
    """Write one entry per record, in the gRefCOCO form where a phrase has not exactly one box or
    phrases differ in theirs; returns the number of entries per split.

    Raises:
        ValueError: a record without a numeric record id, size or known image.
    """
    by_split: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        if not record.width or not record.height:
            raise ValueError(f"{record.source or record.image}: width and height are not known")
        entry = {
            "image_id": int(record.record_id),
            "height": record.height,
            "width": record.width,
            "expressions": [phrase.text for phrase in record.phrases],
            "data_source": image_names.source_of(record),
        }
        by_split.setdefault(record.split, []).append(entry | _targets(record))
    entries.save_json(path, by_split)
    return {split: len(rows) for split, rows in by_split.items()}


def _targets(record: Record) -> dict[str, Any]:
    first = record.phrases[0]
    alike = all((p.boxes, p.masks) == (first.boxes, first.masks) for p in record.phrases)
    if alike and len(first.boxes) == 1:
        mask = {"mask": json.loads(first.masks[0])} if first.masks else {}
        return {"bbox": xyxy_to_xywh(first.boxes[0]).tolist()} | mask
    # Of nothing, or of nothing beside other targets: a target of -1 with a dummy box.
    dummies = [not phrase.boxes or phrase.matches_nothing for phrase in record.phrases]
    pairs = list(zip(record.phrases, dummies, strict=True))
    return {
        "annotations": [
            [{"category_id": 1}] * len(p.boxes) + [{"category_id": -1}] * dummy
            for p, dummy in pairs
        ],
        "bbox": [
            [*(xyxy_to_xywh(box).tolist() for box in p.boxes), *[[0, 0, 0, 0]] * dummy]
            for p, dummy in pairs
        ],
        "segmentation": [
            [*map(json.loads, p.masks), *[[]] * (dummy and bool(p.masks))] for p, dummy in pairs
        ],
    }

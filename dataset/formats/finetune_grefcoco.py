"""gRefCOCO as the GREC release has it, in MDETR's style: `finetune_grefcoco_{split}.json`.

{images: [{id, original_id, file_name, caption, height, width}],
 annotations: [{id, image_id, bbox: [x, y, w, h], category_id}]}

An entry of "images" is an image with one sentence; `original_id` is COCO's id of it. Annotations
belong to such a pair; without any, or with category_id -1 (its box is a dummy), the sentence
matches nothing. `file_name` may be missing. https://github.com/henghuiding/gRefCOCO
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from groundwork.dataset.formats import entries, image_names
from groundwork.dataset.formats.entries import number
from groundwork.dataset.record import Phrase, Record
from groundwork.geometry import xyxy_to_xywh

NAME = "finetune_grefcoco_{}.json"
_NOTHING = -1
_DUMMY = ((0.0, 0.0, 0.0, 0.0),)


def read(path: str | os.PathLike[str], split: str | None = None) -> Iterator[Record]:
    """One record per sentence, in the file's order; its phrase has every box of the sentence.

    Record id is the original_id. Masks are not stated.

    Args:
        split: None: what follows the last "_" of the file's name.
    """
    content = entries.load_json(path)
    split = Path(path).stem.rpartition("_")[2] if split is None else split
    targets = _targets(entries.need(content, "annotations", os.fspath(path)), path)
    rows = entries.need(content, "images", os.fspath(path))
    pairs = entries.by_number(rows, "id", f"{os.fspath(path)} images")
    for index, (pair, image) in enumerate(pairs.items()):
        source = f"{os.fspath(path)} images[{index}]"
        image_id = number(image, "original_id", source)
        name, identity = image_names.named("coco", image_id, source)
        text, boxes = entries.text(image, "caption", source), entries.corners(targets.pop(pair, []))
        phrase = Phrase(text, boxes=boxes, matches_nothing=not boxes)
        yield Record(
            str(image.get("file_name") or name), *entries.size(image, source),
            (phrase,), split, str(image_id), source, image_ids=(identity,),
        )  # fmt: skip
    if targets:
        raise ValueError(f"{path}: annotations of image {next(iter(targets))}, which is not there")


def _targets(rows: Any, path: str | os.PathLike[str]) -> dict[int, list[tuple[float, ...]]]:
    """Id of a pair -> its boxes, xywh; none for a sentence that is annotated to match nothing.

    Raises:
        ValueError: a pair has objects and a mark for nothing.
    """
    where = f"{os.fspath(path)} annotations"
    found: dict[int, list[tuple[float, ...]]] = {}
    kinds: dict[int, set[bool]] = defaultdict(set)
    entries.require_distinct(rows, "id", where)
    for index, row in enumerate(rows):
        source = f"{where}[{index}]"
        pair = number(row, "image_id", source)
        is_object = number(row, "category_id", source) != _NOTHING
        kinds[pair].add(is_object)
        if len(kinds[pair]) > 1:
            raise ValueError(f"{source}: its sentence has objects and matches nothing")
        boxes = found.setdefault(pair, [])
        if is_object:
            boxes.append(entries.box(row, "bbox", source))
    return found


def write(records: Iterable[Record], path: str | os.PathLike[str]) -> None:
    """Write one pair per phrase of the records of one split.

    Raises:
        ValueError: a record without size or number as id, or a phrase that has neither boxes nor
            the mark that it matches nothing.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in records:
        here = record.source or record.image
        if not record.width or not record.height or not record.record_id.isdecimal():
            raise ValueError(f"{here}: needs width, height and COCO's number of the image")
        for phrase in record.phrases:
            if phrase.matches_nothing == bool(phrase.boxes):
                raise ValueError(f"{here}: {phrase.text!r} has boxes, or else matches nothing")
            images.append(
                {
                    "id": len(images),
                    "original_id": int(record.record_id),
                    "file_name": record.image,
                    "caption": phrase.text,
                    "height": record.height,
                    "width": record.width,
                }
            )
            boxes = xyxy_to_xywh(phrase.boxes or _DUMMY)
            for row in entries.plain(boxes):
                ids = {"id": len(annotations), "image_id": images[-1]["id"]}
                category = 1 if phrase.boxes else _NOTHING
                annotations.append({**ids, "bbox": row, "category_id": category})
    entries.save_json(path, {"images": images, "annotations": annotations})

"""REFER's and gRefCOCO's instances.json: the images, objects and classes that references name.

{images: [{id, file_name, width, height}],
 annotations: [{id, image_id, category_id, bbox: [x, y, w, h],
                segmentation: [[x, y, ...], ...] | {size, counts} | [{size, counts}, ...]}],
 categories: [{id, name}]}

The list of run lengths is RefCLEF's.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundwork.dataset.formats import entries
from groundwork.dataset.formats.entries import number
from groundwork.dataset.formats.image_names import COCO_STEM
from groundwork.dataset.record import Record
from groundwork.geometry import Box, decode_mask, xyxy_to_xywh


@dataclass(frozen=True, slots=True)
class Target:
    """An object: xyxy box in pixels, segmentation as JSON text and class name ("": not known).

    area: in pixels; None: that of the mask, or else of the box.
    """

    box: Box
    mask: str
    category: str
    area: int | None = None


class Instances:
    """The content of one instances.json, looked up by id.

    Raises:
        FileNotFoundError, ValueError: naming file, object and key.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        content = entries.load_json(path)
        self._images = self._by_id(content, "images")
        self._annotations = self._by_id(content, "annotations")
        self._categories = self._by_id(content, "categories") if "categories" in content else {}

    def _by_id(self, content: Mapping[str, Any], kind: str) -> dict[int, Mapping[str, Any]]:
        rows = entries.need(content, kind, os.fspath(self.path))
        return entries.by_number(rows, "id", f"{self.path} {kind}")

    def image(self, image_id: int, source: str) -> Mapping[str, Any]:
        """The image of this id; `source` asks for it."""
        return entries.need(self._images, image_id, f"{source}: {self.path} images")

    def target(self, ann_id: int, image_id: int, source: str) -> Target:
        """The object of this id.

        Raises:
            ValueError: no such object, one of another image, or an annotation that is malformed.
        """
        annotation = entries.need(self._annotations, ann_id, f"{source}: {self.path} annotations")
        here = f"{self.path} annotation {ann_id}"
        if "image_id" in annotation and number(annotation, "image_id", here) != image_id:
            raise ValueError(
                f"{source}: {here} is of image {annotation['image_id']}, the reference of"
                f" {image_id}; the two files do not belong together"
            )
        (box,) = entries.corners(entries.box(annotation, "bbox", here))
        return Target(
            box=box,
            mask=_mask(annotation.get("segmentation")),
            category=self._category(annotation, here),
        )

    def _category(self, annotation: Mapping[str, Any], here: str) -> str:
        if annotation.get("category_id") is None:
            return ""
        category_id = number(annotation, "category_id", here)
        if category_id in self._categories:
            return str(entries.need(self._categories[category_id], "name", here))
        # Ids below 1 that have no name mean "no class".
        if not self._categories or category_id < 1:
            return ""
        raise ValueError(f"{here}: category_id {category_id} is not in the file's categories")


def _mask(segmentation: Any) -> str:
    if not segmentation:
        return ""
    if isinstance(segmentation, list) and [type(part) for part in segmentation] == [dict]:
        (segmentation,) = segmentation
    return json.dumps(segmentation, separators=(",", ":"))


def identities(file_name: str, image_id: int, refs_file: str | os.PathLike[str]) -> tuple[str, ...]:
    """`Record.image_ids` of an image of REFER.

    COCO's file names say what they are; RefCLEF is known by its references' folder or split.
    """
    if coco := COCO_STEM.fullmatch(Path(file_name).stem):
        return (f"coco:{coco[1]}",)
    refs_file = Path(refs_file)
    if refs_file.parent.name == "refclef" or "berkeley" in refs_file.name:
        return (f"saiapr:{image_id}",)
    return ()


def in_split(annotated: str, split: str) -> bool:
    """Whether a reference annotated as in split `annotated` counts to `split`.

    RefCLEF's "testAB" counts to testA and to testB; everything with "test" counts to test.
    """
    if split == "test":
        return "test" in annotated
    if len(split) == 5 and split.startswith("test"):
        return annotated.startswith("test") and split[4] in annotated[4:]
    return annotated == split


def _numbers(texts: Sequence[str]) -> list[int]:
    """The ids as numbers if all are different numbers, or else 1, 2, ..."""
    if all(text.isdecimal() for text in texts) and len(set(texts)) == len(texts):
        return [int(text) for text in texts]
    return list(range(1, len(texts) + 1))


class _Writer:
    """Collects the images and objects of records and gives them ids.

    Args:
        records: all that will be written. Images keep their number (`record_id`) where
            every image has another one.
        classes: that have the first ids; others follow as they come.
    """

    def __init__(self, records: Sequence[Record], classes: Sequence[str]) -> None:
        names: dict[str, str] = {}
        for record in records:
            names.setdefault(record.image, record.record_id)
        ids = dict(zip(names, _numbers(list(names.values())), strict=True))
        self._image_ids = ids
        self._images: dict[int, dict[str, Any]] = {}
        self._annotations: dict[tuple[int, Target], dict[str, Any]] = {}
        self._categories = {name: number for number, name in enumerate(classes, 1)}

    def add_image(self, record: Record) -> int:
        """The id of the record's image.

        Raises:
            ValueError: the record has no size.
        """
        if record.width is None or record.height is None:
            raise ValueError(
                f"{record.source or record.image}: width and height are not known; instances.json"
                " needs them, fill them in from the image"
            )
        image_id = self._image_ids[record.image]
        self._images[image_id] = {
            "id": image_id,
            "file_name": record.image,
            "width": record.width,
            "height": record.height,
        }
        return image_id

    def add_target(self, image_id: int, target: Target) -> tuple[int, int]:
        """(annotation id, category id) of an object; -1 is the category of one without a class."""
        category = -1
        if target.category:
            category = self._categories.setdefault(target.category, len(self._categories) + 1)
        image = self._images[image_id]
        segmentation, pixels = _segmentation(target.mask, (image["height"], image["width"]))
        (box,) = entries.plain([xyxy_to_xywh(target.box).tolist()])
        area = box[2] * box[3] if pixels is None else pixels
        row = {
            "id": len(self._annotations) + 1,
            "image_id": image_id,
            "category_id": category,
            "bbox": box,
            "area": area if target.area is None else target.area,
            "iscrowd": 0,
            "segmentation": segmentation,
        }
        return self._annotations.setdefault((image_id, target), row)["id"], category

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file, complete or not at all."""
        content = {
            "images": list(self._images.values()),
            "annotations": list(self._annotations.values()),
            "categories": [{"id": i, "name": name} for name, i in self._categories.items()],
        }
        entries.save_json(path, content)


def _segmentation(mask: str, size: tuple[int, int]) -> tuple[Any, int | None]:
    """(COCO segmentation, its area in pixels) of an entry of `Phrase.masks`; ([], None) for ""."""
    if not mask:
        return [], None
    if mask.endswith(".npy"):
        raise ValueError(
            f"mask {mask} is a file; turn it into run lengths with geometry.decode_mask and"
            " mask_to_runs first"
        )
    return json.loads(mask), int(decode_mask(mask, size).sum())


def write(
    records: Sequence[Record],
    instances_file: str | os.PathLike[str],
    targets_of: Callable[[Record], tuple[Target, ...]],
    classes: Sequence[str] = (),
) -> list[tuple[dict[str, Any], list[tuple[int, int]]]]:
    """Write instances.json; the references come back, to be completed and written by the caller.

    Args:
        classes: those that have the first category ids, in their order.

    Returns:
        For every record a reference without `ann_id` and `category_id`, and the pairs of those two
        of its objects. References keep their numbers (`phrase_id`) where every record has another
        one; sentences are numbered in order.

    Raises:
        ValueError: a record without phrases or size, or a mask that is no segmentation.
    """
    for record in records:
        if not record.phrases:
            raise ValueError(f"{record.source or record.image}: a reference needs a phrase")
    instances = _Writer(records, classes)
    ref_ids = _numbers([record.phrases[0].phrase_id for record in records])
    references = []
    sent_id = 0
    for record, ref_id in zip(records, ref_ids, strict=True):
        image_id = instances.add_image(record)
        sentences = []
        for text in (phrase.text for phrase in record.phrases):
            sent_id += 1
            sentences.append(
                {"sent_id": sent_id, "sent": text, "raw": text, "tokens": text.split()}
            )
        reference = {
            "ref_id": ref_id,
            "image_id": image_id,
            "file_name": record.image,
            "split": record.split,
            "sentences": sentences,
            "sent_ids": [sentence["sent_id"] for sentence in sentences],
        }
        targets = [instances.add_target(image_id, target) for target in targets_of(record)]
        references.append((reference, targets))
    instances.write(instances_file)
    return references


def count(records: Sequence[Record]) -> dict[str, tuple[int, int]]:
    """{split: (references, sentences)}, as the data sets' authors count them."""
    counts: dict[str, tuple[int, int]] = {}
    for record in records:
        references, sentences = counts.get(record.split, (0, 0))
        counts[record.split] = (references + 1, sentences + len(record.phrases))
    return counts

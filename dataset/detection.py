"""Images with all their objects, of COCO's instances files, for training a detector."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch

from groundwork.dataset.batches import DetectionBatch
from groundwork.dataset.formats import entries
from groundwork.dataset.images import load_image, open_root, resolve_image
from groundwork.dataset.leakage import identity_of_name, refer_images
from groundwork.dataset.letterbox import Letterbox, lay, letterbox_of
from groundwork.dataset.referring.transforms import to_tensor
from groundwork.dataset.sampler import SizedDataset
from groundwork.geometry import (
    as_boxes,
    clip_boxes,
    flip_boxes,
    scale_boxes,
    xywh_to_xyxy,
    xyxy_to_cxcywh01,
)


class DetectionImage(NamedTuple):
    """file_name, its boxes (n, 4) xyxy in pixels, labels (n,) from 0, and where it is annotated."""

    file_name: str
    boxes: np.ndarray
    labels: np.ndarray
    source: str


@dataclass(frozen=True)
class Instances:
    """The images of one or several files, in order.

    categories: names, by label. left_out: images that are evaluated on elsewhere.
    """

    images: list[DetectionImage]
    categories: list[str]
    left_out: int


def read_instances(
    files: Sequence[str | os.PathLike[str]], evaluated: Sequence[str | os.PathLike[str]] = ()
) -> Instances:
    """All images with objects; crowds are no objects.

    Labels count the categories of the first file in the order of their ids: COCO's 80 become 0-79.

    Args:
        files: instances_train2014.json, ...
        evaluated: REFER's refs(...).p files, of which the images of all splits but "train" are
            left out. Their numbers must be those of the files, as with COCO's.

    Raises:
        FileNotFoundError, ValueError: naming file and entry; or files with other categories, or
            nothing is left.
    """
    forbidden = {
        identity for file in evaluated for one in refer_images(file, "coco").values()
        for identity in one.identities
    }  # fmt: skip
    found_images: list[DetectionImage] = []
    names: dict[int, str] = {}
    left_out = 0
    for file in files:
        content = entries.load_json(file)
        images, categories = (
            entries.by_number(entries.need(content, kind, os.fspath(file)), "id", f"{file} {kind}")
            for kind in ("images", "categories")
        )
        annotations = entries.need(content, "annotations", os.fspath(file))
        entries.require_distinct(annotations, "id", f"{file} annotations")
        own = {label: str(entries.need(row, "name", f"{file} category {label}"))
               for label, row in categories.items()}  # fmt: skip
        names = names or dict(sorted(own.items()))
        if own != names:
            raise ValueError(f"{file}: has other categories than {files[0]}; train on one kind")
        objects: dict[int, list[Any]] = {}
        for index, row in enumerate(annotations):
            if not row.get("iscrowd"):
                here = f"{file} annotations[{index}]"
                objects.setdefault(entries.number(row, "image_id", here), []).append(row)
        labels = {category: label for label, category in enumerate(names)}
        for number, image in images.items():
            here = f"{file} image {number}"
            name = str(entries.need(image, "file_name", here))
            known = identity_of_name(name, None) or f"coco:{number}"
            left_out += known in forbidden
            if known not in forbidden and number in objects:
                found_images.append(_detection_image(image, objects[number], labels, here))
    if not found_images:
        raise ValueError(f"{', '.join(map(str, files))}: no image with objects is left")
    return Instances(found_images, list(names.values()), left_out)


def _detection_image(
    image: Mapping[str, Any], objects: list[Any], labels: dict[int, int], source: str
) -> DetectionImage:
    width, height = entries.size(image, source)
    if width is None or height is None:
        raise ValueError(f"{source}: states no width and height, to which its boxes are cut")
    stated = entries.boxes([entries.need(row, "bbox", source) for row in objects], "bbox", source)
    try:
        boxes = clip_boxes(as_boxes(xywh_to_xyxy(np.array(stated))), (height, width))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    categories = [entries.number(row, "category_id", source) for row in objects]
    unknown = set(categories) - labels.keys()
    if unknown:
        raise ValueError(f"{source}: category_id {min(unknown)} is not in the file's categories")
    kept = (boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)
    found = np.array([labels[category] for category in categories], dtype=np.int64)
    return DetectionImage(str(image["file_name"]), boxes[kept], found[kept], source)


@dataclass(frozen=True)
class Augmentation:
    """Of training images. flip: mirror half of them. smallest: the image is shrunk to a share
    of the square drawn between this and 1, and laid anywhere on it."""

    flip: bool = True
    smallest: float = 0.6


class DetectionSample(TypedDict):
    """As in a `DetectionBatch`: image (3, S, S), object_boxes (n, 4), object_labels (n,)."""

    image: torch.Tensor
    object_boxes: torch.Tensor
    object_labels: torch.Tensor


class DetectionDataset(SizedDataset[DetectionSample]):
    """Letterboxed images with their objects.

    The index of a training sample is (epoch, i), its augmentation follows from (seed, epoch, i); an
    evaluation sample has the index i and is not augmented.

    Args:
        image_root: folder that the file names are relative to. side: of the square, in pixels.
    """

    def __init__(
        self,
        images: Sequence[DetectionImage],
        image_root: str,
        side: int,
        *,
        augmentation: Augmentation | None = None,
        seed: int = 42,
    ) -> None:
        self.images, self.image_root, self.side = images, image_root, side
        open_root(image_root)
        self.augmentation = augmentation or Augmentation()
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | tuple[int, int]) -> DetectionSample:
        number = index[1] if isinstance(index, tuple) else index
        rng = np.random.default_rng((self.seed, *index)) if isinstance(index, tuple) else None
        annotated = self.images[number]
        path = resolve_image(self.image_root, annotated.file_name, annotated.source)
        image, boxes = load_image(path, annotated.source, "shown"), annotated.boxes
        place = letterbox_of(image.shape[:2], self.side)
        if rng is not None:
            if self.augmentation.flip and rng.random() < 0.5:
                image, boxes = image[:, ::-1], flip_boxes(boxes, image.shape[1])
            place = self._anywhere(image.shape[:2], rng)
        canvas = lay(image, place, self.side)
        offset = np.array([*place.offset, *place.offset])
        boxes = scale_boxes(boxes, image.shape[:2], place.size) + offset
        relative = xyxy_to_cxcywh01(boxes, (self.side, self.side))
        return {
            "image": to_tensor(canvas),
            "object_boxes": torch.from_numpy(relative * self.side).float(),
            "object_labels": torch.from_numpy(annotated.labels),
        }

    def _anywhere(self, size: tuple[int, int], rng: np.random.Generator) -> Letterbox:
        side = max(1, round(self.side * rng.uniform(self.augmentation.smallest, 1)))
        height, width = letterbox_of(size, side).size
        left, top = rng.integers(self.side - width + 1), rng.integers(self.side - height + 1)
        return Letterbox((height, width), (int(left), int(top)))


def collate_detection(samples: Sequence[DetectionSample]) -> DetectionBatch:
    """Samples to a batch."""
    return {
        "image": torch.stack([sample["image"] for sample in samples]),
        "object_boxes": [sample["object_boxes"] for sample in samples],
        "object_labels": [sample["object_labels"] for sample in samples],
        "corrupt": 0,
        "faults": [],
    }

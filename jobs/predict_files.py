"""Predictions as files of others: COCO's json and YOLO's labels, of each system its own.

Only what is there is written: a phrase that a system does not find in an image has no box in it.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from groundwork.dataset.formats.entries import save_json
from groundwork.files.safe import write_text
from groundwork.geometry import (
    Grounding,
    Size,
    clip_boxes,
    mask_to_runs,
    xyxy_to_cxcywh01,
    xyxy_to_xywh,
)


@dataclass(frozen=True)
class Seen:
    """An image with what a system says about it, without heat maps and masks as arrays."""

    name: str
    path: Path
    size: Size
    found: tuple["Found", ...]


@dataclass(frozen=True)
class Found:
    """A phrase that is there: boxes (n, 4) xyxy, the best first, scores, run lengths or None."""

    phrase: str
    boxes: tuple[tuple[float, ...], ...]
    scores: tuple[float, ...]
    mask: dict[str, Any] | None


@dataclass
class Collected:
    """What one system found, image by image."""

    images: list[Seen] = field(default_factory=list)

    def add(self, name: str, path: Path, size: Size, groundings: Sequence[Grounding]) -> None:
        """Take what is there."""
        found = tuple(
            Found(
                one.phrase,
                tuple(map(tuple, clip_boxes(one.boxes, size).tolist())),
                tuple(one.scores.tolist()),
                mask_of(one),
            )
            for one in groundings
            if one.is_there
        )
        self.images.append(Seen(name, path, size, found))

    def phrases(self) -> dict[str, int]:
        """Every phrase that is there in some image -> its number, from 0."""
        found = dict.fromkeys(one.phrase for image in self.images for one in image.found)
        return {phrase: number for number, phrase in enumerate(found)}


def mask_of(grounding: Grounding) -> dict[str, Any] | None:
    """COCO's run lengths of a mask that the system gave itself; None without one."""
    own = grounding.mask is not None and "mask" not in grounding.derived
    return mask_to_runs(grounding.mask) if own and grounding.mask is not None else None


def row_of(image: str, system: str, found: Grounding) -> dict[str, Any]:
    """A prediction as predictions.jsonl and Parquet files have it; `image` and `system`: names."""
    return {
        "image": image,
        "phrase": found.phrase,
        "system": system,
        "size": list(found.size),
        "point": list(found.point),
        "boxes": found.boxes.tolist(),
        "scores": found.scores.tolist(),
        "mask": mask_of(found),
        "score": found.score,
        "present": found.present,
        "threshold": None if found.present is None else found.threshold,
        "there": found.is_there,
        "derived": sorted(found.derived),
        "confidence": found.confidence,
    }


def write_coco(out: Path, system: str, collected: Collected) -> Path:
    """coco/SYSTEM.json: images, phrases as categories, a box each as an annotation with its score;
    the mask, which is of all boxes of a phrase, is with the best of them."""
    categories = collected.phrases()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(collected.images, 1):
        height, width = image.size
        images.append({"id": number, "file_name": image.name, "width": width, "height": height})
        for one in image.found:
            for place, (box, score) in enumerate(zip(one.boxes, one.scores, strict=True)):
                x, y, w, h = xyxy_to_xywh(box).tolist()
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number,
                     "category_id": categories[one.phrase] + 1, "bbox": [x, y, w, h],
                     "area": w * h, "iscrowd": 0, "score": score,
                     "segmentation": one.mask if one.mask and not place else []}
                )  # fmt: skip
    named = [{"id": number + 1, "name": phrase} for phrase, number in categories.items()]
    path = out / "coco" / f"{system}.json"
    save_json(path, {"images": images, "annotations": annotations, "categories": named})
    return path


def write_yolo(out: Path, system: str, collected: Collected) -> Path:
    """yolo/SYSTEM/labels/IMAGE.txt, a line `class x y width height` in shares of the image for each
    box, as trainings of YOLO read them, and yolo/SYSTEM/data.yaml with the phrases as classes."""
    folder, classes = out / "yolo" / system, collected.phrases()
    for image in collected.images:
        lines = []
        for one in image.found:
            for box in xyxy_to_cxcywh01(one.boxes, image.size).tolist():
                lines.append(" ".join([str(classes[one.phrase]), *(f"{n:.6f}" for n in box)]))
        write_text(
            folder / "labels" / _labels_of(image.name), "".join(f"{line}\n" for line in lines)
        )
    # Texts of JSON are texts of YAML, too.
    names = [f"  {number}: {json.dumps(phrase)}" for phrase, number in classes.items()]
    write_text(folder / "data.yaml", "\n".join(["path: .", "names:", *names]) + "\n")
    return folder


def _labels_of(image: str) -> PurePosixPath:
    return PurePosixPath(image.lstrip("/")).with_suffix(".txt")


def require_own_labels(images: Iterable[str]) -> None:
    """Raises ValueError where YOLO's labels of two images would be one file, by their names."""
    owners: dict[PurePosixPath, str] = {}
    for image in images:
        other = owners.setdefault(_labels_of(image), image)
        if other != image:
            raise ValueError(
                f"--write yolo: {other} and {image} would both have the labels"
                f" {_labels_of(image)}; rename one of them, or leave yolo out"
            )


WRITERS: dict[str, Callable[[Path, str, Collected], Path]] = {
    "coco": write_coco,
    "yolo": write_yolo,
}

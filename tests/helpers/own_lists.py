"""Phrases as people have them: those of the embedded data set in every form that is taken."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from groundwork.tools import prepare_own
from tests.helpers.dataset_files import write_json

WITHOUT_MASKS = ("csv", "tsv")


class Said(NamedTuple):
    """An expression of a scene with the boxes and masks of its targets."""

    image: str
    size: tuple[int, int]
    text: str
    boxes: list[list[float]]
    masks: list[dict[str, Any]]


def said(embedded: Path) -> list[Said]:
    """The expressions of all scenes, each once per image, of no, one or several objects."""
    found: dict[tuple[str, str], Said] = {}
    for line in (embedded / "scenes.jsonl").read_text().splitlines():
        scene = json.loads(line)
        for expression in scene["expressions"]:
            targets = [scene["objects"][index] for index in expression["targets"]]
            boxes, masks = ([one[key] for one in targets] for key in ("box", "mask"))
            one = Said(scene["image"], scene["size"], expression["text"], boxes, masks)
            found.setdefault((one.image, one.text), one)
    return list(found.values())


def prepared(form: str, embedded: Path, folder: Path, *more: str) -> Path:
    """The embedded data set's phrases in a form, through tools/prepare_own.py with the flags
    `more`; returns the folder that it wrote."""
    given, out = write(form, said(embedded), folder / "given"), folder / "own"
    prepare_own.main([str(given), "--images", str(embedded / "images"), "--out", str(out), *more])
    return out


def write(form: str, expressions: list[Said], folder: Path) -> Path:
    """The expressions in the form, a key of FORMS; returns the list."""
    folder.mkdir(parents=True, exist_ok=True)
    return FORMS[form](expressions, folder / "list")


def xywh(box: list[float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]


def _lines(expressions: list[Said], path: Path) -> Path:
    """One box or mask as such, several as lists, none as null."""
    rows = []
    for one in expressions:
        row: dict[str, Any] = {"image": one.image, "phrase": one.text}
        if len(one.boxes) == 1:
            row |= {"box": one.boxes[0], "mask": one.masks[0]}
        else:
            row |= {"boxes": one.boxes, "masks": one.masks} if one.boxes else {"box": None}
        rows.append(json.dumps(row))
    path = path.with_suffix(".jsonl")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def _masks(expressions: list[Said], path: Path) -> Path:
    rows = [
        {"image": one.image, "phrase": one.text, "masks": one.masks or None} for one in expressions
    ]
    path = path.with_suffix(".jsonl")
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return path


def _rows(expressions: list[Said], sides: bool) -> Iterator[list[object]]:
    for one in expressions:
        for box in one.boxes or [None]:
            numbers = [""] * 4 if box is None else xywh(box) if sides else box
            yield [one.image, one.text, *numbers]


def _csv(expressions: list[Said], path: Path) -> Path:
    path = path.with_suffix(".csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["Image", "Phrase", "x1", "y1", "x2", "y2"])
        rows.writerows(_rows(expressions, sides=False))
    return path


def _tsv(expressions: list[Said], path: Path) -> Path:
    path = path.with_suffix(".tsv")
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        rows = csv.writer(file, delimiter="\t")
        rows.writerow(["file_name", "caption", "x", "y", "w", "h"])
        rows.writerows(_rows(expressions, sides=True))
    return path


def _images(expressions: list[Said]) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for one in expressions:
        size = {"height": one.size[0], "width": one.size[1]}
        rows.setdefault(one.image, {"id": len(rows) + 1, "file_name": one.image, **size})
    return rows


def _coco(expressions: list[Said], path: Path) -> Path:
    """An annotation per box, all of a phrase of several boxes with the same phrase."""
    images, rows = _images(expressions), []
    for one in expressions:
        about = {"image_id": images[one.image]["id"], "phrase": one.text}
        for box, mask in zip(one.boxes, one.masks, strict=True):
            rows.append(about | {"bbox": xywh(box), "segmentation": mask, "category_id": 1})
        if not one.boxes:
            rows.append(about | {"bbox": None})
    content = {"images": list(images.values()), "annotations": rows, "categories": []}
    return write_json(path.with_suffix(".json"), content)


def _mdetr(expressions: list[Said], path: Path) -> Path:
    """A caption per expression, in which the expression is named by its characters."""
    images, rows = [], []
    for number, one in enumerate(expressions):
        size = {"height": one.size[0], "width": one.size[1]}
        caption = f"look at {one.text} ."
        images.append({"id": number, "file_name": one.image, "caption": caption, **size})
        span = [[len("look at "), len("look at ") + len(one.text)]]
        for box, mask in zip(one.boxes, one.masks, strict=True):
            rows.append(
                {"image_id": number, "bbox": xywh(box), "tokens_positive": span,
                 "segmentation": mask, "category_id": 1, "iscrowd": 0}
            )  # fmt: skip
    return write_json(path.with_suffix(".json"), {"images": images, "annotations": rows})


FORMS = {
    "jsonl": _lines, "masks": _masks, "csv": _csv, "tsv": _tsv, "coco": _coco, "mdetr": _mdetr,
}  # fmt: skip

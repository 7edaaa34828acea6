"""RefCOCO+ and RefCLEF: a test list of the AMC/SelfEQ releases, joined with REFER's annotations.

test_file       [{image, text, ref_id}]; RefCLEF also split: "val" | "test..."
refs(SPLITS).p  pickled list of {ref_id, ann_id, image_id, split, ...}
instances.json  {images: [{id, width, height}], annotations: [{id, image_id, bbox: [x, y, w, h]}]}
REFER: https://github.com/lichengunc/refer
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dataset.formats import entries
from dataset.record import Phrase, Record
from geometry import xywh_to_xyxy

# Who made the split that the papers report.
SPLIT_BY = {"refcoco+": "unc", "refclef": "berkeley"}
# Pickles of Python 2 name the same types under __builtin__.
_HARMLESS = {"set": set, "frozenset": frozenset}
# What the unpickler raises on damaged bytes depends on the instruction that they happen to form.
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    MemoryError,
)


class _PlainUnpickler(pickle.Unpickler):
    """Refuses what could run code: containers, strings and numbers need no global at all."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("builtins", "__builtin__") and name in _HARMLESS:
            return _HARMLESS[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def load_refs(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """REFER's `refs(...).p`, written by Python 2 or 3, as plain lists, dicts, strings and numbers.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a pickle, damaged, or a pickle that holds more than plain data (it is not
            executed).
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path} does not exist; refcoco_data is the folder with refcoco+/refs(unc).p"
        )
    try:
        with open(path, "rb") as file:
            refs = _PlainUnpickler(file, encoding="latin1").load()
    except _DAMAGE as error:
        raise ValueError(
            f"{path} is not a pickle of plain data ({error}); fetch REFER's file again"
        ) from error
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise ValueError(f"{path} does not hold a list of references; fetch REFER's file again")
    return refs


def files(
    refer_root: str | os.PathLike[str], name: str, split_by: str | None = None
) -> tuple[Path, Path]:
    """REFER's references and instances of "refcoco+" or "refclef", split as in the papers."""
    folder = Path(refer_root, name)
    return folder / f"refs({split_by or SPLIT_BY[name]}).p", folder / "instances.json"


def read_refcoco_plus(
    test_file: str | os.PathLike[str],
    refer_root: str | os.PathLike[str],
    split_by: str | None = None,
) -> Iterator[Record]:
    """RefCOCO+: one record per entry, with the split ("val", "testA", "testB") of its reference.

    Record id is the image_id (the key of the detections), phrase id the ref_id.

    Raises:
        FileNotFoundError, ValueError: naming file, entry and key.
    """
    yield from _read(test_file, *files(refer_root, "refcoco+", split_by), own_split=False)


def read_refclef(
    test_file: str | os.PathLike[str],
    refer_root: str | os.PathLike[str],
    split_by: str | None = None,
) -> Iterator[Record]:
    """RefCLEF: as `read_refcoco_plus`, with the entry's own split; every "test..." is reported as
    "test"."""
    yield from _read(test_file, *files(refer_root, "refclef", split_by), own_split=True)


def _read(
    test_file: str | os.PathLike[str], refs_file: Path, instances_file: Path, *, own_split: bool
) -> Iterator[Record]:
    refs = {
        int(entries.need(ref, "ref_id", f"{refs_file}[{index}]")): ref
        for index, ref in enumerate(load_refs(refs_file))
    }
    instances = entries.load_json(instances_file)
    annotations = _by_id(instances, "annotations", instances_file)
    images = _by_id(instances, "images", instances_file)
    for source, entry in entries.load_entries(test_file):
        ref_id = int(entries.need(entry, "ref_id", source))
        ref = entries.need(refs, ref_id, f"{source}: {refs_file}")
        split = str(entries.need(entry if own_split else ref, "split", source))
        ann_id = int(entries.need(ref, "ann_id", f"{refs_file} ref {ref_id}"))
        annotation = entries.need(annotations, ann_id, f"{source}: {instances_file} annotations")
        image_id = int(entries.need(ref, "image_id", f"{refs_file} ref {ref_id}"))
        image = entries.need(images, image_id, f"{source}: {instances_file} images")
        box = entries.boxes([annotation["bbox"]], "bbox", f"{instances_file} annotation {ann_id}")
        boxes = tuple(tuple(row) for row in xywh_to_xyxy(box).tolist())
        (text,) = entries.texts(entries.need(entry, "text", source), "text", source)
        yield Record(
            image=str(entries.need(entry, "image", source)),
            width=image.get("width"),
            height=image.get("height"),
            phrases=(Phrase(text=text, phrase_id=str(ref_id), boxes=boxes),),
            split="test" if own_split and split.startswith("test") else split,
            record_id=str(image_id),
            source=source,
        )


def _by_id(instances: Any, kind: str, path: Path) -> dict[int, Mapping[str, Any]]:
    rows = entries.need(instances, kind, os.fspath(path))
    return {int(entries.need(row, "id", f"{path} {kind}")): row for row in rows}

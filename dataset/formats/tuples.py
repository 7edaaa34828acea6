"""Lists of tuples that ReSC, TransVG and RefTR train on: pickled by `torch.save`, one per split.

layout     file                                            tuple
"unc"      annotations_resc/unc/unc_SPLIT.pth              (image, id, box xywh, phrase, attributes)
"unc+"     annotations_resc/unc+/unc+_SPLIT.pth            as "unc"
"gref"     annotations_resc/gref/gref_SPLIT.pth            as "unc" (RefCOCOg, google)
"gref_umd" annotations_resc/gref_umd/gref_umd_SPLIT.pth    as "unc" (RefCOCOg, umd)
"referit"  annotations_resc/referit/referit_SPLIT.pth      (image, id, box xyxy, phrase, attributes)
"flickr"   annotations_resc/flickr/flickr_SPLIT.pth        (image, box xyxy, phrase)
"vg"       annotations_resc/vg/vg_all.pth                  (image, box xywh, phrase)
"res"      refcoco/anns/DATASET/VERSION_SPLIT.pth          (image, mask file .npy, box xyxy, phrase)
"multi"    annotations/flickr/flickr_SPLIT.pth             (image, character offsets, boxes xyxy,
                                                            phrases, ids, sentence)

Nothing but the folder tells xywh from xyxy. RefTR cuts what a list states to integers: corners, or
x, y, w and h each before they are added. Attributes and ids are not used by any of the three; an
id that is a text or a number is kept as the phrase's. Sizes are not stated.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

from groundwork.dataset.formats import entries, image_names, plain_pickle
from groundwork.dataset.record import Phrase, Record
from groundwork.files.foreign import forward_slashes
from groundwork.files.safe import atomic_write, inside
from groundwork.geometry import Box, enclosing_box, xywh_to_xyxy


@dataclass(frozen=True, slots=True)
class Layout:
    """length: of a tuple; xywh: whether boxes are x, y, width, height; collection: of the images'
    identities; image_id: pattern of the file's stem with the identity's number."""

    length: int
    xywh: bool
    collection: str
    image_id: str = r"0*(\d+)"


LAYOUTS = {
    **dict.fromkeys(
        ("unc", "unc+", "gref", "gref_umd"), Layout(5, True, "coco", image_names.COCO_STEM.pattern)
    ),
    "referit": Layout(5, False, "saiapr"),
    "flickr": Layout(3, False, "flickr"),
    "vg": Layout(3, True, "vg"),
    "res": Layout(4, False, "coco", image_names.COCO_STEM.pattern),
    "multi": Layout(6, False, "flickr"),
}


def layout_of(path: str | os.PathLike[str]) -> str:
    """The layout of a file in the published folder tree, by its place there.

    Raises:
        ValueError: the file is in another folder.
    """
    folder = Path(path).absolute().parent
    if folder.name == "flickr" and folder.parent.name == "annotations":
        return "multi"
    if folder.parent.name == "anns" and folder.name in ("refcoco", "refcoco+", "refcocog"):
        return "res"
    if folder.name in LAYOUTS:
        return folder.name
    raise ValueError(
        f"{path}: its folder does not tell whether boxes are xywh or xyxy; pass layout, one of"
        f" {', '.join(LAYOUTS)}"
    )


def read(
    path: str | os.PathLike[str],
    layout: str | None = None,
    split: str | None = None,
    *,
    integers: bool = False,
) -> Iterator[Record]:
    """One record per tuple, in the file's order: of one phrase with one box, or ("multi") of a
    sentence with its phrases and where they start in it.

    Args:
        path: the list.
        layout: a key of `LAYOUTS`; None: by the file's folder (`layout_of`).
        split: None: what follows the last "_" of the file's name.
        integers: cut the four stated numbers of every box towards zero.
    """
    name = _known(layout or layout_of(path))
    rows = plain_pickle.read(path, missing="the list belongs below data/ as its authors packed it")
    if not isinstance(rows, list | tuple):
        raise ValueError(f"{path}: expected a list of tuples, got {type(rows).__name__}")
    split = Path(path).stem.rsplit("_", 1)[-1] if split is None else split
    length = LAYOUTS[name].length
    for index, row in enumerate(rows):
        source = f"{os.fspath(path)}[{index}]"
        if not isinstance(row, list | tuple) or len(row) != length:
            raise ValueError(
                f"{source}: expected {length} fields for layout {name!r}, got {str(row)[:120]}"
            )
        yield _record(row, name, split, source, integers)


def _known(layout: str) -> str:
    if layout not in LAYOUTS:
        raise ValueError(f"layout {layout!r} is unknown; legal are {', '.join(LAYOUTS)}")
    return layout


def _record(row: Any, name: str, split: str, source: str, integers: bool) -> Record:
    layout = LAYOUTS[name]
    sentence = ""
    if name == "multi":
        sentence = _string(row[5], "sentence", source)
        phrases = _phrases(row, sentence, source, integers)
    else:
        box, text = (row[-3], row[-2]) if layout.length == 5 else row[-2:]
        phrases = (
            Phrase(
                text=_string(text, "phrase", source),
                phrase_id=_id(row[1]) if layout.length == 5 else "",
                boxes=(_box(box, layout.xywh, source, integers),),
                masks=(_mask_file(row[1], source),) if name == "res" else (),
            ),
        )
    image = _string(row[0], "image", source)
    stem = PurePath(forward_slashes(image)).stem
    identity = re.fullmatch(layout.image_id, stem)
    return Record(
        image=image,
        width=None,
        height=None,
        phrases=phrases,
        split=split,
        record_id=identity[1] if identity else stem,
        source=source,
        sentence=sentence,
        image_ids=(f"{layout.collection}:{identity[1]}",) if identity else (),
    )


def _phrases(row: Any, sentence: str, source: str, integers: bool) -> tuple[Phrase, ...]:
    starts, boxes, texts, ids = (_items(field, source) for field in row[1:5])
    if not len(starts) == len(boxes) == len(texts) or not texts:
        raise ValueError(
            f"{source}: {len(starts)} offsets, {len(boxes)} boxes and {len(texts)} phrases; they"
            " must be as many, and at least one"
        )
    ids = ids if len(ids) == len(texts) else [None] * len(texts)
    phrases = []
    for start, box, text, phrase_id in zip(starts, boxes, texts, ids, strict=True):
        if not isinstance(start, int | np.integer) or not 0 <= start < len(sentence):
            raise ValueError(f"{source}: offset {start!r} is not in the sentence {sentence!r}")
        phrase = Phrase(
            text=_string(text, "phrase", source),
            phrase_id=_id(phrase_id),
            boxes=(_box(box, False, source, integers),),
            start=int(start),
        )
        phrases.append(phrase)
    return tuple(phrases)


def _items(value: Any, source: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list | tuple | np.ndarray | torch.Tensor):
        raise ValueError(f"{source}: expected a list, got {value!r}")
    return list(value) if isinstance(value, list | tuple) else value.tolist()


def _string(value: Any, key: str, source: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{source}: {key} must be a text, got {value!r}")
    return str(value)


def _id(value: Any) -> str:
    return str(value) if isinstance(value, str | int | np.integer) else ""


def _mask_file(value: Any, source: str) -> str:
    path = inside(_string(value, "mask file", source), f"{source}: mask file")
    if path.suffix != ".npy":
        raise ValueError(f"{source}: mask file {value!r} must be a .npy")
    return str(path)


def _box(value: Any, xywh: bool, source: str, integers: bool) -> Box:
    try:
        numbers = np.asarray(value, dtype=np.float64).tolist()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source}: box {value!r} is not four numbers") from error
    except OverflowError as error:
        raise ValueError(f"{source}: box: {error}") from error
    (stated,) = entries.boxes([numbers], "box", source)
    box = np.trunc(stated) if integers else np.asarray(stated)
    x1, y1, x2, y2 = (xywh_to_xyxy(box) if xywh else box).tolist()
    if x2 < x1 or y2 < y1:
        raise ValueError(
            f"{source}: box {numbers} has no extent as {'xywh' if xywh else 'xyxy'}; is the file of"
            " another layout?"
        )
    return (x1, y1, x2, y2)


def write(
    records: Iterable[Record],
    path: str | os.PathLike[str],
    layout: str,
    *,
    unite_boxes: bool = False,
) -> dict[str, int]:
    """Write one list; `read` gives the same phrases, boxes and masks again.

    Args:
        records: of one split. Every phrase of a record becomes a tuple, but for "multi", where
            every record becomes one.
        path: the file, in a folder that `layout_of` knows or not.
        layout: a key of `LAYOUTS`.
        unite_boxes: write the box around all boxes of a phrase that has several, as ReSC's Flickr
            lists do.

    Returns:
        {"tuples": written, "phrases": in them, "united": phrases of which boxes were united}

    Raises:
        ValueError: naming the record, which lacks what the layout needs: one box, a mask file
            ("res"), a sentence with the phrase's place ("multi").
    """
    counts = Counter(tuples=0, phrases=0, united=0)
    _known(layout)
    rows: list[tuple[Any, ...]] = []
    for record in records:
        here = record.source or record.image
        boxes = []
        for phrase in record.phrases:
            if not phrase.boxes or (len(phrase.boxes) > 1 and not unite_boxes):
                raise ValueError(
                    f"{here}: {phrase.text!r} has {len(phrase.boxes)} boxes; a tuple holds one"
                    " (unite_boxes=True writes the box around several)"
                )
            boxes.append(_written_box(phrase.boxes, LAYOUTS[layout].xywh))
            counts["united"] += len(phrase.boxes) > 1
        if layout == "multi":
            rows.append(_sentence_row(record, boxes, here))
        else:
            rows += [
                _row(record.image, phrase, box, layout, here)
                for phrase, box in zip(record.phrases, boxes, strict=True)
            ]
        counts["phrases"] += len(record.phrases)
    counts["tuples"] = len(rows)
    # Given a path, torch.save would write the name of the partial file into the archive.
    with atomic_write(path) as partial, partial.open("wb") as file:
        torch.save(rows, file)
    return dict(counts)


def _written_box(boxes: tuple[Box, ...], xywh: bool) -> list[float]:
    x1, y1, x2, y2 = enclosing_box(boxes)
    return [x1, y1, _extent(x1, x2), _extent(y1, y2)] if xywh else [x1, y1, x2, y2]


def _extent(low: float, high: float) -> float:
    """`high - low` as the shortest decimal that added to `low` gives `high` again: 3, not the
    2.9999999999999996 of 4.3 - 1.3, which would be cut to 2."""
    exact = high - low
    rounded = (round(exact, digits) for digits in range(17))
    return next((short for short in rounded if low + short == high), exact)


def _row(image: str, phrase: Phrase, box: list[float], layout: str, here: str) -> tuple[Any, ...]:
    length = LAYOUTS[layout].length
    if length == 5:
        return (image, phrase.phrase_id, box, phrase.text, [])
    if length == 3:
        return (image, box, phrase.text)
    if len(phrase.masks) != 1:
        raise ValueError(f"{here}: {phrase.text!r} has {len(phrase.masks)} masks, it needs one")
    return (image, _mask_file(phrase.masks[0], here), box, phrase.text)


def _sentence_row(record: Record, boxes: list[list[float]], here: str) -> tuple[Any, ...]:
    if not record.sentence or any(phrase.start < 0 for phrase in record.phrases):
        raise ValueError(f"{here}: the sentence, or a phrase's place in it, is not known")
    starts = [phrase.start for phrase in record.phrases]
    texts = [phrase.text for phrase in record.phrases]
    ids = [phrase.phrase_id for phrase in record.phrases]
    return (record.image, starts, boxes, texts, ids, record.sentence)

"""Records that cannot be used as annotated: what is said about them, and when they are an error.

A run of hours does not end at such a record: it is used as the published code uses it, and a line
that names it travels with its sample. Where the published code has no rule, it is an error. The
check before a run asks the same functions.
"""

import json
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from groundwork.dataset.images import TURN_REMEDY
from groundwork.dataset.record import Phrase, Record
from groundwork.geometry import Size, area, clip_boxes
from groundwork.geometry.segmentations import degenerate_polygons

NO_WORD, NO_BOX = "phrase without a word", "no box covers a pixel"
OTHER_SIZE = "another size than annotated"
OTHER_REFERENCE = "reference of another image and text"
THIN, FLAT = "polygon of fewer than three corners", "polygon without an area"
NO_PIXEL, CONTRADICTION = "mask without a pixel", "nothing and something meant"
STRICT = "correct or remove it in the annotation file, or go on without --strict"


class Fault(NamedTuple):
    """kind: one of the names above. message: names the record, and how it is used."""

    kind: str
    message: str


def said(faults: Iterable[Fault | None], *, strict: bool) -> list[str]:
    """The messages of those that are there; with `strict` the first is raised as ValueError."""
    found = [fault.message for fault in faults if fault is not None]
    if found and strict:
        raise ValueError(f"{found[0]}; {STRICT}")
    return found


def _about(phrase: Phrase, record: Record, size: Size) -> str:
    height, width = size
    return f"{record.source}: {phrase.text!r} in {record.image} ({width}x{height} pixels)"


def contradiction(phrase: Phrase, record: Record) -> Fault | None:
    """An expression of nothing that has targets besides."""
    if not (phrase.matches_nothing and phrase.boxes):
        return None
    return Fault(
        CONTRADICTION,
        f"{record.source}: {phrase.text!r} has targets beside one of -1: training takes those, an"
        " evaluation expects nothing",
    )


def mask_fault(phrase: Phrase, record: Record) -> Fault | None:
    """A mask that has polygons without three corners, or on one line, beside others."""
    texts = (text for text in phrase.masks if not text.endswith(".npy"))
    found = [degenerate_polygons(json.loads(text)) for text in texts]
    thin, flat = sum(one.thin for one in found), sum(one.flat for one in found)
    about = f"{record.source}: {phrase.text!r} has"
    if thin:
        return Fault(THIN, f"{about} {thin} polygons of fewer than three corners")
    if flat:
        return Fault(FLAT, f"{about} {flat} polygons whose corners lie on one line")
    return None


def pixel_fault(phrase: Phrase, record: Record, masks: Iterable[np.ndarray | None]) -> Fault | None:
    """Of the masks (H, W) of a phrase, or their union, one without a pixel: it counts, and no
    prediction but an empty one fits it."""
    if phrase.matches_nothing or all(mask is None or mask.any() for mask in masks):
        return None
    return Fault(
        NO_PIXEL,
        f"{record.source}: a mask of {phrase.text!r} has no pixel in {record.image}; is it drawn in"
        " another image?",
    )


def require_ordered(phrase: Phrase, record: Record, size: Size) -> None:
    """Raises ValueError for a corner that is not a number, or corners that are exchanged."""
    boxes = np.asarray(phrase.boxes, dtype=np.float64).reshape(-1, 4)
    if not (np.isfinite(boxes).all() and (boxes[:, :2] <= boxes[:, 2:]).all()):
        raise ValueError(
            f"{_about(phrase, record, size)}: {boxes.tolist()}: a corner is no number, or corners"
            " are exchanged; boxes are x1, y1, x2, y2 in pixels, correct or remove them"
        )


def box_fault(phrase: Phrase, record: Record, size: Size) -> Fault | None:
    """A phrase none of whose boxes has an area within its image of (H, W): it counts, and every
    prediction misses it."""
    boxes = np.asarray(phrase.boxes, dtype=np.float64).reshape(-1, 4)
    height, width = size
    if (area(clip_boxes(boxes, (height, width))) > 0).any():
        return None
    turned = (area(clip_boxes(boxes, (width, height))) > 0).any()
    return Fault(
        NO_BOX,
        f"{_about(phrase, record, size)}: {boxes.tolist()} has no area in the image, so that"
        f" nothing can hit it{TURN_REMEDY if turned else ''}",
    )

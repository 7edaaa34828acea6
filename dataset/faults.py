"""Records that cannot be used as annotated: what is said about them, and when they are an error.

A run of hours does not end at such a record: it is used as the published code uses it, and a line
that names it travels with its sample. Where the published code has no rule, it is an error.
"""

from __future__ import annotations

import numpy as np

from dataset.record import Phrase, Record
from geometry import thin_polygons

STRICT = "correct or remove it in the annotation file, or go on without --strict"


def said(message: str, *, strict: bool) -> str:
    """The message; raises it as ValueError where nothing is to be put up with."""
    if strict:
        raise ValueError(f"{message}; {STRICT}")
    return message


def contradiction(phrase: Phrase, record: Record) -> str | None:
    """What is wrong with an expression of nothing that has targets besides."""
    if not (phrase.matches_nothing and phrase.boxes):
        return None
    return (
        f"{record.source}: {phrase.text!r} has targets beside one of -1: training takes those, an"
        " evaluation expects nothing"
    )


def mask_fault(phrase: Phrase, record: Record) -> str | None:
    """What is wrong with a mask that has polygons without three corners beside others."""
    thin = sum(map(thin_polygons, phrase.masks))
    if not thin:
        return None
    return f"{record.source}: {phrase.text!r} has {thin} polygons of fewer than three corners"


def box_fault(phrase: Phrase, record: Record, size: tuple[int, int]) -> str | None:
    """What is wrong with a phrase none of whose boxes has an area within its picture of (H, W).

    Such a phrase counts: every prediction misses it.

    Raises:
        ValueError: a corner that is not a number, or corners that are exchanged.
    """
    boxes = np.asarray(phrase.boxes, dtype=np.float64).reshape(-1, 4)
    height, width = size
    about = f"{record.source}: {phrase.text!r} in {record.image} ({width}x{height} pixels)"
    if not (np.isfinite(boxes).all() and (boxes[:, :2] <= boxes[:, 2:]).all()):
        raise ValueError(
            f"{about}: {boxes.tolist()}: a corner is no number, or corners are exchanged; boxes are"
            " x1, y1, x2, y2 in pixels, correct or remove them"
        )
    inside = np.clip(boxes, 0, [width, height, width, height])
    if (inside[:, :2] < inside[:, 2:]).all(axis=1).any():
        return None
    return f"{about}: {boxes.tolist()} has no area in the picture, so that nothing can hit it"

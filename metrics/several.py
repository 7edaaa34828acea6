"""Metrics of expressions of any number of targets, or none (gRefCOCO), as pure functions.

Of every expression by itself; means over a data set are taken in `intervals`. Boxes are xyxy float
pixels.
"""

import numpy as np
from numpy.typing import ArrayLike

from groundwork import geometry

REACHED = 0.5
"""GIoU at which a box counts as found."""


def matched_boxes(boxes: ArrayLike, truths: ArrayLike, threshold: float = REACHED) -> int:
    """How many of (m, 4) true boxes are found by (n, 4) predicted ones, each by another.

    The pair of the highest generalised IoU is taken first, as in gRefCOCO's script, as long as it
    reaches the threshold; of equal pairs the first.
    """
    closeness, found = geometry.giou(boxes, truths), 0
    while closeness.size and closeness.max() >= threshold:
        row, column = np.unravel_index(closeness.argmax(), closeness.shape)
        closeness[row], closeness[:, column] = -np.inf, -np.inf
        found += 1
    return found


def f1_score(boxes: ArrayLike, truths: ArrayLike, threshold: float = REACHED) -> float:
    """2 TP / (2 TP + FP + FN) of one expression; 1 where nothing is meant and nothing was found."""
    count = len(geometry.as_boxes(boxes)) + len(geometry.as_boxes(truths))
    return 2 * matched_boxes(boxes, truths, threshold) / count if count else 1.0


def all_found(boxes: ArrayLike, truths: ArrayLike, threshold: float = REACHED) -> bool:
    """gRefCOCO's "F1 score" is the share of expressions whose F1 is exactly 1: every target found
    and nothing else."""
    return f1_score(boxes, truths, threshold) == 1

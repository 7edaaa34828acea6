"""Masks that tests draw."""

import numpy as np

from groundwork.geometry import integer_corners


def boxes_to_mask(boxes, size):
    """(H, W) bool, True where any of the (n, 4) xyxy boxes of whole pixels is."""
    mask = np.zeros(size, dtype=bool)
    for x1, y1, x2, y2 in integer_corners(boxes, size):
        mask[y1:y2, x1:x2] = True
    return mask

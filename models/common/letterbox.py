"""An image in the middle of a square, as RefCLIP and SimREC see it: where its boxes lie."""

from __future__ import annotations

import numpy as np


def to_image(
    boxes: np.ndarray, size: tuple[int, int], resized: tuple[int, int], offset: tuple[int, int]
) -> np.ndarray:
    """Boxes on the letterboxed square -> in the original image; both axes by their own factor.

    Args:
        boxes: (..., 4) xyxy. size: (H, W) of the image. resized: (h, w) it has on the square.
        offset: (x, y) of its upper left corner there.
    """
    corner = np.array([*offset, *offset], dtype=np.float64)
    small = np.array([resized[1], resized[0]] * 2, dtype=np.float64)
    return (boxes - corner) / small * np.array([size[1], size[0]] * 2, dtype=np.float64)

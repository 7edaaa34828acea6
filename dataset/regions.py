"""The region of a phrase as AMC sees it: boxes cut to the image, drawn and resized."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch.nn import functional

from groundwork.geometry import Box, Size


def pixel_corners(boxes: Sequence[Box], size: Size) -> np.ndarray:
    """The (n, 4) integer xyxy corners between which boxes are drawn, by the released rule.

    The first corner is cut to the image's pixels, the second to their ends, then both to
    integers. So a box beside the image becomes a row or column of one pixel at its edge, while
    one with x1 >= x2 or y1 >= y2 afterwards covers nothing.

    Args:
        boxes: xyxy pixels of the original image. size: its (height, width).
    """
    height, width = size
    array = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    limits = np.array([width, height])
    first = np.clip(array[:, :2], 0, limits - 1)
    second = np.clip(array[:, 2:], 1, limits)
    return np.concatenate([first, second], axis=1).astype(np.int64)


def covers_a_pixel(boxes: Sequence[Box], size: Size) -> np.ndarray:
    """Which of the boxes have a pixel between their `pixel_corners`, (n,) bool."""
    corners = pixel_corners(boxes, size)
    return np.all(corners[:, :2] < corners[:, 2:], axis=1)


def region_mask(boxes: Sequence[Box], size: Size, side: int, mask_size: int) -> torch.Tensor:
    """What AMC compares a map with: (mask_size, mask_size) float32 in [0, 1], 1 inside any box.

    The released rule draws ones in the original image, resizes them by nearest neighbour to
    `side`, the network input, then bilinearly with aligned corners to `mask_size`. Boxes that cover
    no pixel add nothing, so the mask may be empty.

    Args:
        boxes: xyxy pixels of the original image. size: its (height, width).
    """
    mask = np.zeros((side, side), dtype=np.float32)
    for x1, y1, x2, y2 in pixel_corners(boxes, size):
        # Resizing by nearest neighbour treats the axes alone, and a box is the product of two.
        mask[np.ix_(_taken(y1, y2, size[0], side), _taken(x1, x2, size[1], side))] = 1
    return functional.interpolate(
        torch.from_numpy(mask)[None, None], size=mask_size, mode="bilinear", align_corners=True
    )[0, 0]


def _taken(start: int, stop: int, length: int, side: int) -> np.ndarray:
    """Which of `side` places take their value from [start, stop) of `length`, (side,) bool."""
    profile = np.zeros((1, length), dtype=np.uint8)
    profile[0, start:stop] = 1
    return cv2.resize(profile, (side, 1), interpolation=cv2.INTER_NEAREST)[0].astype(bool)

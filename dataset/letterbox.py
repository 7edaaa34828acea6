"""An image in the middle of a square of grey, as RefCLIP and SimREC see it.

Side S of the square; the image's longer side becomes S, its aspect stays.
"""

from typing import NamedTuple

import cv2
import numpy as np

GREY = 127


class Letterbox(NamedTuple):
    """Where the image lies: its size (h, w) on the square, its upper left corner (dx, dy)."""

    size: tuple[int, int]
    offset: tuple[int, int]


def letterbox_of(size: tuple[int, int], side: int) -> Letterbox:
    """Where an image of (H, W) lies on a square of `side` pixels.

    The shorter side is computed with one division and cut, as published, so that it is one pixel
    short for a few sizes (52 x 15 at 416: 119 instead of 120); at least 1.
    """
    ratio = size[1] / size[0]
    height, width = (side, int(side * ratio)) if ratio < 1 else (int(side / ratio), side)
    height, width = max(height, 1), max(width, 1)
    return Letterbox((height, width), ((side - width) // 2, (side - height) // 2))


def letterbox(image: np.ndarray, side: int) -> tuple[np.ndarray, Letterbox]:
    """(H, W, 3) uint8 -> (side, side, 3) uint8 and where the image lies on it.

    OpenCV's bilinear resize, which does not smooth before it shrinks, as published.
    """
    place = letterbox_of(image.shape[:2], side)
    return lay(image, place, side), place


def lay(image: np.ndarray, place: Letterbox, side: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (side, side, 3) uint8 with the image at `place`, grey around it."""
    (height, width), (left, top) = place
    canvas = np.full((side, side, 3), GREY, dtype=np.uint8)
    canvas[top : top + height, left : left + width] = cv2.resize(image, (width, height))
    return canvas

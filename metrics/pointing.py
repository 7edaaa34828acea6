"""The pointing game, its chance levels, and how alike two points or two heat maps are."""

import numpy as np
from numpy.typing import ArrayLike

from groundwork import geometry
from groundwork.geometry import Point, Size


def pointing_any(point: Point, boxes: ArrayLike) -> bool:
    """The pointing game: is the point strictly inside any of the (n, 4) boxes of the phrase?

    x1 < x < x2 and y1 < y < y2; the edge is a miss, as is a phrase without boxes.
    """
    return bool(geometry.points_in_boxes(point, boxes).any())


def centre_hit(size: Size, boxes: ArrayLike) -> bool:
    """Would the centre of the image have been a hit (in any of the boxes)?"""
    height, width = size
    return pointing_any((width / 2, height / 2), boxes)


def random_hit_probability(size: Size, boxes: ArrayLike) -> float:
    """Exact probability that a uniformly drawn point of the image lies in any of the boxes."""
    height, width = size
    clipped = geometry.clip_boxes(geometry.as_boxes(boxes), size)
    return geometry.union_area(clipped) / (height * width)


def same_object(first: Point, second: Point, objects: ArrayLike) -> bool:
    """Do two points lie strictly inside one and the same of the (n, 4) object boxes?

    Two points on the background share no object.
    """
    both = geometry.points_in_boxes(first, objects) & geometry.points_in_boxes(second, objects)
    return bool(both.any())


def map_correlation(maps_a: np.ndarray, maps_b: np.ndarray) -> np.ndarray:
    """Pearson correlation of two heat maps, sample by sample: (n, h, w) twice -> (n,).

    A constant map has no correlation: two constant maps explain alike (1), a constant one
    and another do not (0).

    Raises:
        ValueError: shapes differ or are not (n, h, w).
    """
    if maps_a.shape != maps_b.shape or maps_a.ndim != 3:
        raise ValueError(f"maps must both be (n, h, w), got {maps_a.shape} and {maps_b.shape}")
    first, second = _centred(maps_a), _centred(maps_b)
    norms = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
    constant = (norms[0] == 0) | (norms[1] == 0)
    both = (norms[0] == 0) & (norms[1] == 0)
    product = (first * second).sum(axis=1) / np.where(constant, 1, norms[0] * norms[1])
    return np.where(both, 1.0, np.where(constant, 0.0, np.clip(product, -1, 1)))


def _centred(maps: np.ndarray) -> np.ndarray:
    flat = maps.reshape(len(maps), maps.shape[1] * maps.shape[2]).astype(np.float64)
    if not flat.shape[1]:
        return flat  # without a cell it is constant
    # Scaled first: squares of Grad-CAM values can underflow. A map that is constant stays exactly
    # so only if no mean is subtracted from it, as the mean itself is rounded.
    largest = np.abs(flat).max(axis=1, keepdims=True)
    flat = flat / np.where(largest > 0, largest, 1)
    varies = np.ptp(flat, axis=1, keepdims=True) > 0
    return np.where(varies, flat - flat.mean(axis=1, keepdims=True), 0.0)

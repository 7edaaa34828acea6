"""How a heat map fits to the boxes of its phrase, beyond the one point that it is highest at.

Maps are (H, W) finite, at the size of their image, values below 0 count as 0; boxes (n, 4) xyxy
pixels. A pixel is in a box if its centre is.
"""

import numpy as np
from numpy.typing import ArrayLike

from groundwork import geometry


def inside_boxes(boxes: ArrayLike, size: geometry.Size) -> np.ndarray:
    """(H, W) bool: the pixels whose centre is in any of the boxes."""
    height, width = size
    inside = np.zeros(size, dtype=bool)
    for x1, y1, x2, y2 in geometry.as_boxes(boxes):
        rows = (y1 <= np.arange(height) + 0.5) & (np.arange(height) + 0.5 < y2)
        columns = (x1 <= np.arange(width) + 0.5) & (np.arange(width) + 0.5 < x2)
        inside |= rows[:, None] & columns
    return inside


def energy_inside(heatmap: np.ndarray, boxes: ArrayLike) -> float:
    """Share of the map's sum that lies in the boxes (the energy-based pointing game, Wang et al.,
    *Score-CAM*, 2020); 0 for a map without any."""
    heat = _heat(heatmap)
    total = heat.sum()
    return float(heat[inside_boxes(boxes, heat.shape)].sum() / total) if total > 0 else 0.0


def map_iou(heatmap: np.ndarray, boxes: ArrayLike, fraction: float = 0.5) -> float:
    """IoU of the boxes with where the map reaches `fraction` of its maximum; 0 for an empty map."""
    heat = _heat(heatmap)
    if heat.max(initial=0) <= 0:
        return 0.0
    found, truth = heat >= fraction * heat.max(), inside_boxes(boxes, heat.shape)
    return float((found & truth).sum() / (found | truth).sum())


def best_map_iou(heatmap: np.ndarray, boxes: ArrayLike) -> float:
    """`map_iou` at the threshold that is best for this map and these boxes, which nobody knows
    beforehand: how well a region of the map could fit."""
    heat, truth = _heat(heatmap).ravel(), inside_boxes(boxes, heatmap.shape).ravel()
    if heat.max(initial=0) <= 0:
        return 0.0
    order = np.argsort(-heat, kind="stable")
    found = np.cumsum(truth[order])
    count = np.arange(1, len(heat) + 1)
    # Thresholds are values of the map: pixels that share one are found together.
    ends = np.append(np.diff(heat[order]) != 0, True) & (heat[order] > 0)
    overlaps = found[ends] / (count[ends] + truth.sum() - found[ends])
    return float(overlaps.max())


def expected_hit(heatmap: np.ndarray, boxes: ArrayLike, size: geometry.Size) -> float:
    """The pointing game with a point drawn from all maxima of a map on its own grid: the share of
    these cells whose centre is strictly inside any box.

    A flat map hits as often as a random cell, while the first of its maxima hits or misses by luck.

    Args:
        size: (H, W) of the image, which the grid of `heatmap` (h, w) covers.
    """
    cells = np.argwhere(heatmap == heatmap.max())
    centres = (cells + 0.5) * np.array(size) / heatmap.shape
    array = geometry.as_boxes(boxes)[:, :, None]
    y, x = centres.T
    inside = (array[:, 0] < x) & (x < array[:, 2]) & (array[:, 1] < y) & (y < array[:, 3])
    return float(inside.any(axis=0).mean())


def shared_maximum(heatmap: np.ndarray) -> bool:
    """Has a map, on its own grid, its maximum in more than one cell?"""
    return int((heatmap == heatmap.max()).sum()) > 1


def area_under(curves: ArrayLike) -> np.ndarray:
    """(n, steps + 1) values at equal distances -> (n,) the mean under each, by trapezoids."""
    array = np.asarray(curves, dtype=np.float64)
    return ((array[:, 1:] + array[:, :-1]) / 2).mean(axis=1)


def _heat(heatmap: np.ndarray) -> np.ndarray:
    if heatmap.ndim != 2 or not np.isfinite(heatmap).all():
        raise ValueError(f"a heat map is (H, W) and finite, got shape {heatmap.shape}")
    return np.clip(heatmap.astype(np.float64), 0, None)

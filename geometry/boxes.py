"""Boxes and points; the package says by which conventions."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

Box = tuple[float, float, float, float]
Point = tuple[float, float]
Size = tuple[int, int]


def as_boxes(boxes: ArrayLike) -> np.ndarray:
    """Boxes as a checked (n, 4) float64 array; one box or none is accepted.

    Raises:
        ValueError: not four numbers each, not finite, or x2 < x1 or y2 < y1 (which is what
            xywh boxes taken for xyxy usually look like).
    """
    array = np.asarray(boxes, dtype=np.float64)
    array = array.reshape(0, 4) if array.size == 0 else np.atleast_2d(array)
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"boxes must be (n, 4), got shape {array.shape}")
    wrong = ~np.isfinite(array).all(axis=1) | (array[:, 2:] < array[:, :2]).any(axis=1)
    if wrong.any():
        first = array[wrong][0].tolist()
        raise ValueError(f"not an xyxy box: {first}; xywh boxes go through xywh_to_xyxy first")
    return array


def xywh_to_xyxy(boxes: ArrayLike) -> np.ndarray:
    """(..., 4) corner, width and height -> (..., 4) two corners, in the same unit."""
    array = np.asarray(boxes, dtype=np.float64)
    return np.concatenate([array[..., :2], array[..., :2] + array[..., 2:]], axis=-1)


def xyxy_to_xywh(boxes: ArrayLike) -> np.ndarray:
    """(..., 4) two corners -> (..., 4) corner, width and height, in the same unit."""
    array = np.asarray(boxes, dtype=np.float64)
    return np.concatenate([array[..., :2], array[..., 2:] - array[..., :2]], axis=-1)


def xyxy_to_cxcywh01(boxes: ArrayLike, size: Size) -> np.ndarray:
    """(..., 4) xyxy pixels -> centre, width and height as fractions of the image's size."""
    array = np.asarray(boxes, dtype=np.float64)
    low, high = array[..., :2], array[..., 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=-1) / _scale(size)


def cxcywh01_to_xyxy(boxes: ArrayLike, size: Size) -> np.ndarray:
    """(..., 4) centre, width and height as fractions -> xyxy pixels of an image of this size."""
    array = np.asarray(boxes, dtype=np.float64) * _scale(size)
    centre, half = array[..., :2], array[..., 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def scale_boxes(boxes: ArrayLike, old: Size, new: Size) -> np.ndarray:
    """(..., 4) xyxy boxes of an image of size `old` after it was resized to `new`."""
    return np.asarray(boxes, dtype=np.float64) * (_scale(new) / _scale(old))


def flip_boxes(boxes: ArrayLike, width: float) -> np.ndarray:
    """(..., 4) xyxy boxes after the image was mirrored left to right."""
    array = np.asarray(boxes, dtype=np.float64)
    return np.stack(
        [width - array[..., 2], array[..., 1], width - array[..., 0], array[..., 3]], axis=-1
    )


def clip_boxes(boxes: ArrayLike, size: Size) -> np.ndarray:
    """(..., 4) xyxy boxes cut to the image; a box outside becomes one without area."""
    array = np.asarray(boxes, dtype=np.float64)
    return np.clip(array, 0, _scale(size))


def area(boxes: ArrayLike) -> np.ndarray:
    """(..., 4) xyxy boxes -> (...) areas in square pixels; 0 where a side is not positive."""
    array = np.asarray(boxes, dtype=np.float64)
    return np.clip(array[..., 2:] - array[..., :2], 0, None).prod(axis=-1)


def iou(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Intersection over union of every pair: (n, 4) and (m, 4) xyxy -> (n, m).

    A pair of which neither box has any area has IoU 0.
    """
    one, two = as_boxes(first), as_boxes(second)
    low = np.maximum(one[:, None, :2], two[None, :, :2])
    high = np.minimum(one[:, None, 2:], two[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(axis=-1)
    union = area(one)[:, None] + area(two)[None, :] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def giou(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Generalised IoU of every pair: (n, 4) and (m, 4) xyxy -> (n, m), in [-1, 1].

    IoU minus the share of the box around both that neither covers.
    """
    one, two = as_boxes(first)[:, None], as_boxes(second)[None]
    around = np.maximum(one[..., 2:], two[..., 2:]) - np.minimum(one[..., :2], two[..., :2])
    enclosing, overlaps = around.prod(axis=-1), iou(first, second)
    # I + U is the sum of both areas and I / U the IoU, hence the union.
    union = (area(one) + area(two)) / (1 + overlaps)
    empty = np.divide(enclosing - union, enclosing, out=np.zeros_like(union), where=enclosing > 0)
    return overlaps - empty


def points_in_boxes(point: Point, boxes: ArrayLike) -> np.ndarray:
    """(n,) bool: which of the (n, 4) boxes have the point strictly inside, not on the edge."""
    array, where = as_boxes(boxes), np.asarray(point, dtype=np.float64)
    return np.all((array[:, :2] < where) & (where < array[:, 2:]), axis=1)


def union_area(boxes: ArrayLike) -> float:
    """Area in square pixels that (n, 4) xyxy boxes cover together, overlaps counted once."""
    array = as_boxes(boxes)
    xs, ys = np.unique(array[:, [0, 2]]), np.unique(array[:, [1, 3]])
    if len(xs) < 2 or len(ys) < 2:
        return 0.0
    # The boxes' edges cut the plane into cells; a cell lies in a box wholly or not at all.
    across = (array[:, :1] <= xs[:-1]) & (xs[1:] <= array[:, 2:3])
    down = (array[:, 1:2] <= ys[:-1]) & (ys[1:] <= array[:, 3:])
    covered = (down[:, :, None] & across[:, None, :]).any(axis=0)
    return float((np.diff(ys)[:, None] * np.diff(xs)[None, :] * covered).sum())


def enclosing_box(boxes: ArrayLike) -> Box:
    """The smallest xyxy box around (n, 4) xyxy boxes, n at least 1."""
    array = as_boxes(boxes)
    (x1, y1), (x2, y2) = array[:, :2].min(axis=0), array[:, 2:].max(axis=0)
    return (float(x1), float(y1), float(x2), float(y2))


def box_to_point(box: ArrayLike) -> Point:
    """The centre of an xyxy box; not rounded, so that it is inside however small the box is."""
    x1, y1, x2, y2 = as_boxes(box)[0]
    return (float(x1 + x2) / 2, float(y1 + y2) / 2)


def integer_corners(boxes: ArrayLike, size: Size) -> np.ndarray:
    """(n, 4) int64: corners cut to integers towards zero (the released rule), then clipped."""
    height, width = size
    corners = as_boxes(boxes).astype(np.int64)
    return np.clip(corners, 0, [width, height, width, height])


def _scale(size: Sequence[int]) -> np.ndarray:
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"size must be a positive (height, width), got {tuple(size)}")
    return np.array([width, height, width, height], dtype=np.float64)

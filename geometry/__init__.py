"""Boxes, points and masks: the one place that knows the conventions.

Conventions, valid everywhere outside `models/`:
  box    (x1, y1, x2, y2) float pixels of the original image, continuous coordinates: pixel i
         covers [i, i + 1), so a box that covers the first pixel only is (0, 0, 1, 1)
  point  (x, y) in pixels; a point that was read off a map is the integer index of a pixel
  size   (height, width) in pixels; x runs to the right, y down
  mask   (H, W) bool; True inside
Annotation files mostly hold (x, y, width, height), models mostly (centre x, centre y, width,
height) in [0, 1]; both are converted here and nowhere else.

What a system does not give itself is derived here too: a point from a box, a box or a mask from
a heat map, a box from a mask, a mask from boxes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike
from pycocotools import mask as coco_mask

from groundwork import utils
from groundwork.files.foreign import forward_slashes
from groundwork.geometry.segmentations import encode_segmentation

Box = tuple[float, float, float, float]
Point = tuple[float, float]
Size = tuple[int, int]
Resampling = Literal["torchvision", "opencv"]
"""Whose rules bring images and masks to another size."""


@dataclass(frozen=True, eq=False)
class Grounding:
    """Where a phrase is in an image, as far as a system can tell.

    phrase: the words; point: (x, y); boxes: (n, 4) xyxy, best first; scores: (n,) of the boxes;
    mask: (H, W) bool or None; heatmap: (h, w) float32 on the system's own grid or None;
    size: (H, W) of the original image; derived: which of "point", "box", "mask" the system did
    not give itself; resized_mask: (h, w) bool, the mask of the image as the network saw it
    (without padding), for the metrics that are defined there, or None; candidates: boxes (n, 4)
    xyxy that it chose from, by the name of the set; confidence: named numbers that say how sure the
    choice is, the higher the surer; attention: (h, w) float32, where a decoder looked for the best
    box, beside `heatmap`, or None.
    """

    phrase: str
    point: Point
    boxes: np.ndarray
    scores: np.ndarray
    mask: np.ndarray | None
    heatmap: np.ndarray | None
    size: Size
    derived: frozenset[str] = field(default_factory=frozenset)
    resized_mask: np.ndarray | None = None
    candidates: dict[str, np.ndarray] = field(default_factory=dict)
    confidence: dict[str, float] = field(default_factory=dict)
    attention: np.ndarray | None = None

    def __post_init__(self) -> None:
        if len(self.boxes) != len(self.scores):
            raise ValueError(
                f"{len(self.boxes)} boxes but {len(self.scores)} scores for {self.phrase!r}"
            )
        if self.mask is not None and self.mask.shape != tuple(self.size):
            raise ValueError(
                f"mask of {self.mask.shape} for an image of {tuple(self.size)}: {self.phrase!r}"
            )
        unknown = self.derived - {"point", "box", "mask"}
        if unknown:
            raise ValueError(f'derived may hold "point", "box", "mask", not {sorted(unknown)}')


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


def box_to_mask(box: ArrayLike, size: Size) -> np.ndarray:
    """(H, W) bool, True in [y1:y2, x1:x2] with corners cut to integers, clipped to the image."""
    return boxes_to_mask(as_boxes(box)[:1], size)


def boxes_to_mask(boxes: ArrayLike, size: Size) -> np.ndarray:
    """(H, W) bool, True where any of the (n, 4) xyxy boxes is; all False without boxes."""
    mask = np.zeros(size, dtype=bool)
    for x1, y1, x2, y2 in integer_corners(boxes, size):
        mask[y1:y2, x1:x2] = True
    return mask


def integer_corners(boxes: ArrayLike, size: Size) -> np.ndarray:
    """(n, 4) int64: corners cut to integers towards zero (the released rule), then clipped."""
    height, width = size
    corners = as_boxes(boxes).astype(np.int64)
    return np.clip(corners, 0, [width, height, width, height])


def mask_to_box(mask: np.ndarray) -> Box | None:
    """The smallest xyxy box around the True pixels of an (H, W) mask; None if there are none."""
    if mask.ndim != 2:
        raise ValueError(f"a mask is (H, W), got shape {mask.shape}")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def heatmap_to_mask(heatmap: np.ndarray, fraction: float = 0.5) -> np.ndarray:
    """A mask from a heat map: where it reaches `fraction` of its maximum, largest blob only.

    Args:
        heatmap: (H, W) finite values, already enlarged to the image; values below 0 count as 0.
        fraction: of the maximum, in (0, 1].

    Returns:
        (H, W) bool, one 8-connected component (the first in row-major order of the largest);
        all False for a map without a positive value.
    """
    if heatmap.ndim != 2 or not np.isfinite(heatmap).all():
        raise ValueError(f"a heat map is (H, W) and finite, got shape {heatmap.shape}")
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction}")
    peak = heatmap.max(initial=0)
    if peak <= 0:
        return np.zeros(heatmap.shape, dtype=bool)
    above = (heatmap >= fraction * peak).astype(np.uint8)
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    largest = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
    return labels == largest


def heatmap_to_box(heatmap: np.ndarray, fraction: float = 0.5) -> Box | None:
    """The box around `heatmap_to_mask`; None for a map without a positive value."""
    return mask_to_box(heatmap_to_mask(heatmap, fraction))


def resize_mask(mask: np.ndarray, size: Size, resampling: Resampling = "torchvision") -> np.ndarray:
    """(H, W) bool -> `size` bool by the nearest pixel.

    Args:
        resampling: whose rounding: torch's `interpolate` computes the pixel in single precision,
            OpenCV's `resize` in double precision.
    """
    rows, columns = (
        _nearest(old, new, resampling) for old, new in zip(mask.shape, size, strict=True)
    )
    return mask[rows[:, None], columns]


def _nearest(old: int, new: int, resampling: Resampling) -> np.ndarray:
    """(new,) indices into `old` pixels."""
    if resampling == "opencv":
        places = np.arange(new) * (1 / (new / old))
    else:
        places = np.arange(new, dtype=np.float32) * np.float32(old / new)
    return np.minimum(places, old - 1).astype(int)


def _scale(size: Sequence[int]) -> np.ndarray:
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"size must be a positive (height, width), got {tuple(size)}")
    return np.array([width, height, width, height], dtype=np.float64)


def decode_mask(text: str, size: Size, root: str | os.PathLike[str] | None = None) -> np.ndarray:
    """The (H, W) bool mask of a record's `Phrase.masks` entry.

    Args:
        text: JSON of a COCO segmentation (`segmentations.encode_segmentation`), or the path of a
            `.npy` array of shape `size`, non-zero inside.
        size: of the original image.
        root: folder that `.npy` paths are relative to.

    Raises:
        FileNotFoundError: the `.npy` file does not exist.
        ValueError: no segmentation, a file outside `root`, or a mask of another size than the
            image.
    """
    if text.endswith(".npy"):
        path = Path(root or ".", utils.inside(forward_slashes(text), "mask"))
        if not path.is_file():
            raise FileNotFoundError(f"mask {path} does not exist; check the root of the masks")
        try:
            array = np.load(path, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"mask {path} is no array of numpy ({error})") from error
        if array.shape != size:
            raise ValueError(f"mask {path} has shape {array.shape}, its image (H, W) = {size}")
        return array != 0
    runs = encode_segmentation(json.loads(text), size)
    if tuple(runs["size"]) != size:
        raise ValueError(f"mask of size {runs['size']} (H, W) for an image of {size}")
    return coco_mask.decode(runs).astype(bool)


def mask_to_runs(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run lengths of an (H, W) mask, {size: [H, W], counts: str} as JSON."""
    runs = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(runs["size"]), "counts": runs["counts"].decode()}


def runs_to_mask(counts: str, size: Size) -> np.ndarray:
    """The (H, W) bool mask of the `counts` that `mask_to_runs` gave."""
    return coco_mask.decode({"size": list(size), "counts": counts.encode()}).astype(bool)

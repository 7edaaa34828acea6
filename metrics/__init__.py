"""The papers' metrics as pure functions of predictions and truth.

No model, no device, no file, no printing. Boxes are xyxy float pixels, points (x, y), sizes
(height, width); see geometry.py. Values are fractions in [0, 1] (correlations in [-1, 1]) until
`result_row` turns them into percent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from groundwork import geometry
from groundwork.geometry import Box, Point, Size

ROW_KEYS = (
    "system", "objective", "checkpoint", "benchmark", "split", "metric",
    "value", "low", "high", "n", "derived", "note",
)  # fmt: skip


def pointing_any(point: Point, boxes: ArrayLike) -> bool:
    """The pointing game: is the point strictly inside any of the (n, 4) boxes of the phrase?

    x1 < x < x2 and y1 < y < y2; the edge is a miss, as is a phrase without boxes.
    """
    return bool(geometry.points_in_boxes(point, boxes).any())


def best_proposal(heatmap: np.ndarray, proposals: ArrayLike) -> tuple[int, Box | None]:
    """The proposal in which the heat map is densest.

    The score of a proposal is the sum of the map inside its integer-truncated corners over the
    square root of its area (spec: the released RefCOCO+ evaluation). The best positive score
    wins, the first of equal ones.

    Args:
        heatmap: (H, W), already enlarged to the image.
        proposals: (n, 4) xyxy; parts outside the image count as area without heat.

    Returns:
        (index, box), or (-1, None) when no proposal scores above 0, which counts as a miss; the
        released code keeps the previous sample's box instead.
    """
    boxes = geometry.as_boxes(proposals)
    corners = geometry.integer_corners(boxes, heatmap.shape)
    # Summed box by box: an integral image is no faster at this number of proposals, and its
    # rounding gives boxes without any heat scores just above 0.
    sums = [heatmap[y1:y2, x1:x2].sum(dtype=np.float64) for x1, y1, x2, y2 in corners]
    areas = geometry.area(boxes)
    scores = np.divide(sums, np.sqrt(areas), out=np.zeros(len(boxes)), where=areas > 0)
    if not (scores > 0).any():
        return -1, None
    index = int(scores.argmax())
    return index, tuple(boxes[index].tolist())


def proposal_iou(proposal: ArrayLike, truth: ArrayLike) -> float:
    """IoU as the REFER evaluation takes it: intersection over pixels, areas over lengths.

    The last pixel of a box is x1 + w - 1; the intersection counts first to last pixel inclusively
    (+1) and is empty unless the last lies beyond the first. Therefore it is the ordinary IoU
    except where boxes overlap by one pixel or less.
    """
    one, two = geometry.as_boxes(proposal)[0], geometry.as_boxes(truth)[0]
    first, last = np.maximum(one[:2], two[:2]), np.minimum(one[2:] - 1, two[2:] - 1)
    overlap = float((last - first + 1).prod()) if (last > first).all() else 0.0
    union = float(geometry.area(one) + geometry.area(two)) - overlap
    return overlap / union if union > 0 else 0.0


def proposal_correct(proposal: ArrayLike | None, truth: ArrayLike, threshold: float = 0.5) -> bool:
    """Does the chosen proposal reach the threshold? No proposal is a miss."""
    return proposal is not None and proposal_iou(proposal, truth) >= threshold


def box_iou(box: ArrayLike | None, truths: ArrayLike) -> float:
    """IoU of a box with the best of the (n, 4) true boxes; 0 without a box or without truth."""
    return 0.0 if box is None else float(geometry.iou(box, truths).max(initial=0))


def reaches(overlap: float, threshold: float, *, inclusive: bool = False) -> bool:
    """Does an IoU count? RefTR asks for more than the threshold, ALVG (`inclusive`) for no less."""
    return overlap >= threshold if inclusive else overlap > threshold


def box_correct(
    box: ArrayLike | None, truths: ArrayLike, threshold: float = 0.5, *, inclusive: bool = False
) -> bool:
    """Acc@IoU: does the box reach the threshold with any of the (n, 4) true boxes, as `reaches`
    says?

    No predicted box, or a phrase without true boxes, is a miss.
    """
    return reaches(box_iou(box, truths), threshold, inclusive=inclusive)


def mask_overlap(mask: np.ndarray | None, truth: np.ndarray) -> tuple[int, int]:
    """(intersection, union) in pixels of two (H, W) bool masks; no predicted mask is an empty one.

    Raises:
        ValueError: masks of different sizes.
    """
    if mask is None:
        return 0, int(truth.sum())
    if mask.shape != truth.shape:
        raise ValueError(f"a mask of {mask.shape} cannot be compared with one of {truth.shape}")
    return int((mask & truth).sum()), int((mask | truth).sum())


def mask_iou(overlap: tuple[int, int]) -> float:
    """IoU of an overlap; 1 for two empty masks, which agree (the released code gives NaN)."""
    intersection, union = overlap
    return intersection / union if union else 1.0


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
    # Scaled first: squares of Grad-CAM values can underflow. A map that is constant stays exactly
    # so only if no mean is subtracted from it, as the mean itself is rounded.
    largest = np.abs(flat).max(axis=1, initial=0, keepdims=True)
    flat = flat / np.where(largest > 0, largest, 1)
    varies = np.ptp(flat, axis=1, keepdims=True) > 0 if flat.shape[1] else False
    return np.where(varies, flat - flat.mean(axis=1, keepdims=True), 0.0)


def bootstrap_interval(
    values: ArrayLike,
    *,
    n_boot: int = 2000,
    seed: int = 0,
    groups: Sequence[object] | None = None,
    weights: ArrayLike | None = None,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean.

    Args:
        values: (n,) hits or other numbers, n > 0.
        weights: (n,) not negative, for a weighted mean; None: all alike.
        n_boot: number of resamples.
        seed: of the resampling; the same input and seed give the same interval.
        groups: (n,) the image of each value. Phrases of one image stand or fall together, so
            whole images are drawn with replacement (a clustered bootstrap); without groups every
            value is drawn for itself, which makes intervals too narrow.

    Returns:
        (low, high). Both equal the mean when all values are equal or there is one group only: the
        bootstrap cannot see what never varied.

    Raises:
        ValueError: no values, or groups or weights of another length.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"a list of at least one value is needed, got shape {numbers.shape}")
    if groups is not None and len(groups) != len(numbers):
        raise ValueError(f"{len(numbers)} values but {len(groups)} groups")
    weight = _weights(weights, len(numbers))
    index = np.arange(len(numbers)) if groups is None else _group_index(groups)
    totals, counts = np.bincount(index, numbers * weight), np.bincount(index, weight)
    random = np.random.default_rng(seed)
    means = np.empty(n_boot)
    # In slices, so that a test set of many thousand images needs little memory.
    step = max(1, 2_000_000 // len(counts))
    for start in range(0, n_boot, step):
        drawn = random.integers(len(counts), size=(min(step, n_boot - start), len(counts)))
        sums = counts[drawn].sum(axis=1)
        means[start : start + step] = np.divide(
            totals[drawn].sum(axis=1), sums, out=np.zeros(len(sums)), where=sums > 0
        )
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _weights(weights: ArrayLike | None, count: int) -> np.ndarray:
    array = np.ones(count) if weights is None else np.asarray(weights, dtype=np.float64)
    if array.shape != (count,) or (array < 0).any():
        raise ValueError(f"{count} weights that are not negative are needed, got {array.shape}")
    return array


def _group_index(groups: Sequence[object]) -> np.ndarray:
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups])


def result_row(
    values: ArrayLike,
    *,
    keys: Mapping[str, object],
    groups: Sequence[object] | None = None,
    weights: Sequence[float] | None = None,
    seed: int = 0,
    scale: float = 100.0,
) -> dict[str, object]:
    """One row of results.json: mean and 95 % interval of `values`.

    Args:
        values: (n,) hits or other numbers; none gives a row with n = 0 and value, low and high
            None, because a missing measurement must neither vanish nor look like 0 %.
        keys: the other columns (system, benchmark, split, metric, ...); absent ones are empty.
        groups: the image of each value, for the clustered interval.
        weights: of a weighted mean, such as unions for a cumulative IoU; None: all alike.
        scale: 100 for percent, 1 for a metric with a unit of its own.

    Raises:
        ValueError: `keys` holds a column that does not exist.
    """
    unknown = set(keys) - set(ROW_KEYS)
    if unknown:
        raise ValueError(f"unknown columns {sorted(unknown)}; the columns are {ROW_KEYS}")
    numbers = np.asarray(values, dtype=np.float64)
    row: dict[str, object] = {key: keys.get(key, "") for key in ROW_KEYS}
    row["derived"] = bool(keys.get("derived", False))
    row["n"] = len(numbers)
    if not len(numbers):
        row.update(value=None, low=None, high=None, note=str(row["note"]) or "no samples")
        return row
    low, high = bootstrap_interval(numbers, seed=seed, groups=groups, weights=weights)
    weight = _weights(weights, len(numbers))
    total = math.fsum(weight)
    mean = math.fsum(numbers * weight) / total if total else 0.0
    row.update(value=scale * mean, low=scale * low, high=scale * high)
    return row


def accuracy_rows(
    values: Sequence[float],
    splits: Sequence[str],
    *,
    keys: Mapping[str, object],
    groups: Sequence[object] | None = None,
    weights: Sequence[float] | None = None,
    expected_splits: Sequence[str] | None = None,
    seed: int = 0,
    scale: float = 100.0,
) -> list[dict[str, object]]:
    """Rows of results.json, one per split.

    Args:
        values: (n,) hits or other numbers of all splits together.
        splits: (n,) the split of each value.
        keys, groups, weights, seed, scale: see `result_row`.
        expected_splits: the splits to report, in this order; one without samples becomes a row
            with n = 0. Without it: the splits that occur, in the order of their first sample.

    Raises:
        ValueError: lists of different length, or neither samples nor expected splits.
    """
    if len(values) != len(splits) or (groups is not None and len(groups) != len(values)):
        raise ValueError(f"{len(values)} values but {len(splits)} splits or other groups")
    names = list(expected_splits or dict.fromkeys(splits))
    if not names:
        raise ValueError("no samples and no expected splits: there is nothing to report")
    rows = []
    for name in names:
        chosen = [index for index, split in enumerate(splits) if split == name]
        rows.append(
            result_row(
                [values[index] for index in chosen],
                keys={**keys, "split": name},
                groups=None if groups is None else [groups[index] for index in chosen],
                weights=None if weights is None else [weights[index] for index in chosen],
                seed=seed,
                scale=scale,
            )
        )
    return rows

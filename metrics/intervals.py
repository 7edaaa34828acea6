"""Means with 95 % intervals, as rows of results.json."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

ROW_KEYS = (
    "system", "objective", "checkpoint", "benchmark", "split", "metric",
    "value", "low", "high", "n", "derived", "note",
)  # fmt: skip


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

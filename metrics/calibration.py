"""Does a confidence say how often an answer is right?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit


class Bin(NamedTuple):
    """Answers of which the confidence is in [low, high), in the last bin also high: how many, their
    mean confidence, the share that is right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def reliability(confidences: ArrayLike, correct: ArrayLike, bins: int = 10) -> list[Bin]:
    """Bins of equal width over [0, 1], without the empty ones.

    Args:
        confidences: (n,) in [0, 1]. correct: (n,) bool.

    Raises:
        ValueError: lists of different length, or a confidence that is no probability.
    """
    sure, right = np.asarray(confidences, dtype=np.float64), np.asarray(correct, dtype=bool)
    if sure.shape != right.shape or sure.ndim != 1:
        raise ValueError(f"{sure.shape} confidences but {right.shape} answers")
    if not ((sure >= 0) & (sure <= 1)).all():
        raise ValueError("a confidence is not in [0, 1]")
    index = np.minimum((sure * bins).astype(int), bins - 1)
    return [
        Bin(
            number / bins,
            (number + 1) / bins,
            int(chosen.sum()),
            float(sure[chosen].mean()),
            float(right[chosen].mean()),
        )
        for number in range(bins)
        if (chosen := index == number).any()
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: the mean distance of accuracy and confidence over the answers."""
    total = sum(one.n for one in bins)
    gaps = sum(one.n * abs(one.accuracy - one.confidence) for one in bins)
    return gaps / total if total else 0.0


class Platt(NamedTuple):
    """A number that says how likely something is, made a probability: sigmoid of slope * number +
    intercept."""

    slope: float
    intercept: float

    def probabilities(self, numbers: ArrayLike) -> np.ndarray:
        """(n,) any real numbers -> (n,) in [0, 1]."""
        return expit(self.slope * np.asarray(numbers, dtype=np.float64) + self.intercept)


def fit_platt(numbers: ArrayLike, truth: ArrayLike) -> Platt:
    """Logistic regression of the truth on one number (Platt, *Probabilistic outputs for support
    vector machines*, 1999), with his targets, which are not quite 0 and 1, so that numbers that
    tell the two apart without a fault have a finite slope, too.

    Args:
        numbers: (n,) finite. truth: (n,) bool, some true and some false.

    Raises:
        ValueError: lists of different length, one kind of truth only, or numbers that are not
            finite or do not grow with it.
    """
    values, right = _both_kinds(numbers, truth)
    centre, spread = values.mean(), values.std()
    if spread == 0:
        raise ValueError("all numbers are the same, so that they tell nothing apart")
    scaled, count = (values - centre) / spread, right.sum()
    targets = np.where(right, (count + 1) / (count + 2), 1 / (len(right) - count + 2))

    def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
        score = line[0] * scaled + line[1]
        slopes = expit(score) - targets
        value = np.logaddexp(0, score) - targets * score
        return float(value.mean()), np.array([(slopes * scaled).mean(), slopes.mean()])

    slope, offset = minimize(loss, np.zeros(2), jac=True, method="BFGS", tol=1e-10).x
    if slope <= 0:
        raise ValueError("the higher the number, the less often it is right: it tells nothing")
    return Platt(float(slope / spread), float(offset - slope * centre / spread))


def area_under_roc(numbers: ArrayLike, truth: ArrayLike) -> float:
    """How often the number of a true one is higher than that of a false one; ties count half.

    Raises:
        ValueError: as `fit_platt`.
    """
    from scipy.stats import rankdata  # takes half a second to import

    values, right = _both_kinds(numbers, truth)
    ranks, positive = rankdata(values), int(right.sum())
    above = ranks[right].sum() - positive * (positive + 1) / 2
    return float(above / (positive * (len(right) - positive)))


def balanced_accuracy(probabilities: ArrayLike, truth: ArrayLike, threshold: float) -> float:
    """The mean of the shares of true ones that reach the threshold and of false ones that do not.

    Raises:
        ValueError: as `fit_platt`.
    """
    values, right = _both_kinds(probabilities, truth)
    said = values >= threshold
    return float((said[right].mean() + (~said[~right]).mean()) / 2)


def best_threshold(probabilities: ArrayLike, truth: ArrayLike) -> float:
    """The threshold of the best `balanced_accuracy`, halfway between two probabilities that occur;
    of several the one that is nearest to one half.

    Raises:
        ValueError: as `fit_platt`.
    """
    values, right = _both_kinds(probabilities, truth)
    order = np.argsort(values, kind="stable")
    ends, sorted_right = np.flatnonzero(np.diff(values[order])) + 1, right[order]
    if not len(ends):
        raise ValueError("all probabilities are the same, so that no threshold parts them")
    found = np.cumsum(sorted_right)
    lost = found[ends - 1] / found[-1]
    kept_out = (ends - found[ends - 1]) / (len(right) - found[-1])
    accuracy = (1 - lost + kept_out) / 2
    middles = (values[order][ends - 1] + values[order][ends]) / 2
    best = middles[accuracy >= accuracy.max() - 1e-12]
    return float(best[np.abs(best - 0.5).argmin()])


def _both_kinds(numbers: ArrayLike, truth: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    values, right = np.asarray(numbers, dtype=np.float64), np.asarray(truth, dtype=bool)
    if values.shape != right.shape or values.ndim != 1:
        raise ValueError(f"{values.shape} numbers but {right.shape} answers")
    if not np.isfinite(values).all():
        raise ValueError("a number is not finite")
    if right.all() or not right.any():
        raise ValueError("true and false ones are needed, to be told apart")
    return values, right

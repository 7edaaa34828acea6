"""Does a confidence say how often an answer is right?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


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

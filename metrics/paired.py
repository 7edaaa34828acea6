"""Two systems on the same samples."""

import numpy as np
from numpy.typing import ArrayLike


def mcnemar(first: ArrayLike, second: ArrayLike) -> tuple[int, int, float]:
    """McNemar's exact test of (n,) bool twice: (won, lost, p).

    won: samples that the second has right and the first has not; lost: the other way round. p: how
    likely a split of these as uneven or more is if both are equally good; 1 if they never differ.

    Raises:
        ValueError: lists of different length.
    """
    from scipy.stats import binomtest  # takes half a second to import

    one, two = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if one.shape != two.shape:
        raise ValueError(f"{one.shape} answers cannot be paired with {two.shape}")
    won, lost = int((two & ~one).sum()), int((one & ~two).sum())
    p = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    return won, lost, p

"""How two variants of a model differ over seeds, for the tables of benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev


def gain_cells(values: Sequence[float], base: Sequence[float]) -> str:
    """Cells of a Markdown row: mean and deviation of values - base, seed by seed; no deviation for
    one seed."""
    gains = [value - other for value, other in zip(values, base, strict=True)]
    spread = f"{stdev(gains):.2f}" if len(gains) > 1 else ""
    return f"{mean(gains):+.2f} | {spread} |"

"""What the experiments over several seeds share."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev


def make_parser(
    description: str | None, name: str, steps: int | None = None
) -> argparse.ArgumentParser:
    """A parser with --out (runs/NAME), --data, --seeds and, where `steps` are given, --steps."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs", name))
    parser.add_argument("--data", type=Path, default=Path("data/embedded"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    if steps is not None:
        parser.add_argument("--steps", type=int, default=steps, help="optimiser steps of an epoch")
    return parser


def gain_cells(values: Sequence[float], base: Sequence[float]) -> str:
    """Cells of a Markdown row: mean and deviation of values - base, seed by seed; no deviation for
    one seed."""
    gains = [value - other for value, other in zip(values, base, strict=True)]
    spread = f"{stdev(gains):.2f}" if len(gains) > 1 else ""
    return f"{mean(gains):+.2f} | {spread} |"

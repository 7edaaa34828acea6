"""What the parts of the quick start share: data, paths, and one run of a box and mask system."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import test
import train
from dataset.synthetic import write_dataset
from report.pages import Samples
from report.predictions import read_predictions
from report.results import Row, predictions_files

CONFIGS = Path(__file__).parents[2] / "configs"


def draw(folder: Path, *, scenes: int = 6000, seed: int = 0, trees: bool = False) -> None:
    """Write the embedded data set unless it is there.

    Args:
        trees: with the files that the box and mask systems read; a folder without them is drawn
            anew.
    """
    needed, done = folder / "annotations_resc" if trees else folder, folder / "summary.json"
    if not (done.is_file() and needed.is_dir()):
        done.unlink(missing_ok=True)  # so that a drawing that is stopped counts as none
        write_dataset(folder, scenes=scenes, seed=seed, trees=trees)


def paths(args: argparse.Namespace) -> list[str]:
    """Overrides that point a shipped configuration to the data set of this run."""
    return [f"roots.embedded={args.data}"]


def train_boxes(
    args: argparse.Namespace,
    name: str,
    config: str,
    *overrides: str,
    start: Path | None = None,
) -> Path:
    """Train configs/`config`.yaml by train.py into the folder `name`, from `start` if given.

    Returns:
        The best checkpoint by validation, renamed to `name`.pth, which is what tables call it.
    """
    folder = args.out / name
    call = ["--config", str(CONFIGS / f"{config}.yaml"), "--output_dir", str(folder)]
    if start is not None:
        call += ["--checkpoint", str(start)]
    call += ["--seed", str(args.seed), "--set", "keep=1", *paths(args), *overrides, *args.set]
    train.main(call)
    return (folder / "checkpoint_best.pth").rename(folder / f"{Path(name).name}.pth")


def evaluate_boxes(
    args: argparse.Namespace,
    name: str,
    config: str,
    checkpoint: Path,
    *overrides: str,
    splits: Sequence[str],
) -> tuple[list[Row], list[Samples]]:
    """Evaluate by test.py into the folder `name`: its rows, and predictions to draw pictures of."""
    folder = args.out / name / "results"
    rows = test.main(
        ["--config", str(CONFIGS / f"{config}.yaml"), "--checkpoint", str(checkpoint),
         "--output_dir", str(folder), "--again", "--split", *splits,
         "--set", *paths(args), *overrides]
    )  # fmt: skip
    return rows, [shown(folder, checkpoint)]


def shown(folder: Path, checkpoint: Path) -> Samples:
    """The predictions of one evaluation, for a picture sheet."""
    about, predictions = read_predictions(predictions_files(folder / checkpoint.stem)[0])
    return Samples(about, predictions)

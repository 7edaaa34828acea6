"""What the parts of the quick start share: data, paths, and one run of a box and mask system."""

import argparse
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch

from groundwork import engine, utils
from groundwork.dataset.synthetic import write_dataset
from groundwork.jobs import evaluate, train
from groundwork.report.pages import Samples
from groundwork.report.prediction_files import read_predictions
from groundwork.report.results import Row, merge_rows, predictions_files
from groundwork.settings import load_config

Task = TypeVar("Task")
Made = TypeVar("Made")

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
EXPECTED = Path(__file__).parent / "expected.json"
"""What `experiments.seeds` found here, see `report.seeds`."""


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


def default_processes() -> int:
    """Two on a CPU with two cores: the layers of a small network are too small to share a step, so
    that two processes are faster than one with two threads, whether they train a model each or
    one with half the batch each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return 2 if not torch.cuda.is_available() and (cores or 1) >= 2 else 1


def several_at_a_time(function: Callable[[Task], Made], tasks: Sequence[Task]) -> Iterator[Made]:
    """What `function` makes of each task, in their order, in `default_processes` processes that
    share the threads."""
    processes = min(default_processes(), len(tasks))
    given = (max(1, torch.get_num_threads() // processes), multiprocessing.get_start_method())
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, prepare_process, given) as pool:
        yield from pool.map(function, tasks)


def prepare_process(threads: int, start_method: str) -> None:
    """What a process does before its first model.

    Args:
        start_method: how its loading processes start: as those of a script do, where those of a
            spawned process would import everything again, for every split of every evaluation.
    """
    utils.setup_logging()
    multiprocessing.set_start_method(start_method, force=True)
    torch.set_num_threads(threads)


def paths(args: argparse.Namespace) -> list[str]:
    """Overrides that point a shipped configuration to the data set of this run."""
    return [f"roots.embedded={args.data}"]


def train_last(
    folder: Path, config: str, seed: int, *overrides: str, start: Path | None = None
) -> Path:
    """Train configs/`config`.yaml into `folder`, from `start` if any: its last checkpoint."""
    engine.remove_run(folder)
    call = ["--config", str(CONFIGS / f"{config}.yaml"), "--output_dir", str(folder)]
    if start is not None:
        call += ["--checkpoint", str(start)]
    train.main([*call, "--seed", str(seed), "--set", "keep=1", *overrides])
    (last,) = folder.glob("checkpoint_*.pth")
    return last


def train_boxes(
    args: argparse.Namespace,
    name: str,
    config: str,
    *overrides: str,
    start: Path | None = None,
    processes: int = 1,
) -> Path:
    """Train configs/`config`.yaml by train.py into the folder `name`, from `start` if given.

    Args:
        processes: share the configuration's batch.

    Returns:
        The best checkpoint by validation, renamed to `name`.pth, which is what tables call it.
    """
    folder, path = args.out / name, CONFIGS / f"{config}.yaml"
    share = load_config(path).batch_size // processes
    engine.remove_run(folder)
    call = ["--config", str(path), "--output_dir", str(folder)]
    if start is not None:
        call += ["--checkpoint", str(start)]
    call += ["--seed", str(args.seed), "--set", "keep=1", f"batch_size={share}"]
    call += [*paths(args), *overrides, *args.set]
    if processes == 1:
        train.main(call)
    else:
        launcher = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command = [sys.executable, "-m", *launcher, str(ROOT / "train.py"), *call]
        finished = subprocess.run(command, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
        if finished.returncode:
            raise SystemExit(f"error: training {name} ended with an error, which stands above")
    return (folder / "checkpoint_best.pth").rename(folder / f"{Path(name).name}.pth")


def evaluate_boxes(
    args: argparse.Namespace,
    name: str,
    config: str,
    checkpoint: Path,
    *overrides: str,
    splits: Sequence[str],
) -> tuple[list[Row], list[Samples]]:
    """Evaluate by test.py into the folder `name`: its rows, and predictions to draw images of."""
    folder = args.out / name / "results"
    rows = evaluate.main(
        ["--config", str(CONFIGS / f"{config}.yaml"), "--checkpoint", str(checkpoint),
         "--output_dir", str(folder), "--again", "--split", *splits,
         "--set", *paths(args), *overrides]
    )  # fmt: skip
    return rows, [shown(folder, checkpoint)]


def train_in_turn(
    args: argparse.Namespace, models: Mapping[str, tuple[str, Sequence[str]]], processes: int = 1
) -> tuple[list[Row], list[Samples]]:
    """Train the models of name -> (configuration, splits), each from the one before, and evaluate
    each on these splits."""
    rows: list[Row] = []
    samples: list[Samples] = []
    checkpoint: Path | None = None
    for name, (config, splits) in models.items():
        checkpoint = train_boxes(args, name, config, start=checkpoint, processes=processes)
        new, images = evaluate_boxes(args, name, config, checkpoint, splits=splits)
        rows, samples = merge_rows(rows, new), samples + images
    return rows, samples


def shown(folder: Path, checkpoint: Path) -> Samples:
    """The predictions of one evaluation, for an image sheet."""
    about, predictions = read_predictions(predictions_files(folder / checkpoint.stem)[0])
    return Samples.of(about, predictions)

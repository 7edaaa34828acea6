"""Boxes learnt without boxes: a detector on scenes that nobody evaluates, RefCLIP, SimREC.

    detector    configs/tiny/detector.yaml         objects of training scenes, no expression
    teacher     configs/tiny/refclip/refcoco+.yaml     expressions without boxes, on the detector
    student     configs/tiny/simrec/refcoco+.yaml      on boxes of the teacher, by pseudo_label.py
    supervised  configs/tiny/simrec/refcoco+.yaml      the same network on annotated boxes
    reftr       experiments/quick/reftr.py, one expression     RefTR on annotated boxes

One table has all of them, the detector's likeliest object whatever is said, which is what a teacher
must beat, and what the teacher would reach if the best of its boxes were always chosen.
"""

import argparse
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from groundwork import engine
from groundwork.experiments.quick import reftr
from groundwork.experiments.quick.common import CONFIGS, evaluate_boxes, paths, train_boxes
from groundwork.jobs import detector_training, label
from groundwork.report.pages import Samples
from groundwork.report.results import Row

PART = "without_boxes"
TEACHER, STUDENT = "tiny/refclip/refcoco+", "tiny/simrec/refcoco+"
SPLITS = ("testA", "testB")
# Labels that are right more often than the others; docs/small_models.md compares the filters.
KEPT = ("--min_agreement", "0.5", "--keep", "0.6", "--by", "margin")
# (evaluation, metric) -> (system, objective) in the table, in its order.
TABLE = {
    ("teacher", "Acc@0.5 (likeliest object)"): ("detector", "likeliest object"),
    ("teacher", "Acc@0.5"): ("RefCLIP", "REC without boxes"),
    ("teacher", "Acc@0.5 (best of the chosen cell)"): ("oracle", "best of the chosen cell"),
    ("teacher", "Acc@0.5 (best of the selected cells)"): ("oracle", "best of the selected cells"),
    ("student", "Acc@0.5"): ("SimREC", "REC by pseudo-labels"),
    ("supervised", "Acc@0.5"): ("SimREC", "REC"),
    ("reftr", "Acc@0.5"): ("RefTR", "REC"),
}


def run(args: argparse.Namespace) -> tuple[list[Row], list[Samples]]:
    """Train and evaluate all of them."""
    folder = args.out / PART
    # What the frozen detector saw in an image serves training, evaluation and labelling.
    seen = f"model.cache.folder={folder / 'seen'}"
    start = f"model.init.detector={train_detector_of(args)}"
    teacher = train_boxes(args, f"{PART}/teacher", TEACHER, seen, start)
    labels = folder / "labels"
    label.main(
        ["--config", str(CONFIGS / f"{TEACHER}.yaml"), "--checkpoint", str(teacher),
         "--out", str(labels), *KEPT, "--set", *paths(args), seen]
    )  # fmt: skip
    given = f"data.labels={labels / 'labels.jsonl'}"
    student = train_boxes(args, f"{PART}/student", STUDENT, given)
    supervised = train_boxes(args, f"{PART}/supervised", STUDENT)
    rows: dict[str, list[Row]] = {}
    samples: list[Samples] = []
    checkpoints: list[tuple[str, str, Path, Sequence[str]]] = [
        ("teacher", TEACHER, teacher, [seen]),
        ("student", STUDENT, student, []),
        ("supervised", STUDENT, supervised, []),
        ("reftr", reftr.MODELS["reftr_single"][0], train_reftr(args), []),
    ]
    for name, config, checkpoint, more in checkpoints:
        place = f"{PART}/{name}"
        rows[name], shown = evaluate_boxes(args, place, config, checkpoint, *more, splits=SPLITS)
        objective = TABLE[name, "Acc@0.5"][1]
        samples += [replace(one, run=replace(one.run, objective=objective)) for one in shown]
    shutil.rmtree(folder / "seen")  # 0.7 GB, which nothing reads any more
    return list(one_table(rows)), samples


def train_detector_of(args: argparse.Namespace) -> str:
    """Train the detector; returns its best checkpoint."""
    folder = args.out / PART / "detector"
    engine.remove_run(folder)
    config = CONFIGS / "tiny" / "detector.yaml"
    settings = ["keep=1", f"seed={args.seed}", *paths(args), *args.set]
    detector_training.main(
        ["--config", str(config), "--output_dir", str(folder), "--set", *settings]
    )
    return str(folder / "checkpoint_best.pth")


def train_reftr(args: argparse.Namespace) -> Path:
    """RefTR of one expression, as the part `reftr` trains it; what that part has left in the same
    output folder is taken as it is."""
    left = args.out / "reftr_single" / "reftr_single.pth"
    if left.is_file():
        return left
    configs = {name: config for name, (config, _) in reftr.MODELS.items()}
    several = train_boxes(args, "reftr_multi", configs["reftr_multi"])
    return train_boxes(args, "reftr_single", configs["reftr_single"], start=several)


def one_table(rows: Mapping[str, Sequence[Row]]) -> Iterator[Row]:
    """The lines of TABLE as rows of one metric; the evaluations' own results.json have the rest."""
    for (name, metric), (system, objective) in TABLE.items():
        for row in rows[name]:
            if row["metric"] == metric:
                yield row | {"system": system, "objective": objective, "metric": "Acc@0.5"}

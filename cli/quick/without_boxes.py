"""Boxes learnt without boxes: a detector on scenes that nobody evaluates, RefCLIP, SimREC.

    detector  configs/detector/embedded.yaml         objects of training scenes, no expression
    teacher   configs/refclip/refcoco+_tiny.yaml     expressions without boxes, on the detector
    student   configs/simrec/refcoco+_tiny.yaml      on boxes of the teacher, by pseudo_label.py
    RefTR     configs/reftr/refcoco+_tiny.yaml       on annotated boxes: what could be reached

One table has all of them, the detector's likeliest object whatever is said, which is what a teacher
must beat, and what the teacher would reach if the best of its boxes were always chosen.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable

import pseudo_label
import train_detector
from cli.quick.common import CONFIGS, evaluate_boxes, paths, train_boxes
from report.pages import Samples
from report.results import Row

PART = "without_boxes"
TEACHER, STUDENT, SUPERVISED = (f"{room}/refcoco+_tiny" for room in ("refclip", "simrec", "reftr"))
SPLITS = ("testA", "testB")
# What the teacher is sure of is right more often; docs/small_models.md compares the measures.
KEPT = ("--keep", "0.6", "--by", "margin")
# (system, metric) of an evaluation -> (system, objective) in the table, in its order.
TABLE = {
    ("RefCLIP", "Acc@0.5 (likeliest object)"): ("detector", "likeliest object"),
    ("RefCLIP", "Acc@0.5"): ("RefCLIP", "REC without boxes"),
    ("RefCLIP", "Acc@0.5 (best of the chosen cell)"): ("oracle", "best of the chosen cell"),
    ("RefCLIP", "Acc@0.5 (best of the selected cells)"): ("oracle", "best of the selected cells"),
    ("SimREC", "Acc@0.5"): ("SimREC", "REC by pseudo-labels"),
    ("RefTR", "Acc@0.5"): ("RefTR", "REC"),
}


def run(args: argparse.Namespace) -> tuple[list[Row], list[Samples]]:
    """Train and evaluate all of them. A RefTR that the part `reftr` has left is taken as it is."""
    folder = args.out / PART
    # What the frozen detector saw in a picture serves training, evaluation and labelling.
    seen = f"model.cache.folder={folder / 'seen'}"
    start = f"model.init.detector={train_detector_of(args)}"
    teacher = train_boxes(args, f"{PART}/teacher", TEACHER, seen, start)
    labels = folder / "labels"
    pseudo_label.main(
        ["--config", str(CONFIGS / f"{TEACHER}.yaml"), "--checkpoint", str(teacher),
         "--out", str(labels), *KEPT, "--set", *paths(args), seen]
    )  # fmt: skip
    given = f"data.labels={labels / 'labels.jsonl'}"
    student = train_boxes(args, f"{PART}/student", STUDENT, given)
    supervised = args.out / "reftr" / "reftr.pth"
    if not supervised.is_file():
        supervised = train_boxes(args, f"{PART}/supervised", SUPERVISED)
    rows: list[Row] = []
    samples: list[Samples] = []
    for name, config, checkpoint, more in (
        ("teacher", TEACHER, teacher, [seen]),
        ("student", STUDENT, student, []),
        ("supervised", SUPERVISED, supervised, []),
    ):
        new, pictures = evaluate_boxes(
            args, f"{PART}/{name}", config, checkpoint, *more, splits=SPLITS
        )
        rows, samples = rows + new, samples + pictures
    shutil.rmtree(folder / "seen")  # 0.7 GB, which nothing reads any more
    return list(one_table(rows)), samples


def train_detector_of(args: argparse.Namespace) -> str:
    """Train the detector; returns its best checkpoint."""
    folder = args.out / PART / "detector"
    config = CONFIGS / "detector" / "embedded.yaml"
    settings = ["keep=1", f"seed={args.seed}", *paths(args), *args.set]
    train_detector.main(["--config", str(config), "--output_dir", str(folder), "--set", *settings])
    return str(folder / "checkpoint_best.pth")


def one_table(rows: Iterable[Row]) -> Iterable[Row]:
    """The lines of TABLE as rows of one metric; the evaluations' own results.json have the rest."""
    rows = list(rows)
    for (system, metric), (shown, objective) in TABLE.items():
        for row in rows:
            if (row["system"], row["metric"]) == (system, metric):
                yield row | {"system": shown, "objective": objective, "metric": "Acc@0.5"}

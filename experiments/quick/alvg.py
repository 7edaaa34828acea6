"""Boxes, masks and any number of targets: ALVG from random weights, with its attention losses.

    REC   configs/alvg/refcoco+_tiny.yaml       boxes of one target, after scenes of one object
    RES   configs/alvg/refcoco+_res_tiny.yaml   on top of it: its mask, too
    GREC  configs/alvg/grefcoco_tiny.yaml       on top of that: any number of targets, or none

The paper starts from a BEiT-3 that was pre-trained on millions of images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from groundwork.experiments.quick.common import evaluate_boxes, train_boxes
from groundwork.report.pages import Samples
from groundwork.report.results import Row, merge_rows

RUNS = {
    "alvg_rec": "alvg/refcoco+_tiny",
    "alvg_res": "alvg/refcoco+_res_tiny",
    "alvg_grec": "alvg/grefcoco_tiny",
}
SPLITS = ("testA", "testB")


def run(args: argparse.Namespace) -> tuple[list[Row], list[Samples]]:
    """Train the three models, each from the one before, and evaluate them."""
    rows: list[Row] = []
    samples: list[Samples] = []
    checkpoint: Path | None = None
    for name, config in RUNS.items():
        checkpoint = train_boxes(args, name, config, start=checkpoint)
        new, images = evaluate_boxes(args, name, config, checkpoint, splits=SPLITS)
        rows, samples = merge_rows(rows, new), samples + images
    return rows, samples

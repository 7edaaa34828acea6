"""Boxes, masks and any number of targets: ALVG from random weights, with its attention losses.

    REC   configs/alvg/refcoco+_tiny.yaml       boxes of one target, after scenes of one object
    RES   configs/alvg/refcoco+_res_tiny.yaml   on top of it: its mask, too
    GREC  configs/alvg/grefcoco_tiny.yaml       on top of that: any number of targets, or none

The paper starts from a BEiT-3 that was pre-trained on millions of images.
"""

from __future__ import annotations

import argparse

from groundwork.experiments.quick.common import train_in_turn
from groundwork.report.pages import Samples
from groundwork.report.results import Row

SPLITS = ("testA", "testB")
MODELS = {
    "alvg_rec": ("alvg/refcoco+_tiny", SPLITS),
    "alvg_res": ("alvg/refcoco+_res_tiny", SPLITS),
    "alvg_grec": ("alvg/grefcoco_tiny", SPLITS),
}


def run(args: argparse.Namespace) -> tuple[list[Row], list[Samples]]:
    """Train the three models, each from the one before, and evaluate them."""
    return train_in_turn(args, MODELS)

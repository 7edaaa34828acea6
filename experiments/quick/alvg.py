"""Boxes, masks and any number of targets: ALVG from random weights, with its attention losses.

    REC   configs/tiny/alvg/refcoco+.yaml       boxes of one target, after scenes of one object
    RES   configs/tiny/alvg/refcoco+_res.yaml   on top of it: its mask, too
    GREC  configs/tiny/alvg/grefcoco.yaml       on top of that: any number of targets, or none

The paper starts from a BEiT-3 that was pre-trained on millions of images.
"""

import argparse

from groundwork.experiments.quick.common import train_in_turn
from groundwork.report.pages import Samples
from groundwork.report.results import Row

SPLITS = ("testA", "testB")
MODELS = {
    "alvg_rec": ("tiny/alvg/refcoco+", SPLITS),
    "alvg_res": ("tiny/alvg/refcoco+_res", SPLITS),
    "alvg_grec": ("tiny/alvg/grefcoco", SPLITS),
}


def run(args: argparse.Namespace) -> tuple[list[Row], list[Samples]]:
    """Train the three models, each from the one before, and evaluate them."""
    return train_in_turn(args, MODELS)

"""Boxes of one and of several phrases, and masks: three small RefTRs, from random weights.

reftr_multi   configs/tiny/reftr/flickr30k.yaml     the phrases of a sentence
reftr_single  configs/tiny/reftr/refcoco+.yaml      one expression per image, from reftr_multi
reftr_masks   configs/tiny/reftr/refcoco+_res.yaml  its box and mask, from reftr_single
"""

import argparse

from groundwork.experiments.quick.common import default_processes, train_in_turn
from groundwork.report.pages import Samples
from groundwork.report.results import Row

# Model -> its configuration and the unseen splits of its benchmark. Each starts from the one
# before; an image with several phrases teaches most per second, so they come first.
MODELS = {
    "reftr_multi": ("tiny/reftr/flickr30k", ("test",)),
    "reftr_single": ("tiny/reftr/refcoco+", ("val", "testA", "testB")),
    "reftr_masks": ("tiny/reftr/refcoco+_res", ("val", "testA", "testB")),
}


def run(args: argparse.Namespace) -> tuple[list[Row], list[Samples]]:
    """Train the three in their order and evaluate each on scenes that none of them saw."""
    return train_in_turn(args, MODELS, default_processes())

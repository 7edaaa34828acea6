"""Heat maps: ALBEF from scratch, with AMC, and with SelfEQ.

    (a) ITC+ITM+MLM  configs/tiny/quickstart_match.yaml   captions of whole scenes, from scratch
    base             configs/tiny/quickstart_base.yaml    the same for longer; it ships
    (b) + AMC        configs/tiny/quickstart_amc.yaml     on top of base: phrases with boxes
    (c) + SelfEQ     configs/tiny/quickstart_selfeq.yaml  on top of base: phrases with paraphrases

The papers start from a checkpoint that was pre-trained on 14 million images; base stands for it.
"""

import argparse
import logging
from functools import partial
from pathlib import Path

from groundwork.experiments.quick.common import (
    CONFIGS,
    paths,
    several_at_a_time,
    shown,
    train_last,
)
from groundwork.jobs import evaluate
from groundwork.jobs.matching import matching_rows
from groundwork.report.pages import Samples
from groundwork.report.results import Row, merge_rows
from groundwork.tools import calibrate, self_consistency

logger = logging.getLogger("groundwork")
BASE = CONFIGS.parent / "checkpoints" / "quickstart_base.pth"
VARIANTS = {
    "a_match": "tiny/quickstart_match",
    "b_amc": "tiny/quickstart_amc",
    "c_selfeq": "tiny/quickstart_selfeq",
}
MODELS = ("a_match", "base", "b_amc", "c_selfeq")  # in the order of the table
ASKED = "b_amc"
"""The one that predict.py asks, so that it is calibrated, too."""
EVALUATIONS = {"refcoco": "[testA, testB]", "refclef": "[test]", "flickr": "[test]"}


def run(args: argparse.Namespace) -> tuple[list[Row], list[Samples]]:
    """Train the three variants, evaluate them and base: two at a time where there are two cores."""
    names = args.models or MODELS
    rows: list[Row] = []
    samples: list[Samples] = []
    for new, images in several_at_a_time(partial(make_model, args), names):
        rows, samples = merge_rows(rows, new), samples + images
    return rows, samples


def make_model(args: argparse.Namespace, name: str) -> tuple[list[Row], list[Samples]]:
    """One of `MODELS`: its rows, and predictions to draw images of."""
    checkpoint = train_variant(args, name) if name in VARIANTS else BASE
    found = evaluate_variant(args, name, checkpoint)
    if name == ASKED:
        calibrate_variant(args, checkpoint)
    return found


def train_variant(args: argparse.Namespace, name: str) -> Path:
    """Train one variant; returns its last checkpoint, named after the variant."""
    folder, start = args.out / name, None if name == "a_match" else BASE
    overrides = [*paths(args), *args.set]
    last = train_last(folder, VARIANTS[name], args.seed, *overrides, start=start)
    return last.rename(folder / f"{name}.pth")


def calibrate_variant(args: argparse.Namespace, checkpoint: Path) -> None:
    """Beside a checkpoint, what says whether a phrase is there at all; a model that cannot tell is
    left without."""
    config = str(CONFIGS / "tiny/Grounding_refcoco.yaml")
    call = ["--checkpoint", str(checkpoint), "--config", config, "--wrong-images"]
    try:
        calibrate.main([*call, "--evaluate-on", "testA", "testB", "--set", *paths(args)])
    except ValueError as error:
        logger.warning("%s is not calibrated: %s", checkpoint, error)


def evaluate_variant(
    args: argparse.Namespace, name: str, checkpoint: Path
) -> tuple[list[Row], list[Samples]]:
    """All evaluations of one model: their rows, and predictions to draw images of."""
    rows: list[Row] = []
    samples = []
    common = paths(args)
    for benchmark, splits in EVALUATIONS.items():
        folder = args.out / name / benchmark
        config = str(CONFIGS / f"tiny/Grounding_{benchmark}.yaml")
        chosen = [f"data.splits={splits}", *common]
        call = ["--config", config, "--checkpoint", str(checkpoint), "--output_dir", str(folder)]
        rows += evaluate.main([*call, "--again", "--set", *chosen])
        if benchmark == "refcoco":
            samples.append(shown(folder, checkpoint))
            rows += matching_rows(config, checkpoint, chosen)
    pairs = [f"{split}={args.data / f'paraphrases_{split}.json'}" for split in ("seen", "heldout")]
    config, folder = str(CONFIGS / "tiny/Grounding_refcoco.yaml"), str(args.out / name / "pairs")
    rows += self_consistency.main(
        ["--config", config, "--checkpoint", str(checkpoint), "--pairs", *pairs,
         "--output_dir", folder, "--set", *common]
    )  # fmt: skip
    return rows, samples

"""The whole of the project's main job in minutes, on a data set that it draws itself.

    python quickstart.py            (or `make quickstart`, which also installs what is needed)

Draws the embedded data set, trains three small models with the real scripts, evaluates each with
the three real evaluation scripts on scenes that none of them saw, and writes one table and one page
with pictures.

    (a) ITC+ITM+MLM  configs/quickstart_match.yaml   captions of whole scenes, from scratch
    base             configs/quickstart_base.yaml    the same for longer: the checkpoint that ships
    (b) + AMC        configs/quickstart_amc.yaml     on top of base: phrases with boxes
    (c) + SelfEQ     configs/quickstart_selfeq.yaml  on top of base: phrases with paraphrases

The papers start from a checkpoint that was pre-trained on 14 million pictures; base stands for it.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import grounding_eval_singlegpu
import grounding_eval_singlegpu_flickr
import grounding_eval_singlegpu_refclef
import Pretrain_vg
import utils
from cli import run_script
from cli.matching import matching_rows
from dataset.synthetic import write_dataset
from report.pages import Samples, markdown, write_report
from report.predictions import read_predictions
from report.results import merge_rows, predictions_files
from tools import self_consistency

logger = logging.getLogger("groundwork")

CONFIGS = Path(__file__).parent / "configs"
BASE = Path(__file__).parent / "checkpoints" / "quickstart_base.pth"
VARIANTS = {
    "a_match": "quickstart_match",
    "b_amc": "quickstart_amc",
    "c_selfeq": "quickstart_selfeq",
}
MODELS = ("a_match", "base", "b_amc", "c_selfeq")  # in the order of the table
EVALUATIONS = {
    "refcoco": (grounding_eval_singlegpu.main, "[testA, testB]"),
    "refclef": (grounding_eval_singlegpu_refclef.main, "[test]"),
    "flickr": (grounding_eval_singlegpu_flickr.main, "[test]"),
}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--data", type=Path, default=Path("data/embedded"))
    parser.add_argument("--scenes", type=int, default=6000, help="how many to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="training config")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> list[dict]:
    """Run with command line arguments `argv`; returns the rows of results.json."""
    args = parse_args(argv)
    utils.setup_logging()
    began = time.perf_counter()
    if not (args.data / "summary.json").is_file():
        write_dataset(args.data, scenes=args.scenes, seed=args.seed)
    rows: list[dict] = []
    samples: list[Samples] = []
    for name in MODELS:
        checkpoint = train(args, name) if name in VARIANTS else BASE
        new, shown = evaluate(args, name, checkpoint)
        rows, samples = merge_rows(rows, new), samples + shown
    write_report(
        args.out, rows, samples, title="Quick start: the embedded data set", seed=args.seed
    )
    print(markdown(rows))
    minutes = (time.perf_counter() - began) / 60
    print(f"{minutes:.1f} minutes. Report with pictures: {args.out / 'index.html'}")
    return rows


def train(args: argparse.Namespace, name: str) -> Path:
    """Train one variant; returns its last checkpoint, named after the variant."""
    folder = args.out / name
    call = ["--config", str(CONFIGS / f"{VARIANTS[name]}.yaml"), "--output_dir", str(folder)]
    if name != "a_match":
        call += ["--checkpoint", str(BASE)]
    Pretrain_vg.main([*call, "--seed", str(args.seed), "--set", "keep=1", *paths(args), *args.set])
    (last,) = folder.glob("checkpoint_*.pth")
    return last.rename(folder / f"{name}.pth")


def paths(args: argparse.Namespace) -> list[str]:
    """Overrides that point a shipped configuration to the data set of this run."""
    return [f"roots.embedded={args.data}"]


def evaluate(
    args: argparse.Namespace, name: str, checkpoint: Path
) -> tuple[list[dict], list[Samples]]:
    """All evaluations of one model: their rows, and predictions to draw pictures of."""
    rows: list[dict] = []
    samples = []
    common = paths(args)
    for benchmark, (run, splits) in EVALUATIONS.items():
        folder = args.out / name / benchmark
        config = str(CONFIGS / f"Grounding_{benchmark}_tiny.yaml")
        chosen = [f"data.splits={splits}", *common]
        call = ["--config", config, "--checkpoint", str(checkpoint), "--output_dir", str(folder)]
        rows += run([*call, "--again", "--set", *chosen])
        if benchmark == "refcoco":
            about, predictions = read_predictions(predictions_files(folder / checkpoint.stem)[0])
            samples.append(Samples(about, predictions))
            rows += matching_rows(config, checkpoint, chosen)
    pairs = [f"{split}={args.data / f'paraphrases_{split}.json'}" for split in ("seen", "heldout")]
    config, folder = str(CONFIGS / "Grounding_refcoco_tiny.yaml"), str(args.out / name / "pairs")
    rows += self_consistency.main(
        ["--config", config, "--checkpoint", str(checkpoint), "--pairs", *pairs,
         "--output_dir", folder, "--set", *common]
    )  # fmt: skip
    return rows, samples


if __name__ == "__main__":
    run_script(main)

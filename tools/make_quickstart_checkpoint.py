"""Make the small checkpoint that ships with the project and from which the quick start goes on.

    python -m tools.make_quickstart_checkpoint --out checkpoints/quickstart_base.pth

Draws 16,000 scenes with seed 1 unless they are there (the quick start's have seed 0), trains
configs/tiny/quickstart_base.yaml and from it quickstart_base_phrases.yaml with seed 1, and keeps
the online encoders after each: where such a checkpoint is loaded, the momentum twin starts as
their copy and the queues with random columns.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from groundwork.dataset.synthetic import write_dataset
from groundwork.experiments.quick.common import train_last
from groundwork.files.safe import atomic_write
from groundwork.jobs import run_script
from groundwork.models.albef.checkpoint import QUEUES, TWIN
from groundwork.models.common.checkpoint import read_checkpoint

TOKENIZER = "checkpoints/quickstart_amc"
"""Looked for from the folders above the checkpoint, as of every configuration in a file."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("checkpoints/quickstart_base.pth"))
    parser.add_argument("--data", type=Path, default=Path("data/quickstart_base"))
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart_base"))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="override config")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run with command line arguments `argv`."""
    args = parse_args(argv)
    if not (args.data / "summary.json").is_file():
        write_dataset(args.data, scenes=16000, seed=1, trees=False)
    settings = [f"roots.embedded={args.data}", *args.set]
    captions = args.run / "captions.pth"
    shrink(train_last(args.run / "captions", "tiny/quickstart_base", 1, *settings), captions)
    phrases = "tiny/quickstart_base_phrases"
    shrink(train_last(args.run / "phrases", phrases, 1, *settings, start=captions), args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")


def shrink(checkpoint: Path, out: Path) -> None:
    """Write a checkpoint's online encoders to `out`, with sizes and objectives, and as tokeniser
    that of the other model that ships, but no other paths."""
    content = read_checkpoint(checkpoint)
    model = {
        key: value
        for key, value in content["model"].items()
        if not key.startswith((*TWIN, *QUEUES)) and not key.endswith("position_ids")
    }
    stages = [
        {"objective": stage["objective"], "epochs": stage["epochs"]}
        for stage in content["config"]["stages"]
    ]
    trained = content["config"]
    data = {"max_tokens": trained["data"]["max_tokens"], "text_encoder": TOKENIZER}
    config = {"system": "albef", "model": trained["model"], "stages": stages, "data": data}
    with atomic_write(out) as partial:
        kept = {"tokens": content["tokens"], "epoch": content["epoch"]}
        torch.save({"model": model, "config": config, **kept}, partial)


if __name__ == "__main__":
    run_script(main)

"""What each released rule of the training data is worth, beside its mended form, on embedded data.

    python -m experiments.released_rules --out runs/released_rules

From checkpoints/quickstart_base.pth, for each seed, AMC and SelfEQ train as in the quick start, but
with colours: with the mended rules, and with one of them as released. Evaluated on the validation
scenes of RefCOCO+'s embedded twin by the pointing game; the test scenes are not looked at.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from groundwork import engine
from groundwork.experiments.gains import gain_cells
from groundwork.experiments.quick.albef import BASE
from groundwork.experiments.quick.common import CONFIGS, draw
from groundwork.jobs import evaluate, run_script, train

MENDED = ["data.augment=true", "data.jitter_rule=torchvision", "data.paraphrase_rule=whole_words"]
VARIANTS = {
    "no augmentation": ["data.augment=false"],
    "mended": MENDED,
    "colour jitter as released": [*MENDED, "data.jitter_rule=released"],
    "paraphrases as released": [*MENDED, "data.paraphrase_rule=released"],
    "left and right kept in mirrored images": [*MENDED, "data.flip_swaps_words=false"],
}
"""Name -> settings; the second is what the others are compared with."""
COMPARED = [
    (objective, variant)
    for objective in ("amc", "selfeq")
    for variant in VARIANTS
    if (objective, variant) != ("amc", "paraphrases as released")  # AMC reads no paraphrase
]
SPLIT = "val"


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/released_rules"))
    parser.add_argument("--data", type=Path, default=Path("data/embedded"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=150, help="optimiser steps of each model")
    return parser.parse_args(argv)


def pointing(args: argparse.Namespace, objective: str, variant: str, seed: int) -> float:
    """Pointing accuracy in percent of one model of one seed."""
    folder = args.out / f"{objective}_{variant.replace(' ', '_')}_{seed}"
    root = f"roots.embedded={args.data}"
    engine.remove_run(folder)
    train.main(
        ["--config", str(CONFIGS / f"quickstart_{objective}.yaml"), "--checkpoint", str(BASE),
         "--output_dir", str(folder), "--seed", str(seed), "--set", "keep=1", root,
         "stages.0.epochs=1", f"stages.0.steps={args.steps}", *VARIANTS[variant]]
    )  # fmt: skip
    (checkpoint,) = folder.glob("checkpoint_*.pth")
    rows = evaluate.main(
        ["--config", str(CONFIGS / "Grounding_refcoco_tiny.yaml"), "--checkpoint", str(checkpoint),
         "--output_dir", str(folder), "--again", "--set", root, f"data.splits=[{SPLIT}]"]
    )  # fmt: skip
    (value,) = (r["value"] for r in rows if r["system"] == "ALBEF" and r["metric"] == "pointing")
    return value


def main(argv: Sequence[str] | None = None) -> dict[tuple[str, str], list[float]]:
    """Run with command line arguments `argv`; returns the values of all seeds."""
    args = parse_args(argv)
    draw(args.data)
    found = {
        (objective, variant): [pointing(args, objective, variant, seed) for seed in args.seeds]
        for objective, variant in COMPARED
    }
    print("| objective | rules | pointing | s.d. | against mended | s.d. |\n" + "|---" * 6 + "|")
    for (objective, variant), values in found.items():
        spread = f"{stdev(values):.2f}" if len(values) > 1 else ""
        gain = gain_cells(values, found[objective, "mended"])
        print(f"| {objective} | {variant} | {mean(values):.2f} | {spread} | {gain}")
    return found


if __name__ == "__main__":
    run_script(main)

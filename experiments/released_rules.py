"""What each released rule of the training data is worth, beside its mended form, on embedded data.

    python -m experiments.released_rules --out runs/released_rules

From checkpoints/quickstart_base.pth, for each seed, AMC and SelfEQ train as in the quick start, but
with colours: with the mended rules, and with one of them as released. Evaluated on the validation
scenes of RefCOCO+'s embedded twin by the pointing game; the test scenes are not looked at.
"""

import argparse
from collections.abc import Sequence
from statistics import mean, stdev

from groundwork.experiments.gains import gain_cells, make_parser
from groundwork.experiments.quick.albef import BASE
from groundwork.experiments.quick.common import CONFIGS, draw, train_last
from groundwork.jobs import evaluate, run_script

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


def pointing(args: argparse.Namespace, objective: str, variant: str, seed: int) -> float:
    """Pointing accuracy in percent of one model of one seed."""
    folder = args.out / f"{objective}_{variant.replace(' ', '_')}_{seed}"
    root = f"roots.embedded={args.data}"
    settings = ["stages.0.epochs=1", f"stages.0.steps={args.steps}", *VARIANTS[variant]]
    config = f"tiny/quickstart_{objective}"
    checkpoint = train_last(folder, config, seed, root, *settings, start=BASE)
    rows = evaluate.main(
        ["--config", str(CONFIGS / "tiny/Grounding_refcoco.yaml"), "--checkpoint", str(checkpoint),
         "--output_dir", str(folder), "--again", "--set", root, f"data.splits=[{SPLIT}]"]
    )  # fmt: skip
    (value,) = (r["value"] for r in rows if r["system"] == "ALBEF" and r["metric"] == "pointing")
    return value


def main(argv: Sequence[str] | None = None) -> dict[tuple[str, str], list[float]]:
    """Run with command line arguments `argv`; returns the values of all seeds."""
    args = make_parser(__doc__, "released_rules", 150).parse_args(argv)
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

"""What SelfEQ adds to ITC+ITM+MLM, on phrases, on seen and on held-out synonyms; no boxes are used
in training.

    python -m experiments.selfeq_gain --out runs/selfeq_gain

From checkpoints/quickstart_base.pth, for each seed, two models see the same phrases for as many
steps: one with ITC+ITM+MLM, one with SelfEQ. Both are evaluated on scenes that no model saw: the
pointing game on the phrases of RefCOCO+'s embedded twin, and on paraphrases by synonyms that
SelfEQ's list pairs (seen) and that it does not (heldout).
"""

import argparse
from collections.abc import Sequence
from statistics import mean

from groundwork.experiments.gains import gain_cells, make_parser
from groundwork.experiments.quick.albef import BASE
from groundwork.experiments.quick.common import CONFIGS, draw, train_last
from groundwork.jobs import evaluate, run_script
from groundwork.report.results import update_rows
from groundwork.tools import self_consistency

OBJECTIVES = {"itc_itm_mlm": "[itc_itm_mlm]", "selfeq": "[selfeq]"}
SHOWN = ("pointing", "paraphrase pointing", "same object", "both correct", "map correlation")


def train_and_evaluate(args: argparse.Namespace, objective: str, seed: int) -> list[dict]:
    """One model of one seed; returns its rows."""
    folder = args.out / f"{objective}_{seed}"
    root = f"roots.embedded={args.data}"
    objectives = f"stages.0.objective={OBJECTIVES[objective]}"
    settings = [objectives, "stages.0.splits=[relation]", f"stages.0.steps={args.steps}"]
    checkpoint = train_last(folder, "tiny/quickstart_selfeq", seed, root, *settings, start=BASE)
    config = str(CONFIGS / "tiny/Grounding_refcoco.yaml")
    call = ["--config", config, "--checkpoint", str(checkpoint)]
    rows = evaluate.main([*call, "--output_dir", str(folder / "refcoco"), "--again", "--set", root])
    pairs = [f"{split}={args.data / f'paraphrases_{split}.json'}" for split in ("seen", "heldout")]
    rows += self_consistency.main(
        [*call, "--pairs", *pairs, "--output_dir", str(folder / "pairs"), "--set", root]
    )
    return [row | {"checkpoint": f"seed {seed}"} for row in rows if row["system"] == "ALBEF"]


def gains(rows: Sequence[dict]) -> list[str]:
    """One line per split and metric: both means over seeds, and the mean and spread of the gain."""
    lines = [
        "| benchmark | split | metric | itc_itm_mlm | selfeq | gain | s.d. of gain |",
        "|---" * 7 + "|",
    ]
    keys = dict.fromkeys(
        (r["benchmark"], r["split"], r["metric"]) for r in rows if r["metric"] in SHOWN
    )
    for benchmark, split, metric in keys:
        found = {
            objective: [
                row["value"] for row in rows
                if (row["benchmark"], row["split"], row["metric"]) == (benchmark, split, metric)
                and row["objective"] == objective
            ]
            for objective in OBJECTIVES
        }  # fmt: skip
        before, after = found.values()
        lines.append(
            f"| {benchmark} | {split} | {metric} | {mean(before):.2f} | {mean(after):.2f} "
            f"| {gain_cells(after, before)}"
        )
    return lines


def main(argv: Sequence[str] | None = None) -> list[dict]:
    """Run with command line arguments `argv`; returns the rows of results.json."""
    args = make_parser(__doc__, "selfeq_gain", 150).parse_args(argv)
    draw(args.data)
    rows: list[dict] = []
    for seed in args.seeds:
        for objective in OBJECTIVES:
            rows += train_and_evaluate(args, objective, seed)
            update_rows(args.out / "results.json", rows)
    print("\n".join(gains(rows)))
    return rows


if __name__ == "__main__":
    run_script(main)

"""What ALVG's two attention losses add: accuracy after every epoch with and without them.

    python -m experiments.alvg_attention_loss --out runs/alvg_attention_loss

The paper claims that a network which is told where to look learns faster. For each seed, the recipe
configs/tiny/alvg/refcoco+.yaml is trained twice from the same random weights, on the same samples
in the same order; once `score_attention` and `decoder_attention` weigh nothing. Acc@0.5 is that of
the validation split, whose scenes are not trained on. Rates and the losses' weights were found for
the variant with them; the other uses the same and was not tuned by itself.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from groundwork import engine
from groundwork.experiments.gains import gain_cells, make_parser
from groundwork.experiments.quick.common import draw
from groundwork.files.json_lines import JsonLines
from groundwork.files.safe import write_text
from groundwork.jobs import run_script, train
from groundwork.report.results import update_rows

CONFIG = Path(__file__).parent.parent / "configs/tiny/alvg/refcoco+.yaml"
WITHOUT = ["model.weights.score_attention=0", "model.weights.decoder_attention=0"]
VARIANTS: dict[str, list[str]] = {"with": [], "without": WITHOUT}
METRIC = "Acc@0.5"


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__, "alvg_attention_loss", 100)
    parser.add_argument("--epochs", type=int, default=3, help="after that of one-object scenes")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of the config")
    return parser.parse_args(argv)


def train_once(args: argparse.Namespace, variant: str, seed: int) -> list[dict]:
    """One model; returns a row per epoch."""
    folder = args.out / f"{variant}_{seed}"
    engine.remove_run(folder)
    train.main(
        ["--config", str(CONFIG), "--output_dir", str(folder), "--seed", str(seed), "--set",
         f"roots.embedded={args.data}", "keep=1", f"epochs={args.epochs}", f"steps={args.steps}",
         "select.every=1", *VARIANTS[variant], *args.set]
    )  # fmt: skip
    rows = JsonLines(folder / "log.txt").rows()
    return [
        {
            "system": "ALVG",
            "objective": f"{variant} attention losses",
            "checkpoint": f"seed {seed}, {row['global_step']} steps",
            "benchmark": "embedded/refcoco+",
            "split": "val",
            "metric": METRIC,
            "value": row[METRIC],
            "variant": variant,
            "seed": seed,
            "steps": row["global_step"],
        }
        for row in rows
        if row["kind"] == "validation"
    ]


def table(rows: Sequence[dict]) -> list[str]:
    """One line per epoch: means over seeds of both, and mean and spread of the difference."""
    lines = ["| steps | with | without | gain | s.d. of gain |", "|---" * 5 + "|"]
    for steps in dict.fromkeys(row["steps"] for row in rows):
        values = {
            variant: [r["value"] for r in rows if (r["steps"], r["variant"]) == (steps, variant)]
            for variant in VARIANTS
        }
        told, untold = values.values()
        lines.append(
            f"| {steps} | {mean(told):.2f} | {mean(untold):.2f} | {gain_cells(told, untold)}"
        )
    return lines


def main(argv: Sequence[str] | None = None) -> list[dict]:
    """Run with command line arguments `argv`; returns the rows of results.json."""
    args = parse_args(argv)
    draw(args.data, trees=True)
    rows: list[dict] = []
    for seed in args.seeds:
        for variant in VARIANTS:
            rows += train_once(args, variant, seed)
            update_rows(args.out / "results.json", rows)
    write_text(args.out / "table.md", "\n".join(table(rows)) + "\n")
    print("\n".join(table(rows)))
    return rows


if __name__ == "__main__":
    run_script(main)

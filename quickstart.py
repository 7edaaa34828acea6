"""The whole of the project's main job in minutes, on a data set that it draws itself.

    python quickstart.py                 (or `make quickstart`, which also installs what is needed)
    python quickstart.py --parts reftr without_boxes alvg     (or `make quickstart-all`: all parts)

Draws the embedded data set, trains small models with the real scripts, evaluates each with the real
evaluation scripts on scenes that none of them saw, and writes one table and one page with images.
Every part is described at the head of its file, experiments/quick/PART.py.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from groundwork import utils
from groundwork.experiments.quick import albef, alvg, reftr, without_boxes
from groundwork.experiments.quick.common import EXPECTED, draw
from groundwork.jobs import run_script
from groundwork.report.pages import Samples, markdown, write_report
from groundwork.report.results import ROW_KEY, Row, merge_rows
from groundwork.report.seeds import read_seed_rows

SCENES = 6000
PARTS = {
    "albef": albef.run,
    "reftr": reftr.run,
    "without_boxes": without_boxes.run,
    "alvg": alvg.run,
}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=[*PARTS, "all"], default=["albef"])
    parser.add_argument("--models", nargs="+", choices=albef.MODELS, help="of part albef; all")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--data", type=Path, default=Path("data/embedded"))
    parser.add_argument("--scenes", type=int, default=SCENES, help="how many to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="training config")
    return parser.parse_args(argv)


def compared(rows: Sequence[Row]) -> list[str]:
    """What numbers should have been, by runs with other seeds: lines of text.

    Of the pointing game each, of other metrics those that lie outside, then how many do not.
    """
    if not EXPECTED.is_file():
        return []
    processor, known = read_seed_rows(EXPECTED)
    expected = {row.key: row for row in known}
    lines, within, wide, all_compared = [f"Beside other runs ({processor}):"], 0, 0, 0
    for row in rows:
        other = expected.get(tuple(str(row[name]) for name in ROW_KEY))
        if other is None or row["value"] is None or other.runs < 2:
            continue
        value, (low, high) = float(str(row["value"])), other.expected()
        met = low <= value <= high
        all_compared, within = all_compared + 1, within + met
        wide += (low, high) == other.scale
        if met and other.metric != "pointing":
            continue
        lines.append(
            f"  {Path(other.checkpoint).stem or other.system}, {other.benchmark} {other.split}, "
            f"{other.metric}: {value:.2f}; {other.runs} runs gave {other.mean:.2f} "
            f"(s.d. {other.sd:.2f}), expected {low:.2f} to {high:.2f}: "
            + ("as expected" if met else "NOT as expected")
        )
    lines.append(f"  {within} of {all_compared} numbers of all metrics are as expected")
    if wide:
        lines.append(
            f"  {wide} of {all_compared} ranges are as wide as the scale: those runs"
            " differ too much to expect anything of another"
        )
    return lines if all_compared else []


def main(argv: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Run with command line arguments `argv`; returns the rows of results.json."""
    args = parse_args(argv)
    utils.setup_logging()
    began = time.perf_counter()
    parts = list(PARTS) if "all" in args.parts else args.parts
    draw(args.data, scenes=args.scenes, seed=args.seed, trees=parts != ["albef"])
    rows: list[dict[str, object]] = []
    samples: list[Samples] = []
    for part in parts:
        new, images = PARTS[part](args)
        rows, samples = merge_rows(rows, new), samples + images
    write_report(args.out, rows, samples, title="Quick start: the embedded data set")
    print(markdown(rows))
    if args.scenes == SCENES and not args.set:
        print("\n".join(compared(rows)))
    minutes = (time.perf_counter() - began) / 60
    print(f"{minutes:.1f} minutes. Report with images: {args.out / 'index.html'}")
    return rows


if __name__ == "__main__":
    run_script(main)

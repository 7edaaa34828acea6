"""Compare two evaluations of the same expressions, of any systems, pair by pair.

    python compare.py runs/a/results runs/b/results --out runs/a_and_b

Each is a predictions_*.jsonl file, or a folder with one, as test.py leaves it. By how much the
second is better, with a 95 % bootstrap interval that draws whole images; McNemar's exact test; the
same per split and group of expressions; with --out a page of the samples won and lost.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from groundwork.jobs import run_script
from groundwork.report import compare


def main(argv: Sequence[str] | None = None) -> list[compare.Line]:
    """Run with command line arguments `argv`; returns the lines of the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=Path, help="predictions file, or a folder with one")
    parser.add_argument("second", type=Path, help="the same of the other evaluation")
    parser.add_argument("--benchmark", help="which one, if the folders hold several")
    parser.add_argument("--metric", choices=compare.VERDICTS, help="default: what both give")
    parser.add_argument("--out", type=Path, help="folder that receives the page")
    parser.add_argument("--image_root", help="folder of the images, if they moved")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    args = parser.parse_args(argv)
    if args.out is not None and (args.out / "results.json").exists():
        raise ValueError(
            f"--out {args.out} holds an evaluation, whose page this one would replace; name another"
            " folder"
        )
    (first, ones), (second, others) = (
        compare.evaluation_of(folder, args.benchmark) for folder in (args.first, args.second)
    )
    pairs = compare.paired(ones, others)
    if not pairs:
        raise ValueError(
            f"{args.first} and {args.second} have no expression in common: {first.benchmark} "
            f"({', '.join(first.splits)}), and {second.benchmark} ({', '.join(second.splits)})"
        )
    verdict = args.metric or compare.verdict_of(first, second, pairs)
    lines = compare.compare(pairs, verdict, seed=args.seed)
    print(f"A: {compare.name_of(first)}\nB: {compare.name_of(second)}")
    print(f"{verdict}, {len(pairs)} expressions of {len(ones)} and {len(others)}\n")
    print(compare.markdown(lines))
    if args.out is not None:
        page, runs = args.out / "index.html", (first, second)
        root = args.image_root
        print(compare.write_comparison(page, runs, pairs, verdict, lines, image_root=root))
    return lines


if __name__ == "__main__":
    run_script(main)

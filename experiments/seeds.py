"""The quick start over several seeds and numbers of threads: how far apart its runs are.

    python -m experiments.seeds --out runs/seeds --seeds 0 1 2 3 4 --threads 1 2
    python -m experiments.seeds --parts reftr --seeds 0 1 2

Every run is `quickstart.py` in a process of its own, on one data set. A run that is done is not
done again. Prints the mean and spread of every metric; --expect writes them as what
`quickstart.py` compares its own numbers with.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

from groundwork import utils
from groundwork.experiments.gains import make_parser
from groundwork.experiments.quick.common import EXPECTED, ROOT, draw
from groundwork.jobs import run_script
from groundwork.report.results import read_rows
from groundwork.report.seeds import SeedRow, over_seeds, seed_table, write_seed_rows


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__, "seeds")
    parser.add_argument("--parts", nargs="+", default=["albef"], help="as of quickstart.py")
    parser.add_argument("--models", nargs="+", default=[], help="as of quickstart.py")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--scenes", type=int, default=6000)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="training config")
    parser.add_argument("--expect", action="store_true", help=f"write {EXPECTED.name}")
    return parser.parse_args(argv)


def run(args: argparse.Namespace, seed: int, threads: int) -> list[dict]:
    """The rows of one run, which is made unless it is there."""
    folder = args.out / f"seed_{seed}_threads_{threads}"
    if not (folder / "results.json").is_file():
        call = [sys.executable, str(ROOT / "quickstart.py"), "--out", str(folder)]
        call += ["--data", str(args.data), "--scenes", str(args.scenes), "--seed", str(seed)]
        for flag in ("parts", "models", "set"):
            call += [f"--{flag}", *getattr(args, flag)] * bool(getattr(args, flag))
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        if subprocess.run(call, check=False, env=environment).returncode:
            raise SystemExit(f"error: the run into {folder} failed; its error stands above")
    return read_rows(folder / "results.json")


def main(argv: Sequence[str] | None = None) -> list[SeedRow]:
    """Run with command line arguments `argv`; returns the rows over all runs."""
    args = parse_args(argv)
    draw(args.data, scenes=args.scenes, trees=args.parts != ["albef"])
    runs = [run(args, seed, threads) for threads in args.threads for seed in args.seeds]
    rows = over_seeds(runs)
    print(f"{len(runs)} runs, {utils.processor_name()}, threads {args.threads}")
    print(seed_table(rows))
    write_seed_rows(args.out / "seeds.json", utils.processor_name(), rows)
    if args.expect:
        write_seed_rows(EXPECTED, utils.processor_name(), rows)
    return rows


if __name__ == "__main__":
    run_script(main)

"""python -m tests.fuzz: thousands of malformed inputs for every reader, and what became of them."""

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from groundwork.dataset.synthetic import write_dataset
from tests.fuzz import campaign
from tests.fuzz.readers import READERS


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=2000, help="generated, per reader (2000)")
    parser.add_argument("--readers", nargs="+", default=[r.name for r in READERS], metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="receives the shortest input of every failure")
    return parser.parse_args(argv)


def attempt(name: str, root: str, count: int, seed: int) -> campaign.Report:
    """One reader, in a process of its own."""
    (reader,) = (reader for reader in READERS if reader.name == name)
    folder = Path(root, "work", name.replace(" ", "_"))
    return campaign.run(reader, Path(root, "embedded"), folder, count, seed)


def keep(report: campaign.Report, folder: Path) -> None:
    """Writes the shortest input of every failure."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (_, name, content) in enumerate(report.failures.values()):
        file = f"{report.reader}.{number}.{Path(name).name}".replace(" ", "_")
        (folder / file).write_bytes(content)


def main(argv: Sequence[str] | None = None) -> int:
    """Run with command line arguments; returns the exit code, 1 if an input was met badly."""
    args = parse_args(argv)
    logging.disable(logging.WARNING)  # what the readers note
    failed = 0
    with tempfile.TemporaryDirectory() as root:
        write_dataset(Path(root, "embedded"), scenes=20, seed=5)
        with ProcessPoolExecutor(args.processes, get_context("fork")) as pool:
            tasks = [
                pool.submit(attempt, name, root, args.inputs, args.seed) for name in args.readers
            ]
            for task in tasks:
                report = task.result()
                print(report, flush=True)
                failed += report.failed
                if args.keep:
                    keep(report, args.keep)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

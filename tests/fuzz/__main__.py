"""python -m tests.fuzz: thousands of malformed inputs for every reader, and what became of them.

With --out the counts of this run are written as a table of Markdown.
"""

import argparse
import logging
import re
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from groundwork.dataset.synthetic import write_dataset
from tests.fuzz import campaign
from tests.fuzz.found import FOUND
from tests.fuzz.oracle import BYTES, SECONDS
from tests.fuzz.readers import PAIRS, READERS

EVERY = (*READERS, *PAIRS)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=2000, help="generated, per reader (2000)")
    parser.add_argument("--readers", nargs="+", default=[r.name for r in EVERY], metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="receives the shortest input of every failure")
    parser.add_argument("--out", type=Path, help="receives the table")
    return parser.parse_args(argv)


def table(reports: Sequence[campaign.Report], args: argparse.Namespace) -> str:
    """The counts of all readers as Markdown."""
    lines = [
        "# Malformed input",
        "",
        f"Written by `python -m tests.fuzz --inputs {args.inputs} --out FILE` (seed {args.seed}).",
        "A reader's input is a sound file with values dropped, replaced, retyped, repeated or"
        " renamed, with bytes cut off, flipped, removed or added,",
        "or another file altogether. It has to be read, or refused by one line that names the file,"
        f" within {SECONDS:g} s and {BYTES >> 30} GiB. *Found before* counts",
        "inputs that once ended in an error of a library, an unnamed file, or an endless message"
        " ([tests/fuzz/found.py](../tests/fuzz/found.py)), *mended* those that are met",
        "as they should be in this run. *Check and run*: `tools.check_data` and the loaders"
        " of a run were given the same lists and had to agree.",
        "",
        "| reader | inputs | read | refused | failures | found before | mended |",
        "|---|---|---|---|---|---|---|",
    ]
    totals = [0] * 6
    for report in reports:
        before = sum(one.reader == report.reader for one in FOUND)
        read = report.inputs - report.refused - report.failed
        row = [report.inputs, read, report.refused, report.failed, before, report.mended]
        totals = [total + one for total, one in zip(totals, row, strict=True)]
        lines.append(f"| {report.reader} | " + " | ".join(f"{one:,}" for one in row) + " |")
    lines.append("| **all** | " + " | ".join(f"**{one:,}**" for one in totals) + " |")
    return "\n".join(lines) + "\n"


def attempt(name: str, root: str, count: int, seed: int) -> campaign.Report:
    """One reader, in a process of its own."""
    (reader,) = (reader for reader in EVERY if reader.name == name)
    folder = Path(root, "work", re.sub(r"\W+", "_", name))
    # What is read from images takes as long as twenty lists.
    count = max(1, count // 20) if reader in PAIRS else count
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
    reports = []
    with tempfile.TemporaryDirectory() as root:
        write_dataset(Path(root, "embedded"), scenes=20, seed=5)
        with ProcessPoolExecutor(args.processes, get_context("fork")) as pool:
            tasks = [
                pool.submit(attempt, name, root, args.inputs, args.seed) for name in args.readers
            ]
            for task in tasks:
                report = task.result()
                print(report, flush=True)
                reports.append(report)
                if args.keep:
                    keep(report, args.keep)
    if args.out:
        args.out.write_text(table(reports, args), encoding="utf-8")
    return 1 if any(report.failed for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())

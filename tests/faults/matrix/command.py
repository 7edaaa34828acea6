"""The command: all faults of all jobs, and their table."""

import argparse
import json
import platform
import random
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from groundwork.experiments.pages import replace_between
from groundwork.files.safe import write_text
from groundwork.utils import processor_name
from tests.faults.matrix.jobs import Bench, Job, jobs
from tests.faults.matrix.scenarios import KILLED, KILLED_WRITING, SCENARIOS
from tests.faults.matrix.trial import Tried

BEGIN, END = "<!-- made by python -m tests.faults -->", "<!-- end of what is made -->"
_KILLS = 50


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    from tests.faults import __main__

    parser = argparse.ArgumentParser(
        description=__main__.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/faults"))
    parser.add_argument("--jobs", nargs="+", help="kinds or names; all")
    parser.add_argument("--faults", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--kills", type=int, default=_KILLS, help=f"SIGKILLs, over all jobs ({_KILLS})"
    )
    parser.add_argument("--write", type=Path, metavar="PAGE", help="whose table is made anew")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> list[Tried]:
    """Run with command line arguments; returns every trial.

    Raises:
        SystemExit: something did not hold; all of it is said, and in OUT/trials.json.
    """
    args = parse_args(argv)
    began = time.monotonic()
    chosen = [job for job in jobs() if not args.jobs or {job.kind, job.name} & set(args.jobs)]
    shutil.rmtree(args.out, ignore_errors=True)
    bench = Bench(args.out.absolute())
    tried = []
    for one in trials(bench, chosen, args):
        verdict = "survived" if one.survived else f"WRONG: {'; '.join(one.wrong)}"
        name = f"{one.job.kind} {one.job.name}"
        print(f"{one.seconds:6.1f} s  {name}: {one.fault}, {one.what}: {verdict}", flush=True)
        tried.append(one)
    rows = [asdict(one) | {"survived": one.survived} for one in tried]
    write_text(args.out / "trials.json", json.dumps(rows, indent=1) + "\n")
    text = table(tried, args, (time.monotonic() - began) / 60)
    print(text)
    if args.write:
        replace_between(args.write, BEGIN, END, text)
    if failed := sum(not one.survived for one in tried):
        raise SystemExit(f"{failed} of {len(tried)} faults were not survived, see {args.out}")
    return tried


def trials(bench: Bench, chosen: Sequence[Job], args: argparse.Namespace) -> Iterator[Tried]:
    """Every fault on every job, drawn by the seed, the job and the fault alone."""

    def draws(job: Job, fault: str, number: int = 0) -> random.Random:
        return random.Random(zlib.crc32(f"{args.seed} {job} {fault} {number}".encode()))

    def tries(job: Job, fault: str, number: int = 0) -> Iterator[Tried]:
        try:
            yield from SCENARIOS[fault](bench, job, draws(job, fault, number))
        except RuntimeError as error:  # the undisturbed call fails
            yield Tried(job, fault, "nothing", False, (str(error),), 0.0)

    for job in chosen:
        for fault in args.faults:
            if fault not in (KILLED, KILLED_WRITING):
                yield from tries(job, fault)
    kills = [fault for fault in (KILLED, KILLED_WRITING) if fault in args.faults]
    for number in range(args.kills if kills else 0):
        # Every job by turns, and every job in every way.
        turn, place = divmod(number, len(chosen))
        job, fault = chosen[place], kills[(turn + place) % len(kills)]
        yield from tries(job, fault, number)


def table(tried: Sequence[Tried], args: argparse.Namespace, minutes: float) -> str:
    """What was tried and survived, by job and fault, and by what it was computed."""
    faults = [fault for fault in SCENARIOS if any(one.fault == fault for one in tried)]
    rows = list(dict.fromkeys((one.job.kind, one.job.name) for one in tried))
    lines = [f"| job | {' | '.join(faults)} |", f"|---|{'---|' * len(faults)}"]
    for kind, name in rows:
        of_job = [one for one in tried if (one.job.kind, one.job.name) == (kind, name)]
        cells = [_cell([one for one in of_job if one.fault == fault]) for fault in faults]
        lines.append(f"| {kind}, {name} | {' | '.join(cells)} |")
    cells = [_cell([one for one in tried if one.fault == fault]) for fault in faults]
    lines.append(f"| **all** | {' | '.join(cells)} |")
    survived, ended = (sum(getattr(one, key) for one in tried) for key in ("survived", "hit"))
    writing = [one.what for one in tried if one.fault == KILLED_WRITING and one.hit]
    kinds = {kind: sum(f"a {kind}" in what for what in writing) for kind in _KINDS}
    inside = ", ".join(f"{number} of a {kind}" for kind, number in kinds.items())
    return "\n".join(
        [
            *lines,
            "",
            f"{survived} of {len(tried)} survived; {ended} of the faults ended the job that they"
            f" met. SIGKILLs that hit the writing of a file: {inside}. Seed {args.seed},"
            f" {time.strftime('%d %B %Y')}, {minutes:.0f} minutes on {processor_name()}, Python"
            f" {platform.python_version()}, torch {torch.__version__}.",
        ]
    )


_KINDS = ("checkpoint", "cache", "log", "result")


def _cell(tried: Sequence[Tried]) -> str:
    return f"{sum(one.survived for one in tried)}/{len(tried)}" if tried else ""

"""The command: all faults of all jobs, and their table."""

import argparse
import json
import multiprocessing
import platform
import random
import shlex
import shutil
import time
import traceback
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch

from groundwork.files.safe import write_text
from groundwork.utils import processor_name
from tests.faults.matrix import page
from tests.faults.matrix.jobs import Bench, Job, jobs
from tests.faults.matrix.scenarios import KILLED, KILLED_WRITING, SCENARIOS
from tests.faults.matrix.trial import Tried

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
    parser.add_argument("--at-once", type=int, default=2, metavar="N", help="jobs at a time (2)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="whose table gets these trials")
    args = parser.parse_args(argv)
    if args.at_once < 1:
        parser.error(f"--at-once {args.at_once}: give 1 or more")
    return args


def main(argv: Sequence[str] | None = None) -> list[Tried]:
    """Run with command line arguments; returns every trial.

    Raises:
        SystemExit: something did not hold; all of it is said, and in OUT/trials.json.
    """
    args = parse_args(argv)
    began = time.monotonic()
    chosen = [job for job in jobs() if not args.jobs or {job.kind, job.name} & set(args.jobs)]
    shutil.rmtree(args.out, ignore_errors=True)
    tried: list[Tried] = []
    before = args.write.read_text(encoding="utf-8") if args.write else ""
    for one in trials(args.out.absolute(), chosen, args):
        verdict = "survived" if one.survived else f"WRONG: {'; '.join(one.wrong)}"
        name = f"{one.job.kind} {one.job.name}"
        print(f"{one.seconds:6.1f} s  {name}: {one.fault}, {one.what}: {verdict}", flush=True)
        tried.append(one)
        # After each: a run that is ended has lost nothing that it tried.
        rows = [asdict(one) | {"survived": one.survived} for one in tried]
        write_text(args.out / "trials.json", json.dumps(rows, indent=1) + "\n")
        said = summary(tried, (time.monotonic() - began) / 60)
        if args.write:
            text = page.with_trials(before, tried, command(args), said)
            write_text(args.write, text)
    print(f"{page.table(page.count(tried))}\n{said}")
    if failed := sum(not one.survived for one in tried):
        raise SystemExit(f"{failed} of {len(tried)} faults were not survived, see {args.out}")
    return tried


def trials(root: Path, chosen: Sequence[Job], args: argparse.Namespace) -> Iterator[Tried]:
    """Every fault on every job, drawn by the seed, the job and the fault alone; jobs are tried by
    `args.at_once` processes, each of them in a folder of its own.

    Raises:
        RuntimeError: one of these processes ended before its time.
    """
    context = multiprocessing.get_context("fork")
    left, found = context.SimpleQueue(), context.SimpleQueue()
    for one in (*plan(chosen, args), *[None] * args.at_once):
        left.put(one)
    workers = [
        context.Process(target=_work, args=(root / str(number), left, found, args.seed))
        for number in range(args.at_once)
    ]
    for worker in workers:
        worker.start()
    try:
        for _ in workers:
            while (one := found.get()) is not None:
                if isinstance(one, str):
                    raise RuntimeError(one)
                yield one
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _work(root: Path, left: SimpleQueue[Any], found: SimpleQueue[Any], seed: int) -> None:
    """Tries jobs until there are none; None is the end, a text what went wrong in here."""
    try:
        bench = Bench(root)
        while (planned := left.get()) is not None:
            job, faults = planned
            for fault, number in faults:
                for one in tries(bench, job, fault, seed, number):
                    found.put(one)
        found.put(None)
    except Exception:  # noqa: BLE001 (it is raised in the other process)
        found.put(traceback.format_exc())


def plan(
    chosen: Sequence[Job], args: argparse.Namespace
) -> list[tuple[Job, list[tuple[str, int]]]]:
    """Every job with its faults, each with the number of its draw."""
    kills = [fault for fault in (KILLED, KILLED_WRITING) if fault in args.faults]
    others = [(fault, 0) for fault in args.faults if fault not in kills]
    planned = [(job, list(others)) for job in chosen]
    for number in range(args.kills if kills else 0):
        # Every job by turns, and every job in every way.
        turn, place = divmod(number, len(chosen))
        planned[place][1].append((kills[(turn + place) % len(kills)], number))
    return planned


def tries(bench: Bench, job: Job, fault: str, seed: int, number: int) -> Iterator[Tried]:
    """One fault on one job."""
    draws = random.Random(zlib.crc32(f"{seed} {job} {fault} {number}".encode()))
    try:
        yield from SCENARIOS[fault](bench, job, draws)
    except RuntimeError as error:  # the undisturbed call fails
        yield Tried(job, fault, "nothing", False, (str(error),), 0.0)


def command(args: argparse.Namespace) -> str:
    """What makes the same trials again."""
    words = ["python", "-m", "tests.faults"]
    words += ["--jobs", *args.jobs] if args.jobs else []
    words += ["--faults", *args.faults] if args.faults != list(SCENARIOS) else []
    words += ["--kills", str(args.kills)] if args.kills != _KILLS else []
    words += ["--seed", str(args.seed)] if args.seed else []
    return f"`{shlex.join(words)}`"


def summary(tried: Sequence[Tried], minutes: float) -> str:
    """How many survived, what the faults met, and by what it was computed."""
    survived, ended = (sum(getattr(one, key) for one in tried) for key in ("survived", "hit"))
    writing = [one.what for one in tried if one.fault == KILLED_WRITING and one.hit]
    kinds = {kind: sum(f"a {kind}" in what for what in writing) for kind in _KINDS}
    inside = ", ".join(f"{number} of a {kind}" for kind, number in kinds.items())
    return (
        f"{survived} of {len(tried)} survived; {ended} of the faults ended the job that they met."
        f" SIGKILLs that hit the writing of a file: {inside}. {time.strftime('%d %B %Y')},"
        f" {minutes:.0f} minutes on {processor_name()}, Python {platform.python_version()}, torch"
        f" {torch.__version__}."
    )


_KINDS = ("checkpoint", "cache", "log", "result")

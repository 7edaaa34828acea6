"""A job that is disturbed and called again, and what must hold of it."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.matrix.comparison import differences, unreadable
from tests.faults.matrix.injections import Injection
from tests.faults.matrix.jobs import OUT, Bench, Job
from tests.faults.matrix.processes import Call, Ended, Running, start
from tests.helpers.fork_server import addresses

TIMEOUT = 10
"""Seconds that a process of a group waits for another one in these runs."""


@dataclass(frozen=True)
class Tried:
    """One fault that was brought upon one job.

    what: what exactly. hit: whether it ended the job. wrong: what did not hold.
    """

    job: Job
    fault: str
    what: str
    hit: bool
    wrong: tuple[str, ...]
    seconds: float

    @property
    def survived(self) -> bool:
        return not self.wrong


class Trial:
    """A job in a folder of its own, beside what it gives undisturbed."""

    def __init__(self, bench: Bench, job: Job, *, processes: int = 1) -> None:
        self.bench, self.job = bench, job
        self.reference = undisturbed(bench, job, processes)
        self.folder = bench.place()
        self.wrong: list[str] = []
        self._began = time.monotonic()
        self._runs = 0

    def start(self, *injections: Injection, call: Call | None = None) -> Running:
        """The call under way."""
        self._runs += 1
        log = self.bench.root / f"{self.folder.name}.{self._runs}.said"
        return start(call or self.job.call, self.folder, log, injections)

    def run(self, *injections: Injection, call: Call | None = None) -> Ended:
        """The call, to its end."""
        return self.start(*injections, call=call).wait()

    def expect(self, ended: Ended, *, killed: bool = False) -> bool:
        """Note what is wrong with how a disturbed job ended: it hung, said nothing, or left a file
        that is half there. Returns whether the fault ended it."""
        if ended.code is None:
            self.wrong.append("hung")
        elif ended.code < 0 and not killed:
            self.wrong.append(f"died of signal {-ended.code}: {ended.message}")
        elif ended.code > 0 and not ended.message:
            self.wrong.append("ended without a message")
        self.wrong += [f"half there: {one}" for one in unreadable(self.folder / OUT)]
        return ended.code != 0

    def expect_sentence(self, ended: Ended) -> None:
        """Note it if the user is shown no sentence with a remedy."""
        if "error: " not in ended.said:  # a progress bar may stand before it in its line
            self.wrong.append(f"no sentence: {ended.message}")

    def again(self) -> None:
        """The same call, once more: it goes on, to what the undisturbed one gives."""
        self.finished([self.run()])

    def finished(self, ended: list[Ended]) -> None:
        """Note what is wrong with a call that should have given what the undisturbed one gives."""
        done = self.job.done
        failed = [one for one in ended if one.code != 0 and not (done and done in one.message)]
        if failed:
            self.wrong += [f"the same call ends with {one.code}: {one.message}" for one in failed]
        else:
            self.wrong += differences(self.folder / OUT, self.reference / OUT)

    def done(self, fault: str, what: str, *, hit: bool = True) -> Tried:
        """The result; the folder stays only if something is wrong."""
        if not self.wrong:
            shutil.rmtree(self.folder)
        seconds = time.monotonic() - self._began
        return Tried(self.job, fault, what, hit, tuple(self.wrong), seconds)


def group(bench: Bench, job: Job, folder: Path, *of_second: Injection) -> list[Ended]:
    """Two processes of one group, which wait for one another `TIMEOUT` seconds; the faults are
    those of the second, which is waited for only if the first succeeds."""
    # Which of them computes what a cache keeps, and with which images, is a race for its last bit.
    argv = ("model.cache=null" if one.startswith("model.cache=") else one for one in job.call.argv)
    call = Call(job.call.door, ("--timeout", str(TIMEOUT), *argv))
    ranks = [
        start(
            call,
            folder,
            bench.root / f"{folder.name}.rank{rank}.said",
            of_second if rank else (),
            address,
        )
        for rank, address in enumerate(addresses(2))
    ]
    first = ranks[0].wait()
    return [first, ranks[1].wait() if first.code == 0 else ranks[1].wait(0)]


def undisturbed(bench: Bench, job: Job, processes: int) -> Path:
    """The folder in which the job worked undisturbed, in one process or two; made once."""
    if processes == 1:
        return bench.reference(job.call).folder
    if job.call not in bench.of_two:
        folder = bench.place()
        ended = group(bench, job, folder)
        if any(one.code != 0 for one in ended):
            raise RuntimeError(f"{job.call} in two processes: {ended}")
        bench.of_two[job.call] = folder
    return bench.of_two[job.call]


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """A disk of `size` bytes in the place of the folder; yields whether this machine lets us mount
    one."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = os.geteuid() == 0 and mount(folder, f"size={size}", "-t", "tmpfs", "tmpfs")
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def mount(folder: Path, options: str, *more: str) -> bool:
    """Mount, or mount again with other options."""
    done = subprocess.run(
        ["mount", "-o", options, *more, str(folder)], check=False, capture_output=True
    )
    return done.returncode == 0

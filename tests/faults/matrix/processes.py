"""Jobs in processes of their own, forked from one that has imported everything."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tests.faults.matrix.injections import Injection
from tests.helpers.fork_server import fork_server

PATIENCE = 120.0
"""Seconds after which a job counts as one that hangs; one takes some seconds."""


@dataclass(frozen=True)
class Call:
    """A command: door: of `doors.DOORS`; argv: what follows its name."""

    door: str
    argv: tuple[str, ...]


@dataclass(frozen=True)
class Ended:
    """code: exit status, the negative signal of one that was killed, None of one that hung and was
    ended by the test; said: on standard output and error."""

    code: int | None
    seconds: float
    said: str

    @property
    def message(self) -> str:
        """The last line of what was said."""
        lines = [line for line in self.said.splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""


@dataclass
class Running:
    """A job under way, with all processes that it started."""

    process: ForkServerProcess
    log: Path
    began: float = field(default_factory=time.monotonic)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the job's first process, as `kill PID` does."""
        if self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, number)

    def wait(self, patience: float = PATIENCE) -> Ended:
        """Wait for its end; what it leaves running, or all of it after `patience`, is killed."""
        self.process.join(patience)
        code, seconds = self.process.exitcode, time.monotonic() - self.began
        if self.process.pid is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # nothing is left
        self.process.join()
        return Ended(code, seconds, self.log.read_text(encoding="utf-8", errors="replace"))


def start(
    call: Call,
    folder: Path,
    log: Path,
    injections: Sequence[Injection] = (),
    environment: Mapping[str, str] | None = None,
) -> Running:
    """Run a command in `folder`; what it says goes to `log`."""
    log.write_bytes(b"")
    process = fork_server().Process(
        target=_run, args=(call, folder, log, tuple(injections), dict(environment or {}))
    )
    process.start()
    return Running(process, log)


def _run(
    call: Call,
    folder: Path,
    log: Path,
    injections: Sequence[Injection],
    environment: Mapping[str, str],
) -> None:
    import torch

    from groundwork.jobs import run_script
    from tests.faults.matrix.doors import DOORS as doors

    os.setsid()  # a group of its own, so that its loading processes can be ended with it
    handle = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.chdir(folder)
    os.environ.update(environment)
    sys.argv = [f"{call.door}.py", *call.argv]
    torch.set_num_threads(1)
    # Loading processes fork as they do under a script; here they would import everything again.
    multiprocessing.set_start_method("fork", force=True)
    for injection in injections:
        injection.install()
    run_script(lambda: doors[call.door](list(call.argv)))

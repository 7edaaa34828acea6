"""Faults that a process brings upon itself, without a hook in the code that is tested.

What it does to files below its working folder is heard by an audit hook of Python: the opening of a
file to write or to read, its renaming and its removal, each of them before it happens.
"""

import errno
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal, Protocol

from groundwork.files.lock import LOCK

_HIDDEN = re.compile(r"\.\w+\.tmp$")
Kind = Literal["write", "append", "rename", "remove", "read"]
DATA = ("data", "photos", "raw", "weights")
"""Folders, below the working one, of what a job is given."""


class Injection(Protocol):
    """Something that is made to happen in this process."""

    def install(self) -> None: ...


@dataclass(frozen=True)
class Event:
    """path: relative to the working folder."""

    kind: Kind
    path: str

    @property
    def changes(self) -> bool:
        """Whether it changes a file that the job makes."""
        return self.kind != "read"

    @property
    def deed(self) -> tuple[Kind, str]:
        """What is done to which file, alike in every run: what is being written has a hidden name
        of its own each time."""
        return self.kind, _HIDDEN.sub(".tmp", self.path)

    @property
    def what(self) -> str:
        """What kind of file: checkpoint, cache, curves, log or result."""
        name = Path(self.path).name
        if "tensorboard" in self.path:
            return "curves"
        if self.path.startswith("cache"):
            return "cache"
        if "checkpoint" in name or ".ckpt" in name:
            return "checkpoint"
        return "log" if ".txt" in name and "words" not in name else "result"


def hear(act: Callable[[Event], None]) -> None:
    """Call `act` before every event; in loading processes, too."""
    root = os.getcwd() + os.sep
    busy = False

    def hook(name: str, args: tuple[Any, ...]) -> None:
        nonlocal busy
        if busy or name not in _KINDS:
            return
        busy = True
        try:
            if event := _event(name, args, root):
                act(event)
        finally:
            busy = False

    sys.addaudithook(hook)


_KINDS: dict[str, Kind] = {"open": "write", "os.rename": "rename", "os.remove": "remove"}


def _event(name: str, args: tuple[Any, ...], root: str) -> Event | None:
    if not isinstance(args[0], str | bytes | os.PathLike):
        return None
    path = os.path.abspath(os.fsdecode(args[0]))
    if not path.startswith(root) or os.path.isdir(path) or path.endswith(LOCK):
        return None
    below, kind = path.removeprefix(root), _KINDS[name]
    if name == "open":
        flags = args[2]
        if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            kind = "read"
        elif flags & os.O_APPEND:
            kind = "append"
    given = below.startswith(tuple(f"{folder}{os.sep}" for folder in DATA))
    return Event(kind, below) if given == (kind == "read") else None


@dataclass(frozen=True)
class Record:
    """Writes every event of the first process to a file, a JSON list per line."""

    path: Path

    def install(self) -> None:
        handle, pid = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), os.getpid()

        def act(event: Event) -> None:
            if os.getpid() == pid:
                os.write(handle, json.dumps([event.kind, event.path]).encode() + b"\n")

        hear(act)

    def events(self) -> list[Event]:
        return [Event(*json.loads(line)) for line in self.path.read_text().splitlines()]


@dataclass(frozen=True)
class KilledAtChange:
    """SIGKILL as something is done to a file for the `number`-th time (from 0); `torn`: a file that
    was about to get its name loses its second half first, and a line that was about to be added is
    half there.

    The place in the order of all changes would be another one in every run: logs are written by the
    clock, curves by a thread.
    """

    deed: tuple[Kind, str]
    number: int
    torn: bool

    @classmethod
    def as_in(cls, events: Sequence[Event], place: int, *, torn: bool) -> "KilledAtChange":
        """At the event at this place of an undisturbed run."""
        deed = events[place].deed
        return cls(deed, sum(one.deed == deed for one in events[:place]), torn)

    def install(self) -> None:
        times = count()

        def act(event: Event) -> None:
            if event.deed != self.deed or next(times) != self.number:
                return
            if self.torn and event.kind == "rename":
                os.truncate(event.path, os.path.getsize(event.path) // 2)
            if self.torn and event.kind == "append":
                with open(event.path, "ab") as file:
                    file.write(b'{"half a li')
            os.kill(os.getpid(), signal.SIGKILL)

        hear(act)


@dataclass(frozen=True)
class NoSpace:
    """From the `number`-th change on, nothing more can be written: where no small disk can be
    mounted."""

    number: int

    def install(self) -> None:
        changes = count()

        def act(event: Event) -> None:
            full = event.changes and next(changes) >= self.number
            if full and event.kind in ("write", "append"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), event.path)

        hear(act)


Deed = Literal["remove", "truncate", "kill", "stop", "kill the loader"]


@dataclass(frozen=True)
class AtRead:
    """At the `number`-th opening of a given file (from 0; of an image with `images`): the file is
    removed or loses its second half, or the process kills or stops itself; as `kill the loader`
    only one that loads for another."""

    number: int
    deed: Deed
    images: bool = False

    def install(self) -> None:
        reads, pid = count(), os.getpid()

        def act(event: Event) -> None:
            other = self.images and not event.path.endswith((".jpg", ".png"))
            if event.changes or other or (self.deed == "kill the loader" and os.getpid() == pid):
                return
            if next(reads) == self.number:
                _DEEDS[self.deed](event.path)

        hear(act)


def _truncate(path: str) -> None:
    half = Path(path).read_bytes()
    os.unlink(path)  # other folders have links to it
    Path(path).write_bytes(half[: len(half) // 2])


_DEEDS: dict[Deed, Callable[[str], None]] = {
    "remove": os.unlink,
    "truncate": _truncate,
    "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda _: os.kill(os.getpid(), signal.SIGSTOP),
    "kill the loader": lambda _: os.kill(os.getpid(), signal.SIGKILL),
}


@dataclass(frozen=True)
class NotANumber:
    """The loss of the `step`-th step (from 0) is NaN, or only its gradient."""

    step: int
    gradient: bool

    def install(self) -> None:
        from groundwork.engine import training

        forward, steps = training.TrainingStep.forward, count()

        def spoilt(module: Any, batch: Any) -> Any:
            total, losses = forward(module, batch)
            if next(steps) != self.step:
                return total, losses
            if not self.gradient:
                return total * float("nan"), {name: v * float("nan") for name, v in losses.items()}
            weight = next(p for p in module.model.parameters() if p.requires_grad)
            return total + (0 * weight.sum()).sqrt(), losses  # 0, whose slope is infinite times 0

        training.TrainingStep.forward = spoilt


@dataclass(frozen=True)
class ClockJump:
    """The clock of the day goes `seconds` ahead (or back) when it is asked for the `number`-th
    time."""

    number: int
    seconds: float

    def install(self) -> None:
        true, calls = time.time, count()

        def jumping() -> float:
            return true() + (self.seconds if next(calls) >= self.number else 0)

        time.time, time.time_ns = jumping, lambda: int(jumping() * 1e9)

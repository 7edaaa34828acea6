"""The faults: what is done to a job before it is called again."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from tests.faults.matrix.injections import (
    AtRead,
    ClockJump,
    Deed,
    KilledAtChange,
    NoSpace,
    NotANumber,
)
from tests.faults.matrix.jobs import OUT, Bench, Job
from tests.faults.matrix.trial import Trial, Tried, group, mount, small_disk

Scenario = Callable[[Bench, Job, random.Random], Iterator[Tried]]
KILLED, KILLED_WRITING = "SIGKILL at a moment", "SIGKILL while writing"
_YEAR = 365 * 86400.0


def signalled(
    bench: Bench, job: Job, draws: random.Random, *, fault: str, number: signal.Signals
) -> Iterator[Tried]:
    """A signal from outside, after a random part of the time that the job takes."""
    after = draws.uniform(0.05, 1.0) * bench.reference(job.call).ended.seconds
    trial = Trial(bench, job)
    running = trial.start()
    time.sleep(after)
    running.signal(number)
    hit = trial.expect(running.wait(), killed=True)
    trial.again()
    yield trial.done(fault, f"after {after:.2f} s", hit=hit)


def killed_while_writing(
    bench: Bench, job: Job, draws: random.Random, kinds: Sequence[str] = ()
) -> Iterator[Tried]:
    """SIGKILL as a file is opened, gets its name or is removed; what was being written is torn."""
    events = bench.reference(job.call).events
    # Curves, a third of all changes, are only ever added to, and read by no job.
    possible = [
        place
        for place, event in enumerate(events)
        if event.changes and event.what != "curves" and (not kinds or event.what in kinds)
    ]
    if not possible:
        return
    place, torn = draws.choice(possible), draws.random() < 0.7
    trial = Trial(bench, job)
    hit = trial.expect(trial.run(KilledAtChange.as_in(events, place, torn=torn)), killed=True)
    trial.again()
    event = events[place]
    what = f"{event.kind} of a {event.what}{', torn' if torn else ''}"
    yield trial.done(KILLED_WRITING, what, hit=hit)


def disk_full(bench: Bench, job: Job, draws: random.Random) -> Iterator[Tried]:
    """A small disk that fills up, then one with room; without the right to mount one, writing that
    fails."""
    trial = Trial(bench, job)
    files = (path for path in (trial.reference / OUT).rglob("*") if path.is_file())
    pages = sum(-(-path.stat().st_size // 4096) for path in files)
    size = max(1, int(draws.uniform(0.1, 0.9) * pages)) * 4096
    with small_disk(trial.folder / OUT, size) as mounted:
        changes = sum(event.changes for event in bench.reference(job.call).events)
        ended = trial.run(*[] if mounted else [NoSpace(draws.randrange(changes))])
        if hit := trial.expect(ended):
            trial.expect_sentence(ended)
        if mounted:
            mount(trial.folder / OUT, "remount,size=512m")
        trial.again()
    yield trial.done("disk full", f"{size >> 10} KiB" if mounted else "writing fails", hit=hit)


def read_only(bench: Bench, job: Job, draws: random.Random) -> Iterator[Tried]:
    """An output folder that may not be written to, then one that may."""
    del draws
    trial = Trial(bench, job)
    out = trial.folder / OUT
    with small_disk(out, 512 << 20) as mounted:
        change = partial(mount, out) if mounted else lambda mode: out.chmod(_MODES[mode])
        change("remount,ro")
        ended = trial.run()
        if trial.expect(ended):
            trial.expect_sentence(ended)
        else:
            trial.wrong.append("ended as if it had written")
        change("remount,rw")
        trial.again()
    yield trial.done("read-only folder", "mounted" if mounted else "by its mode")


_MODES = {"remount,ro": 0o555, "remount,rw": 0o755}


def data_lost(
    bench: Bench, job: Job, draws: random.Random, *, fault: str, deed: Deed
) -> Iterator[Tried]:
    """A given file that is gone, or has lost its second half, when it is opened; then all of it is
    there again."""
    trial = Trial(bench, job)
    reads = [event for event in bench.reference(job.call).events if not event.changes]
    # Half of a plain list of lines is a list of lines, too: no reader can know.
    possible = [i for i, event in enumerate(reads) if not event.path.endswith(".txt")]
    number = draws.choice(possible if deed == "truncate" else range(len(reads)))
    ended = trial.run(AtRead(number, deed))
    if hit := trial.expect(ended):
        trial.expect_sentence(ended)
    else:
        trial.wrong.append("ended as if nothing were missing")
    bench.give(trial.folder, reads[number].path.split(os.sep)[0])
    trial.again()
    yield trial.done(fault, f"read {number}: {reads[number].path}", hit=hit)


def loader_killed(bench: Bench, job: Job, draws: random.Random) -> Iterator[Tried]:
    """SIGKILL of a process that loads data, as the system does when memory runs out."""
    if not job.group:
        return
    trial = Trial(bench, job)
    number = draws.randrange(3)
    ended = trial.run(AtRead(number, "kill the loader", images=True), call=job.with_loader())
    if hit := trial.expect(ended):
        trial.expect_sentence(ended)
    else:
        trial.wrong.append("ended as if its data had been loaded")
    trial.again()
    yield trial.done("loader killed", f"at image {number}", hit=hit)


def of_two(
    bench: Bench, job: Job, draws: random.Random, *, fault: str, deed: Deed
) -> Iterator[Tried]:
    """SIGKILL or SIGSTOP of one of two processes of a group."""
    if not job.group or job.call.door == "train_detector":
        return
    trial = Trial(bench, job, processes=2)
    number = draws.randrange(2)  # the second evaluates half of a dozen images
    first, _ = group(bench, job, trial.folder, AtRead(number, deed, images=True))
    if hit := trial.expect(first):
        trial.expect_sentence(first)
    else:
        trial.wrong.append("ended as if both had")
    trial.finished(group(bench, job, trial.folder))
    yield trial.done(fault, f"at image {number}", hit=hit)


def not_a_number(bench: Bench, job: Job, draws: random.Random) -> Iterator[Tried]:
    """A loss that is NaN at some step, then only its gradient."""
    if not job.trains:
        return
    for gradient in (False, True):
        trial = Trial(bench, job)
        step = draws.randrange(6)
        ended = trial.run(NotANumber(step, gradient))
        if trial.expect(ended):
            trial.expect_sentence(ended)
        else:
            trial.wrong.append("ended as if the weights were numbers")
        trial.again()
        what = f"of the {'gradient' if gradient else 'loss'} at step {step}"
        yield trial.done("NaN", what)


def clock_jump(bench: Bench, job: Job, draws: random.Random) -> Iterator[Tried]:
    """The clock goes a year back or ahead within the job, which is to notice nothing."""
    trial = Trial(bench, job)
    jump = draws.choice([-_YEAR, _YEAR])
    trial.finished([trial.run(ClockJump(draws.randrange(20), jump))])
    yield trial.done("clock jump", f"{jump:+.0f} s", hit=False)


def two_at_once(bench: Bench, job: Job, draws: random.Random) -> Iterator[Tried]:
    """The same call twice, at once or a little apart: one or both succeed."""
    trial = Trial(bench, job)
    first = trial.start()
    time.sleep(draws.choice([0.0, 0.3, 0.6]) * bench.reference(job.call).ended.seconds)
    second = trial.start()
    ended = [first.wait(), second.wait()]
    for one in ended:
        if trial.expect(one):
            trial.expect_sentence(one)
    if all(one.code != 0 for one in ended):
        trial.wrong.append("neither of the two succeeds")
    trial.again()
    hit = any(one.code != 0 for one in ended)
    yield trial.done("two at once", "one is refused" if hit else "both succeed", hit=hit)


SCENARIOS: dict[str, Scenario] = {
    KILLED: partial(signalled, fault=KILLED, number=signal.SIGKILL),
    KILLED_WRITING: killed_while_writing,
    "SIGTERM": partial(signalled, fault="SIGTERM", number=signal.SIGTERM),
    "disk full": disk_full,
    "read-only folder": read_only,
    "data removed": partial(data_lost, fault="data removed", deed="remove"),
    "data truncated": partial(data_lost, fault="data truncated", deed="truncate"),
    "loader killed": loader_killed,
    "one of two killed": partial(of_two, fault="one of two killed", deed="kill"),
    "one of two stopped": partial(of_two, fault="one of two stopped", deed="stop"),
    "NaN": not_a_number,
    "clock jump": clock_jump,
    "two at once": two_at_once,
}

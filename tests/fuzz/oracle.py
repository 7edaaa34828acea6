"""Whether an input was met as it should: it was read, or one clear error names its file."""

import contextlib
import resource
import signal
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from groundwork.jobs import INPUT_ERRORS, plain_message

# Of the process, however many others run beside it.
SECONDS = 10.0
BYTES = 2 << 30
_LONGEST = 2000  # characters of a message


class Hang(BaseException):
    """An input that takes longer than it may; no reader's `except` takes it for its own."""


class Verdict(NamedTuple):
    """refused: by a clear error. failure: what was wrong with the answer, "" for nothing; place: in
    which function of the project."""

    refused: bool
    failure: str = ""
    place: str = ""


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """Within the block an input may take `SECONDS` of computing and `BYTES` more memory."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Hang

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)


def judge(read: Callable[[], object], names: Collection[str]) -> Verdict:
    """What `read` made of an input.

    Args:
        names: one of them has to be in the message of an error: of the files that were read.
    """
    try:
        with limits():
            read()
    except Hang as error:
        return Verdict(False, f"took more than {SECONDS:g} s", _place(error))
    # Everything that is not a clear error is what is looked for.
    except Exception as error:  # noqa: BLE001
        return Verdict(True, _fault(error, names), _place(error))
    return Verdict(False)


def _fault(error: Exception, names: Collection[str]) -> str:
    kind = type(error).__name__
    own = type(error).__module__.startswith("groundwork.")
    if not isinstance(error, INPUT_ERRORS) or not (own or type(error) in INPUT_ERRORS):
        return f"{kind} of a library: {str(error)[:120]}"
    message = plain_message(error)
    if not any(name in message for name in names):
        return f"{kind} that names no file: {message[:120]}"
    if "\n" in message:
        return f"{kind} of several lines: {message[:120]!r}"
    if len(message) > _LONGEST:
        return f"{kind} of {len(message)} characters: {message[:120]}"
    return ""


def _place(error: BaseException) -> str:
    """The innermost function of the project that the error came through."""
    trace, found = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if "/groundwork/" in code.co_filename:
            found = f"{code.co_filename.rpartition('/groundwork/')[2]}:{code.co_name}"
        trace = trace.tb_next
    return found

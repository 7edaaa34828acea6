"""A scheduler takes the machine back: it signals, the run saves where it stands, and ends."""

import logging
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn, TypeVar

from groundwork import utils

Batch = TypeVar("Batch")
logger = logging.getLogger("groundwork")
PREEMPTED = 75
"""The exit status of a run that has saved and wants to be started again: EX_TEMPFAIL."""


class Interrupted(Exception):
    """A validation was cut short, on every process, since one of them was told to end."""


class Preemption:
    """While the block lasts, SIGTERM and SIGUSR1 do not end this process: they are noted.

    In a thread that is not the main one, where Python takes no signals, nothing is changed.
    """

    def __init__(self) -> None:
        self._noted = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is threading.main_thread():
            self._before = {
                number: signal.signal(number, self._note) for number in utils.PREEMPTING
            }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        """Has any process of the group been told to end? Every one must call this."""
        return utils.any_process(self._noted)

    def until_told(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches of this process, no more once it is told to end. Every process must ask for
        one more than there are, as a loop does.

        Raises:
            Interrupted: behind the last batch, if any process was told.
        """
        for batch in batches:
            if self._noted:
                break
            yield batch
        if self.asked():
            raise Interrupted

    def end(self, steps: int) -> NoReturn:
        """End the process of a run that has saved itself after so many steps."""
        logger.warning(
            "told to end by a signal: step %d is saved, --resume auto goes on with it", steps
        )
        raise SystemExit(PREEMPTED)

    def _note(self, *_: object) -> None:
        self._noted = True

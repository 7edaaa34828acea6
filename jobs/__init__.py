"""What the entry scripts share: one module per job, and how a script ends on its user's error."""

import errno
import re
from collections.abc import Callable

from groundwork.files.foreign import one_line
from groundwork.files.places import Unreachable
from groundwork.utils import LostProcess

_WORKER_ERROR = re.compile(
    r"Caught \w+ in DataLoader worker.*\n[\w.]+: (?P<message>[^\n]+)\s*", re.DOTALL
)
_WORKER_KILLED = re.compile(r"DataLoader worker \(pid.*\) (is killed|exited unexpectedly)")
_KILLED = (
    "a process that loads data was killed, as the system does when memory runs out; lower"
    " data.workers or batch_size, or give the job more memory, and start the same command again"
)
# What is wrong with a path. A full disk has a remedy of its own; other errors keep their traceback.
_OF_FILES = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
)


INPUT_ERRORS = (ValueError, FloatingPointError, Unreachable, *_OF_FILES)
"""What is raised for input that cannot be used; everything else is a fault of the program."""


_ROOM = "make room and start the same command again, a training with --resume"
_REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EROFS: "name another file or folder",
}


def run_script(main: Callable[[], object]) -> None:
    """Run a script's `main`; errors in its input end it with their message, not a traceback."""
    try:
        main()
    except (*INPUT_ERRORS, LostProcess) as error:
        raise SystemExit(f"error: {plain_message(error)}") from None
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        raise SystemExit(f"error: {plain_message(error)}") from None
    except RuntimeError as error:
        if not _WORKER_KILLED.search(str(error)):
            raise
        raise SystemExit(f"error: {_KILLED}") from None


def plain_message(error: Exception) -> str:
    """What an error says, without the traceback that a loading process puts in front of it; of the
    system's own errors the file, the reason and the remedy. One line, whatever a file put into it.
    """
    if isinstance(error, OSError) and (error.filename is not None or error.errno in _REMEDIES):
        where = "" if error.filename is None else f"{error.filename}: "
        remedy = _REMEDIES.get(error.errno or 0, "name another file or folder")
        return one_line(f"{where}{str(error.strerror).lower()}; {remedy}")
    found = _WORKER_ERROR.fullmatch(str(error))
    return one_line(found["message"] if found else str(error))

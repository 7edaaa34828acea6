"""A folder that one process at a time writes to."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # of Windows, where two runs in one folder are not told apart
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_AGAIN = 0.1


@contextlib.contextmanager
def held(folder: Path, what: str, *, patience: float = 0.0) -> Iterator[None]:
    """Holds a folder, which is made if it is missing, until the block or the process ends.

    The system lets go of it when the process ends, however that is, and processes that this one
    has forked do not hold it. What is left is an empty file `.lock`. On a file system without locks
    nothing is held.

    Args:
        what: does this, for the message: "trains". patience: seconds to wait for another holder.

    Raises:
        ValueError: another process holds it still.
    """
    if fcntl is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "ab") as file:
        deadline = time.monotonic() + patience
        while not _taken(file.fileno()):
            if time.monotonic() > deadline:
                raise ValueError(
                    f"{folder}: another process {what} into this folder; wait until it has ended,"
                    " or name another folder"
                )
            time.sleep(_AGAIN)
        yield


def _taken(handle: int) -> bool:
    try:
        # Not flock, whose hold a forked loading process would share, and keep beyond our end.
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        pass  # a file system without locks
    return True

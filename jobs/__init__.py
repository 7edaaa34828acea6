"""What the entry scripts share: one module per job, and how a script ends on its user's error."""

import re
from collections.abc import Callable

from groundwork.files.foreign import one_line

_WORKER_ERROR = re.compile(
    r"Caught \w+ in DataLoader worker.*\n[\w.]+: (?P<message>[^\n]+)\s*", re.DOTALL
)
# What is wrong with a path; other errors of the system, such as a full disk, keep their traceback.
_OF_FILES = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
)
INPUT_ERRORS = (ValueError, FloatingPointError, *_OF_FILES)
"""What is raised for input that cannot be used; everything else is a fault of the program."""


def run_script(main: Callable[[], object]) -> None:
    """Run a script's `main`; errors in its input end it with their message, not a traceback."""
    try:
        main()
    except INPUT_ERRORS as error:
        raise SystemExit(f"error: {plain_message(error)}") from None


def plain_message(error: Exception) -> str:
    """What an error says, without the traceback that a loading process puts in front of it; of the
    system's own errors the file, the reason and the remedy. One line, whatever a file put into it.
    """
    if isinstance(error, OSError) and error.filename is not None:
        reason = str(error.strerror).lower()
        return one_line(f"{error.filename}: {reason}; name another file or folder")
    found = _WORKER_ERROR.fullmatch(str(error))
    return one_line(found["message"] if found else str(error))

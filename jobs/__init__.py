"""What the entry scripts share: one module per job, and how a script ends on its user's error."""

import re
from collections.abc import Callable

_WORKER_ERROR = re.compile(
    r"Caught \w+ in DataLoader worker.*\n[\w.]+: (?P<message>[^\n]+)\s*", re.DOTALL
)


def run_script(main: Callable[[], object]) -> None:
    """Run a script's `main`; errors in its input end it with their message, not a traceback."""
    try:
        main()
    except (ValueError, FileNotFoundError, FileExistsError, FloatingPointError) as error:
        raise SystemExit(f"error: {plain_message(error)}") from None


def plain_message(error: Exception) -> str:
    """What an error says, without the traceback that a loading process puts in front of it."""
    found = _WORKER_ERROR.fullmatch(str(error))
    return found["message"] if found else str(error)

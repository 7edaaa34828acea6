"""Records that were not used as annotated: how many, and which."""

import logging
from collections.abc import Iterable
from pathlib import Path

from groundwork import utils
from groundwork.engine.folder import FAULTS
from groundwork.files.safe import write_text

logger = logging.getLogger("groundwork")
_NAMED = 5


class FaultLog:
    """Collects the lines that batches bring along about such records; each counts once."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.known: dict[str, None] = {}
        self._written = 0

    def add(self, lines: Iterable[str]) -> None:
        """Take note of the `faults` of a batch."""
        self.known.update(dict.fromkeys(lines))

    def write(self) -> int:
        """Name all of them in `faults.txt` and the first few in the log; every process calls this.

        Returns:
            How many there are, over all processes.
        """
        parts = utils.all_gather_objects(list(self.known))
        lines = list(dict.fromkeys(line for part in parts for line in part))
        if utils.is_main() and len(lines) > self._written:
            path = self.folder / FAULTS
            write_text(path, "".join(f"{line}\n" for line in lines))
            logger.warning(
                "%d records cannot be used as annotated and are used as the released code uses"
                " them (--strict stops at the first), see %s:\n%s",
                len(lines), path, "\n".join(lines[:_NAMED]),
            )  # fmt: skip
        self._written = len(lines)
        return len(lines)

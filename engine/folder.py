"""Which files of a folder are those of a training run, so that two runs never mix in one.

Anything else may lie there: results of evaluations, labels, weights under other names.
"""

import logging
import shutil
from pathlib import Path

from groundwork import utils

logger = logging.getLogger("groundwork")
LOG, STEPS = "log.txt", "steps.txt"
LAST, CHECKPOINTS = "last.ckpt", "checkpoint_*.pth"
CURVES, TRACKED, FAULTS = "tensorboard", "trackers.json", "faults.txt"
_SHOWN = 3


def checkpoints_of(folder: Path) -> list[Path]:
    """The checkpoints of the run in a folder, that of an unfinished epoch last."""
    return [*sorted(folder.glob(CHECKPOINTS)), *folder.glob(LAST)]


def lies_in(checkpoint: Path, folder: Path) -> bool:
    """Is the checkpoint one of the run in the folder?"""
    return checkpoint.parent.resolve() == folder.resolve()


def require_no_run(folder: Path) -> None:
    """Refuse to start a new run where there is one.

    Raises:
        FileExistsError: the folder holds checkpoints of a run.
    """
    found = [path.name for path in checkpoints_of(folder)]
    if found:
        names = ", ".join(found[-_SHOWN:])
        raise FileExistsError(
            f"{folder} holds a run ({names}): go on with it by --resume, choose another"
            " --output_dir, or remove its checkpoints; results of evaluations may stay"
        )


def remove_log(folder: Path) -> None:
    """Remove what a run that ended before its first checkpoint has told, for the next one starts
    from nothing, too (process 0 only)."""
    if not utils.is_main():
        return
    told = [folder / name for name in (LOG, STEPS, TRACKED, FAULTS, f"validation/{FAULTS}")]
    if any(path.is_file() for path in told):
        logger.warning("%s: the log of a run without a checkpoint is replaced", folder)
    for path in told:
        path.unlink(missing_ok=True)
    shutil.rmtree(folder / CURVES, ignore_errors=True)


def remove_run(folder: Path) -> None:
    """Remove a run, for programs that repeat theirs; what else is there stays."""
    for path in checkpoints_of(folder):
        path.unlink()
    remove_log(folder)

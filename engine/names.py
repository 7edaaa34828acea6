"""What a stage calls its checkpoints and their entries, and what it tells about an epoch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

EpochLine = Callable[[int, dict[str, float]], Mapping[str, object]]


@dataclass(frozen=True, kw_only=True)
class Names:
    """Names of a stage that other programs look for; ours where none is given.

    checkpoint: of an epoch's file, by the epoch's number. optimizer, schedule: entries of the file.
    epoch_line: (epoch, named means of its steps, the learning rate `lr` among them) -> what
        log.txt says about it; None: log.txt holds our own lines.
    """

    checkpoint: str = "checkpoint_{:02d}.pth"
    optimizer: str = "optimizer"
    schedule: str = "lr_scheduler"
    epoch_line: EpochLine | None = None

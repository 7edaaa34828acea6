"""What the samplers of training have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch.utils.data import Sampler


class TrainingSampler(Sampler[tuple[int, int]], ABC):
    """Yields (epoch, index) for one rank, in an order that follows from (seed, epoch).

    Args:
        batch_size: rows per rank.
        world_size, rank: number of processes and which of them this is.
        seed: of the run.

    Raises:
        ValueError: no such rank.
    """

    def __init__(self, batch_size: int, *, world_size: int, rank: int, seed: int) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not one of {world_size} processes")
        self.batch_size, self.seed = batch_size, seed
        self.world_size, self.rank = world_size, rank
        self.epoch, self.start_step = 0, 0

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Batches of a whole epoch, skipped ones included."""

    def set_epoch(self, epoch: int, start_step: int = 0) -> None:
        """The next pass is `epoch` from batch `start_step` on; nothing before it is loaded."""
        if not 0 <= start_step <= self.steps_per_epoch:
            raise ValueError(
                f"step {start_step} is not within the {self.steps_per_epoch} of an epoch"
            )
        self.epoch, self.start_step = epoch, start_step

    def __len__(self) -> int:
        return (self.steps_per_epoch - self.start_step) * self.batch_size

"""Which sample a process trains on when: our order of an epoch, and the released ones."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

Sample = TypeVar("Sample", covariant=True)


class SizedDataset(Dataset[Sample], ABC):
    """A data set that a sampler can draw from: it knows how many samples it has."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def landscape(self) -> np.ndarray | None:
        """(n,) bool: whose images are wider than high, for training batches of one orientation;
        None: batches may mix them."""
        return None


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


class EpochSampler(TrainingSampler):
    """Yields (epoch, index) for one rank.

    The order of an epoch is a permutation drawn from (seed, epoch). Global batch k is rows k*W*b
    ... of it, and rank r of W takes its rows r*b ... (r+1)*b, so the global batches do not depend
    on how many ranks share them as long as W*b stays the same. The rest that does not fill a global
    batch is dropped.

    Args:
        length: number of records.
        batch_size: rows per rank, b.
        world_size, rank: number of processes W and which of them this is.
        seed: of the run.
    """

    def __init__(
        self, length: int, batch_size: int, *, world_size: int = 1, rank: int = 0, seed: int = 42
    ) -> None:
        if length < batch_size * world_size:
            raise ValueError(
                f"{length} training samples do not fill one global batch of {world_size} x"
                f" {batch_size}; lower batch_size or the number of processes"
            )
        super().__init__(batch_size, world_size=world_size, rank=rank, seed=seed)
        self.length = length

    @property
    def steps_per_epoch(self) -> int:
        return self.length // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        rows = order[: self.steps_per_epoch * self.world_size * self.batch_size]
        mine = rows.reshape(self.steps_per_epoch, self.world_size, self.batch_size)[:, self.rank]
        epoch = self.epoch
        for index in mine[self.start_step :].ravel():
            yield epoch, int(index)


class PaddedSampler(TrainingSampler):
    """Yields (epoch, index) for one rank as torch's DistributedSampler and DETR's do.

    The order of an epoch follows from its number alone, whatever the seed of the run. It is padded
    to a multiple of the processes by its own beginning; every process has the same number of rows,
    and those that do not fill its last batch are dropped. With more than one process, what they
    train on in a step thus depends on how many they are.

    Args:
        length: number of samples.
        batch_size: rows per rank.
        blocks: rank r of W takes the r-th of W blocks of rows (RefTR), not rows r, r + W, ...
            (ALBEF, RefCLIP, SimREC).
        world_size, rank: number of processes W and which of them this is.

    Raises:
        ValueError: fewer samples than one batch of every process, or no such rank.
    """

    def __init__(
        self, length: int, batch_size: int, *, blocks: bool, world_size: int = 1, rank: int = 0
    ) -> None:
        super().__init__(batch_size, world_size=world_size, rank=rank, seed=0)
        self.length, self.blocks = length, blocks
        if not self.steps_per_epoch:
            raise ValueError(
                f"{length} training samples do not fill a batch of {batch_size} for each of"
                f" {world_size} processes; lower batch_size or the number of processes"
            )

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.length // self.world_size) // self.batch_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, rows = self.epoch, -(-self.length // self.world_size)
        order = torch.randperm(self.length, generator=torch.Generator().manual_seed(epoch))
        padded = np.resize(order.numpy(), rows * self.world_size)
        if self.blocks:
            mine = padded[self.rank * rows : (self.rank + 1) * rows]
        else:
            mine = padded[self.rank :: self.world_size]
        batches = mine[: self.steps_per_epoch * self.batch_size].reshape(-1, self.batch_size)
        for index in batches[self.start_step :].ravel():
            yield epoch, int(index)


def training_sampler(
    rule: str, length: int, batch_size: int, *, world_size: int, rank: int, seed: int
) -> TrainingSampler:
    """By a rule: "global" is `EpochSampler`, "interleaved" and "blocks" are `PaddedSampler`.

    Raises:
        ValueError: as the samplers.
    """
    place = {"world_size": world_size, "rank": rank}
    if rule == "global":
        return EpochSampler(length, batch_size, seed=seed, **place)
    return PaddedSampler(length, batch_size, blocks=rule == "blocks", **place)

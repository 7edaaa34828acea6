"""Batches of pictures of one orientation, as SimVG and ALVG draw them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


class OrientationSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) for one rank; every batch is of landscape pictures, or of others.

    The samples of an orientation are put in an order drawn from (seed, epoch) and filled up to a
    multiple of b * W by samples drawn from the whole orientation, so that all come in every epoch
    and some twice. The order of the batches is drawn, too; rank r of W takes batches r, r + W, ...
    Batches of a step may thus differ in orientation from rank to rank.

    Args:
        landscape: (n,) which samples' pictures are wider than high.
        batch_size: rows per rank, b.
        world_size, rank: number of processes W and which of them this is.
        seed: of the run.

    Raises:
        ValueError: no sample, or no such rank.
    """

    def __init__(
        self,
        landscape: Sequence[bool] | np.ndarray,
        batch_size: int,
        *,
        world_size: int = 1,
        rank: int = 0,
        seed: int = 42,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not one of {world_size} processes")
        wide = np.asarray(landscape, dtype=bool)
        self._groups = [group for group in map(np.flatnonzero, (~wide, wide)) if len(group)]
        if not self._groups:
            raise ValueError("no training samples; check data.train")
        self.batch_size, self.seed = batch_size, seed
        self.world_size, self.rank = world_size, rank
        self.epoch, self.start_step = 0, 0

    @property
    def steps_per_epoch(self) -> int:
        """Batches of a whole epoch, skipped ones included."""
        whole = self.batch_size * self.world_size
        return sum(-(-len(group) // whole) for group in self._groups)

    def set_epoch(self, epoch: int, start_step: int = 0) -> None:
        """The next pass is `epoch` from batch `start_step` on; nothing before it is loaded."""
        if not 0 <= start_step <= self.steps_per_epoch:
            raise ValueError(
                f"step {start_step} is not within the {self.steps_per_epoch} of an epoch"
            )
        self.epoch, self.start_step = epoch, start_step

    def __len__(self) -> int:
        return (self.steps_per_epoch - self.start_step) * self.batch_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        random, epoch = np.random.default_rng((self.seed, self.epoch)), self.epoch
        rows = np.concatenate([self._filled(group, random) for group in self._groups])
        batches = random.permutation(rows.reshape(-1, self.batch_size))
        for index in batches[self.rank :: self.world_size][self.start_step :].ravel():
            yield epoch, int(index)

    def _filled(self, group: np.ndarray, random: np.random.Generator) -> np.ndarray:
        missing = -len(group) % (self.batch_size * self.world_size)
        return np.concatenate([random.permutation(group), random.choice(group, missing)])

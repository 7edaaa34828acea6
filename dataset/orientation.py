"""Batches of images of one orientation, as SimVG and ALVG draw them."""

from collections.abc import Iterator, Sequence

import numpy as np

from groundwork.dataset.sampler import TrainingSampler


class OrientationSampler(TrainingSampler):
    """Yields (epoch, index) for one rank; every batch is of landscape images, or of others.

    The samples of an orientation are put in an order drawn from (seed, epoch) and filled up to a
    multiple of b * W by samples drawn from the whole orientation, so that all come in every epoch
    and some twice. The order of the batches is drawn, too; rank r of W takes batches r, r + W, ...
    Batches of a step may thus differ in orientation from rank to rank.

    Args:
        landscape: (n,) which samples' images are wider than high.
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
        super().__init__(batch_size, world_size=world_size, rank=rank, seed=seed)
        wide = np.asarray(landscape, dtype=bool)
        self._groups = [group for group in map(np.flatnonzero, (~wide, wide)) if len(group)]
        if not self._groups:
            raise ValueError("no training samples; check data.train")

    @property
    def steps_per_epoch(self) -> int:
        whole = self.batch_size * self.world_size
        return sum(-(-len(group) // whole) for group in self._groups)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        random, epoch = np.random.default_rng((self.seed, self.epoch)), self.epoch
        rows = np.concatenate([self._filled(group, random) for group in self._groups])
        batches = random.permutation(rows.reshape(-1, self.batch_size))
        for index in batches[self.rank :: self.world_size][self.start_step :].ravel():
            yield epoch, int(index)

    def _filled(self, group: np.ndarray, random: np.random.Generator) -> np.ndarray:
        missing = -len(group) % (self.batch_size * self.world_size)
        return np.concatenate([random.permutation(group), random.choice(group, missing)])

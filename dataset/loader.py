"""Loaders whose order depends on seed and epoch alone, so that any step can be repeated.

Workers start as Python starts processes, unless `multiprocessing.set_start_method` was told
otherwise: on Linux by fork, since Python 3.14 from a fork server; on macOS by spawn. A forked
worker shares the libraries' memory, and so does one of the fork server, which imports them once. A
spawned one imports them for itself, for more than 400 MB, most of them torch's
(experiments/memory.py).
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

from groundwork.dataset.batches import Batch
from groundwork.dataset.orientation import OrientationSampler
from groundwork.dataset.sampler import Sample, SizedDataset, TrainingSampler, training_sampler


class TrainLoader(DataLoader[object]):
    """Gives `TrainBatch`es; its sampler is told the epoch, and where in it to begin."""

    sampler: TrainingSampler


def _start_worker(_worker: int) -> None:
    # One process per core already; OpenCV's own threads would only fight over them.
    cv2.setNumThreads(0)
    _outlive_signals()


def _outlive_signals() -> None:
    """A scheduler signals every process of a job, and the step that is being made needs this one:
    only its own parent ends it, by SIGTERM, or by ending itself."""
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    while parent is not None and signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent.pid:
        pass
    os._exit(0)


def _options(workers: int) -> dict[str, Any]:
    # A batch of phrases is too short for threads to pay, and they do not survive a worker's fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    options: dict[str, Any] = {"num_workers": workers, "pin_memory": torch.cuda.is_available()}
    if workers:
        # Of use to a fork server only: without it every worker imports all of this for itself.
        multiprocessing.set_forkserver_preload(["__main__", __name__])
        options |= {
            "persistent_workers": True,
            "prefetch_factor": 4,
            "worker_init_fn": _start_worker,
        }
    return options


def train_loader(
    dataset: SizedDataset[Sample],
    collate: Callable[[list[Sample]], Batch],
    batch_size: int,
    *,
    world_size: int = 1,
    rank: int = 0,
    seed: int = 42,
    sampling: str = "global",
    workers: int = 4,
) -> TrainLoader:
    """Batches of `batch_size` samples for one rank, in the order of `training_sampler`.

    Call `loader.sampler.set_epoch(epoch, start_step)` before every pass. `len(loader)` is what is
    left of the epoch, `loader.sampler.steps_per_epoch` the whole.

    Args:
        dataset: indexed by (epoch, i). One with a `landscape` that is not None gets batches of one
            orientation.

    Raises:
        ValueError: fewer records than one global batch.
    """
    landscape = dataset.landscape
    place = {"world_size": world_size, "rank": rank, "seed": seed}
    return TrainLoader(
        dataset,
        batch_size=batch_size,
        sampler=training_sampler(sampling, len(dataset), batch_size, **place)
        if landscape is None
        else OrientationSampler(landscape, batch_size, **place),
        drop_last=True,
        collate_fn=collate,
        **_options(workers),
    )


def eval_loader(
    dataset: SizedDataset[Sample],
    collate: Callable[[list[Sample]], Batch],
    batch_size: int,
    *,
    world_size: int = 1,
    rank: int = 0,
    workers: int = 4,
) -> DataLoader[Sample]:
    """Batches of samples in order; rank r takes samples r, r + W, ..., none comes twice."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=range(rank, len(dataset), world_size),
        collate_fn=collate,
        **_options(workers),
    )


def split_loader(
    dataset: SizedDataset[Sample],
    collate: Callable[[list[Sample]], Batch],
    batch_size: int,
    sizes: Sequence[int],
    *,
    world_size: int = 1,
    rank: int = 0,
    workers: int = 4,
) -> DataLoader[Sample]:
    """Batches of every sample once, in order, none of which holds two splits.

    An image's result depends on the padding that a larger one of its batch gives it, so that a
    split alone and beside others must be batched alike. Rank r takes the r-th part of each split.

    Args:
        sizes: of the splits, which follow one another in `dataset`.
    """
    return DataLoader(
        dataset,
        batch_sampler=split_batches(sizes, batch_size, world_size=world_size, rank=rank),
        collate_fn=collate,
        **_options(workers),
    )


def split_batches(
    sizes: Sequence[int], batch_size: int, *, world_size: int = 1, rank: int = 0
) -> list[list[int]]:
    """The indices of every batch of `split_loader`; the last one of a split may be smaller."""
    batches, start = [], 0
    for size in sizes:
        share = -(-size // world_size)
        mine = range(start, start + size)[rank * share : (rank + 1) * share]
        batches += [list(mine[i : i + batch_size]) for i in range(0, len(mine), batch_size)]
        start += size
    return batches

"""What every run needs and no method knows: device, process group, seeds, logging.

Collectives are the identity without a process group, so that the same code runs in one process.
"""

import ctypes
import logging
import os
import platform
import random
import re
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

PREEMPTING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)
)
"""By which a scheduler says that it takes the machine back."""
shared_random = torch.Generator()  # the same numbers on all processes of a training step


def processor_name(device: torch.device | None = None) -> str:
    """What numbers are computed on: the model of a GPU or of the CPU; by default of the GPU, if
    there is one."""
    if torch.cuda.is_available() and (device is None or device.type == "cuda"):
        return torch.cuda.get_device_name(device)
    return _cpu("model name") or platform.processor() or platform.machine()


def computes_in_bf16(device: torch.device) -> bool:
    """Does its arithmetic know bfloat16? Any other imitates it: a CPU of AVX2 alone multiplies
    matrices in it 50 times slower than in single precision."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    told = f"{_cpu('flags')} {_cpu('Features')}".split()  # of x86, of ARM
    return device.type == "cpu" and not {"amx_bf16", "avx512_bf16", "bf16"}.isdisjoint(told)


def computes_in_bf16_without_tiles() -> bool:
    """Does an x86 CPU know bfloat16 by its vectors (AVX-512) alone, and not by tiles (AMX)?"""
    flags = _cpu("flags").split()
    return "avx512_bf16" in flags and "amx_bf16" not in flags


def has_avx512_beside_intel() -> bool:
    """Does a CPU of another maker than Intel have AVX-512?"""
    return "avx512f" in _cpu("flags").split() and _cpu("vendor_id") != "GenuineIntel"


def _cpu(key: str) -> str:
    """What Linux says about its first CPU; "" elsewhere, and where it does not say this."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def choose_device(name: str | None = None) -> torch.device:
    """The device called `name`, by default CUDA if there is any, else the CPU.

    Under a launcher `cuda` means the GPU of this process's local rank.

    Raises:
        ValueError: the name is no device, or a CUDA device that this machine does not have.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name}: not a device; use cpu, cuda or cuda:N") from error
    if device.type != "cuda":
        return device
    index = int(os.environ.get("LOCAL_RANK", 0)) if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise ValueError(
            f"--device {name}: GPU {index} is not among the {torch.cuda.device_count()} that torch "
            f"{torch.__version__} sees; use --device cpu, or start fewer processes"
        )
    return torch.device("cuda", index)


@contextmanager
def process_group(
    device: str | None = None, timeout: float | None = None
) -> Iterator[torch.device]:
    """In the block this process is in the group that the launcher describes; gives its device.

    torchrun and `python -m torch.distributed.launch --use_env` set RANK, LOCAL_RANK and WORLD_SIZE;
    `srun` sets Slurm's own names. Without a launcher there is no group. Whoever runs several jobs
    in one process has a block of his own around them: jobs use a group that is there and leave it
    open. One that is opened behind another, at the same address, may meet what is left of it.

    Args:
        device: as for `choose_device`. GPUs talk over nccl, CPUs over gloo.
        timeout: seconds that a process waits for the others; by default those of torch, 600 over
            nccl and 1800 over gloo.

    Yields:
        The device of this process; a GPU is also made torch's current one. On a CPU the process
        keeps what it frees, see `keep_freed_memory`.
    """
    _adopt_slurm()
    chosen = choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    else:
        keep_freed_memory()
    opened = "RANK" in os.environ and "WORLD_SIZE" in os.environ and not dist.is_initialized()
    if opened:
        dist.init_process_group(
            "nccl" if chosen.type == "cuda" else "gloo",
            init_method="env://",
            timeout=None if timeout is None else timedelta(seconds=timeout),
        )
    try:
        yield chosen
    finally:
        if opened:
            dist.destroy_process_group()
            _cpu_group.cache_clear()


class LostProcess(RuntimeError):
    """Another process of the group has ended, or does not answer within the timeout."""


@contextmanager
def losses_of_processes() -> Iterator[None]:
    """Says in words that a collective of this process failed for want of another one.

    Raises:
        LostProcess: in the place of what the library that they talk over says.
    """
    try:
        yield
    except RuntimeError as error:
        if not dist.is_initialized() or not _OF_THE_GROUP.search(str(error)):
            raise
        raise LostProcess(
            f"process {rank()} of {world_size()} waits for the others of the group in vain: one of"
            " them has ended, for a reason that its own log gives, or does not answer within"
            " --timeout; start the same command again, a training with --resume"
        ) from error


# What gloo and nccl say of a process that is gone or silent.
_OF_THE_GROUP = re.compile(r"gloo|nccl|closed by peer|connection reset|timed? ?out", re.IGNORECASE)


def keep_freed_memory() -> None:
    """Lets this process use memory again that it has freed, instead of giving it back.

    By default glibc takes every tensor of more than 32 MiB from the system and gives it back at
    once, and the system clears it anew each time: a third of the time of a forward pass or so.
    Other libraries of C are left as they are.
    """
    if libc := _glibc():
        largest_number_of_maps, trim_threshold = -4, -1  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
        libc.mallopt(largest_number_of_maps, 0)
        libc.mallopt(trim_threshold, -1)


def share_heap() -> None:
    """Lets all threads of this process that are still to come take their memory from one heap.

    By default glibc gives threads up to eight heaps per core. A server's requests wander through
    its threads, and every heap comes to keep as much as the largest request once needed. Other
    libraries of C are left as they are.
    """
    if libc := _glibc():
        most_heaps = -8  # M_ARENA_MAX of malloc.h
        libc.mallopt(most_heaps, 1)


def release_freed_memory() -> None:
    """Gives the system back what this process has freed, also below what is still in use; takes
    milliseconds. Other libraries of C than glibc are left as they are."""
    if libc := _glibc():
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _adopt_slurm() -> None:
    """Gives Slurm's variables the names torch reads. Only `srun` sets the step's task count."""
    if "RANK" in os.environ or "SLURM_STEP_NUM_TASKS" not in os.environ:
        return
    os.environ["RANK"] = os.environ["SLURM_PROCID"]
    os.environ["LOCAL_RANK"] = os.environ["SLURM_LOCALID"]
    os.environ["WORLD_SIZE"] = os.environ["SLURM_STEP_NUM_TASKS"]
    os.environ.setdefault("MASTER_ADDR", _first_host(os.environ["SLURM_STEP_NODELIST"]))
    # Every task of a job computes the same port; two jobs on one node rarely do.
    job = int(os.environ.get("SLURM_JOB_ID", 0))
    os.environ.setdefault("MASTER_PORT", str(20000 + job % 20000))


def _first_host(nodes: str) -> str:
    """`gpu[03-07,12],login1` -> `gpu03`: the first name of a Slurm host list."""
    match = re.match(r"([^\[,]+)(?:\[(\w+))?", nodes)
    if match is None:
        raise ValueError(f"SLURM_STEP_NODELIST {nodes!r} names no host; set MASTER_ADDR yourself")
    return match[1] + (match[2] or "")


def rank() -> int:
    """Number of this process in the group; 0 without one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes in the group; 1 without one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes the files and the log."""
    return rank() == 0


def barrier() -> None:
    """Waits for every process."""
    if dist.is_initialized():
        dist.barrier()


def all_gather(tensor: torch.Tensor) -> torch.Tensor:
    """Joins the tensors of all processes along dimension 0, in rank order, without gradients.

    Args:
        tensor: (n, ...); n may differ between processes, the other sizes and the type may not.

    Returns:
        (sum of n, ...) on every process.
    """
    if world_size() == 1:
        return tensor.detach()
    count = torch.tensor([tensor.shape[0]], device=tensor.device)
    counts = [torch.zeros_like(count) for _ in range(world_size())]
    dist.all_gather(counts, count)
    lengths = torch.cat(counts).tolist()  # all at once: reading a GPU makes this process wait
    padded = tensor.new_zeros((max(lengths), *tensor.shape[1:]))
    padded[: tensor.shape[0]] = tensor.detach()
    parts = [torch.zeros_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])


def any_process(flag: bool) -> bool:
    """Whether it is true on any process, on all of them; every one must call this.

    It is the CPUs that talk: asked on a GPU, every step would wait until the GPU has made it.
    """
    if world_size() == 1:
        return flag
    found = torch.tensor(int(flag))
    dist.all_reduce(found, dist.ReduceOp.MAX, group=_cpu_group())
    return bool(found)


@cache
def _cpu_group() -> Any:
    """A group of all processes over gloo; None: that is what the default one is."""
    return None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")


def broadcast(tensors: Iterable[torch.Tensor]) -> None:
    """Gives the tensors of every process the values they have on process 0, in place."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor.detach(), src=0)


def all_gather_objects(value: Any) -> list[Any]:
    """The picklable values of all processes in rank order, on every process."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def seed_everything(seed: int) -> None:
    """Seeds Python, numpy and torch with seed + rank, so that processes draw different numbers."""
    random.seed(seed + rank())
    np.random.seed((seed + rank()) % 2**32)
    torch.manual_seed(seed + rank())


def setup_logging() -> None:
    """Log lines to standard error: from process 0 all of them, from the others warnings only."""
    logging.basicConfig(
        level=logging.INFO if is_main() else logging.WARNING,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
        force=True,
    )

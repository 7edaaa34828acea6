"""Times the variants of a workload in turn, each in a process of its own, or a group of them.

So each has its own peak of memory, and what else the machine does in a while meets all of them.
"""

import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch
import torch.nn.functional as F
from torch._ops import OpOverload
from torch.distributed.elastic.utils.distributed import get_free_port
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from groundwork import utils
from groundwork.engine.precision import DTYPES, computing
from groundwork.experiments.speed.subjects import Workload, build

GIB = 2**30
SIDE = {"cpu": 2048, "cuda": 8192}  # of the matrices whose product shows what a device can do
ONEDNN_LINEAR = "mkldnn::_linear_pointwise"  # of engine/linear.py, which torch has no formula for
IMITATED_SIDE = 256  # where a precision is none of its arithmetic: a larger one would take a minute


@dataclass(frozen=True)
class Timing:
    """Of one variant: the seconds of every repetition, the peak of memory in GiB (of the process on
    a CPU, of torch's tensors on a GPU; of that process of a group that needs most), and the matrix
    products of one step in 10^9 operations."""

    seconds: list[float]
    gib: float
    gflop: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Runner:
    """One variant of a workload in a process of its own, or in as many as it has."""

    def __init__(self, load: Workload, variant: str, device: torch.device):
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        for place in places(load.processes):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=serve, args=(theirs, place, load, variant, device), daemon=True
            )
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self._gflop = 0.0
        self._seconds: list[float] = []

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *exception: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join()

    def _ask(self, what: str) -> float:
        """The largest answer of its processes, all of which are asked before one is heard."""
        for pipe in self._pipes:
            pipe.send(what)
        return self._answer()

    def _answer(self) -> float:
        try:
            return max(pipe.recv() for pipe in self._pipes)
        except EOFError:
            raise ValueError("a measured step failed; its error stands above") from None

    def wait(self) -> None:
        """Until it is built and has done its first step."""
        self._gflop = self._answer()

    def step(self) -> None:
        self._seconds.append(self._ask("step"))

    def timing(self) -> Timing:
        return Timing(self._seconds, self._ask("memory"), self._gflop)


class OperationCounter(TorchDispatchMode):
    """Adds up the operations of matrix products, convolutions and attention, by torch's formulas.

    torch's own `FlopCounterMode` cannot run `autograd.grad` with respect to a leaf.
    """

    total = 0

    def __torch_dispatch__(
        self,
        function: OpOverload,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """As torch calls it in the place of every operator."""
        result = function(*args, **(kwargs or {}))
        count = flop_registry.get(function.overloadpacket)
        if function.name() == ONEDNN_LINEAR:
            self.total += 2 * args[0].numel() * len(args[1])
        elif count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


def places(processes: int) -> list[dict[str, str]]:
    """What a launcher tells each of so many processes on this machine; one by itself nothing."""
    if processes == 1:
        return [{}]
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(get_free_port())}
    shared = where | {"WORLD_SIZE": str(processes)}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def serve(
    pipe: Connection,
    place: Mapping[str, str],
    load: Workload,
    variant: str,
    device: torch.device,
) -> None:
    """Build, warm up and count; then do what is asked until nobody asks any more.

    Args:
        place: what a launcher tells this process. device: in a group, each process has its own.
    """
    os.environ.update(place)
    if load.threads is not None:
        torch.set_num_threads(load.threads)
    with utils.process_group(device.type if place else str(device)) as device:
        step = build(load, variant, device)
        step()
        with torch.compiler.set_stance("force_eager"), OperationCounter() as counter:
            step()
        pipe.send(counter.total / 1e9)
        asked = {"step": lambda: seconds(step, device), "memory": lambda: peak_memory(device)}
        try:
            while True:
                pipe.send(asked[pipe.recv()]())
        except EOFError:
            return


def seconds(step: Callable[[], object], device: torch.device) -> float:
    """Of one call, until a GPU has done all of it; in a group, all begin together."""
    utils.barrier()
    wait(device)
    began = time.perf_counter()
    step()
    wait(device)
    return time.perf_counter() - began


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def side_by_side(
    load: Workload, variants: Sequence[str], repeats: int, device: torch.device
) -> dict[str, Timing]:
    """Variant -> its timing; one repetition of each after the other."""
    timings = in_turn([(load, variant) for variant in variants], repeats, device)
    return dict(zip(variants, timings, strict=True))


def in_turn(
    steps: Sequence[tuple[Workload, str]], repeats: int, device: torch.device
) -> list[Timing]:
    """The timing of every workload in its variant; one repetition of each after the other."""
    with ExitStack() as stack:
        runners = [stack.enter_context(Runner(*step, device)) for step in steps]
        for runner in runners:
            runner.wait()
        for _ in range(repeats):
            for runner in runners:
                runner.step()
        return [runner.timing() for runner in runners]


def product_rates(
    precisions: Sequence[str], repeats: int, device: torch.device
) -> dict[str, float]:
    """Precision -> 10^9 operations per second of the product of two large square matrices, as a
    linear map is computed."""
    found = {}
    for precision in precisions:
        imitated = precision == "bf16" and not utils.computes_in_bf16(device)
        side = IMITATED_SIDE if imitated else SIDE[device.type]
        matrix = torch.randn(side, side, device=device, dtype=DTYPES[precision])

        def product(precision: str = precision, matrix: torch.Tensor = matrix) -> torch.Tensor:
            with torch.no_grad(), computing(device, precision):
                return F.linear(matrix, matrix)

        product()
        taken = statistics.median(seconds(product, device) for _ in range(repeats))
        found[precision] = 2 * side**3 / taken / 1e9
    return found

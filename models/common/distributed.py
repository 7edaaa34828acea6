"""Values of all processes together, with gradients. Without a process group nothing is changed.

Every process must call these in the same order. A gradient is what the sum of all processes'
losses gives; averaged over processes, as DistributedDataParallel does it, it is the gradient of
their mean.
"""

from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from groundwork.models.common.precision import at_least_single
from groundwork.utils import rank, world_size


class _Sum(torch.autograd.Function):
    """Addition over processes, forwards and backwards."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        total = values.detach().clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        torch.distributed.all_reduce(total)
        return total


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of every process's tensor; their shapes are equal."""
    return values if world_size() == 1 else _Sum.apply(values)


def gather_with_gradient(values: Tensor) -> Tensor:
    """(n, ...) -> (processes * n, ...), in the order of ranks; n is the same everywhere."""
    if world_size() == 1:
        return values
    # A sum in which every process fills its own rows: one collective, and its own gradient.
    places = values.new_zeros(world_size(), *values.shape)
    return _Sum.apply(torch.cat([places[: rank()], values[None], places[rank() + 1 :]])).flatten(
        0, 1
    )


class BatchNorm2d(nn.BatchNorm2d):
    """torch's batch norm, whose statistics may be those of all processes' batches together.

    torch's own SyncBatchNorm does the same and works on GPUs only.

    across_processes: whether they are; false: each process by itself.
    """

    across_processes = False
    # Where torch's own may have none.
    num_batches_tracked: Tensor
    running_mean: Tensor
    running_var: Tensor
    momentum: float

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        if not (self.training and self.across_processes and world_size() > 1):
            return super().forward(maps)
        values = at_least_single(maps)
        count = sum_over_processes(values.new_tensor(float(values[:, 0].numel())))
        mean = sum_over_processes(values.sum(dim=(0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = sum_over_processes(centred.square().sum(dim=(0, 2, 3))) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(maps.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def synchronise_batch_norms(module: nn.Module, across_processes: bool) -> None:
    """Set `across_processes` of every batch norm of this kind in a module."""
    for part in module.modules():
        if isinstance(part, BatchNorm2d):
            part.across_processes = across_processes


def mean_count(count: Tensor, *, training: bool) -> Tensor:
    """What losses are divided by: the mean of every process's number, at least 1; no gradient.

    training: False: the number of this process, as those of an evaluation may have different
    numbers of batches.
    """
    count = count.detach().float()
    return (sum_over_processes(count) / world_size() if training else count).clamp(min=1)

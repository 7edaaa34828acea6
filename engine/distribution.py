"""How a model lies on the processes of a group: whole on each, or in parts (FSDP2).

In parts means parameters, gradients and the states of optimisers. Such a model is filled, saved and
validated like a whole one: checkpoints are the same files, which any number of processes goes on
from, sharded or not.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from groundwork import utils
from groundwork.engine.average import WeightAverage


def distribute(module: nn.Module, device: torch.device, *, unused: bool = True) -> nn.Module:
    """Make all processes equal and wrap for gradient averaging; nothing without a group.

    Args:
        unused: whether a step may leave trainable parameters without a gradient.
    """
    if utils.world_size() == 1:
        return module
    # Buffers are sent once: queues then move alike everywhere, and are too large for every step.
    utils.broadcast(module.buffers())
    if is_sharded(module):
        return module  # which averages as its parameters are gathered
    # Kernels of one pixel lie alike in both memory formats; DDP takes them for two.
    one_pixel = r"(?s)Grad strides do not match.*sizes\(\) = \[\d+, \d+, 1, 1\]"
    warnings.filterwarnings("ignore", one_pixel)
    with warnings.catch_warnings():
        # Newer versions of torch have another name for `broadcast_buffers`, which older ones lack.
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(
            module,
            device_ids=[device.index] if device.type == "cuda" else None,
            broadcast_buffers=False,
            find_unused_parameters=unused,
        )


def shard(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    optimizers: Mapping[str, Optimizer],
    average: WeightAverage | None,
    device: torch.device,
) -> None:
    """Leave every process its part of a model that is whole, and the same, on all of them; nothing
    without a group.

    Args:
        blocks: parts of the model that are gathered one after another while a step comes by, and
            let go of again; what is in none of them stays gathered from forward to backward.
        optimizers: over the model's parameters, with the states of a run that goes on.
    """
    if utils.world_size() == 1:
        return
    before = dict(model.named_parameters())
    mesh = init_device_mesh(device.type, (utils.world_size(),))
    for block in (*blocks, model):
        fully_shard(block, mesh=mesh)
    # A warning for who changes what a model gives in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    parts: dict[Tensor, nn.Parameter] = {
        before[name]: part for name, part in model.named_parameters()
    }
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["params"] = [parts[parameter] for parameter in group["params"]]
        for parameter in list(optimizer.state):
            part = parts[parameter]
            state = optimizer.state.pop(parameter)
            optimizer.state[part] = {key: _as(part, value) for key, value in state.items()}
    if average is not None:
        changing = dict(model.named_parameters())
        for name, value in average.mean.items():
            if name in changing:
                average.mean[name] = _as(changing[name], value)


def is_sharded(model: nn.Module) -> bool:
    """Does this process have parts of the parameters only?"""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def local(parameter: Tensor) -> Tensor:
    """The part of a parameter that this process has; all of it if it is not sharded."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def gathered(content: Any) -> Any:
    """The same dicts and lists with whole tensors, on the CPU and on process 0 only; tensors that
    are whole already as they are. All processes must call this."""
    if isinstance(content, DTensor):
        whole_tensor = content.full_tensor()
        return whole_tensor.cpu() if utils.is_main() else None
    if isinstance(content, dict):
        return {key: gathered(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(map(gathered, content))
    return content


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Inside, every process has all parameters of a sharded model, so that each may evaluate as
    many batches as it has."""
    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.reshard()
            module.set_reshard_after_forward(module is not model, recurse=False)


def _as(part: Tensor, value: Any) -> Any:
    """A state of a parameter, of which this process keeps what it keeps of the parameter."""
    if not (isinstance(part, DTensor) and isinstance(value, Tensor) and value.shape == part.shape):
        return value
    return distribute_tensor(value, part.device_mesh, part.placements, src_data_rank=None)

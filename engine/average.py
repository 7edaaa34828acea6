"""A running mean of a model's weights, which generalises better than the weights themselves."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential mean over the optimiser steps of all that training changes, buffers included.

    The decay grows with the steps, min(cap, (1 + n) / (10 + n)) before step n, so that the first
    weights are soon forgotten. Integer buffers, such as counters, are cut to integers: the rule of
    RefCLIP and SimREC. Weights that are frozen are shared with the model.

    Args:
        model: gives the first values. cap: of the decay.
    """

    def __init__(self, model: nn.Module, cap: float):
        self.cap, self.steps = cap, 0
        self.mean = {name: value.detach().clone() for name, value in _changing(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the model's values after an optimiser step into the mean."""
        decay = min(self.cap, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for name, value in _changing(model).items():
            mean = self.mean[name]
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(mean * decay + value * (1 - decay))

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Inside, the model has the mean's values."""
        own = {name: value.detach().clone() for name, value in _changing(model).items()}
        _put(model, self.mean)
        try:
            yield
        finally:
            _put(model, own)

    def restore(self, model: nn.Module, weights: dict[str, Tensor], steps: int) -> None:
        """Continue a run: `model` holds the mean, as its checkpoints do, and gets `weights`, those
        that the optimiser moves."""
        self.mean = {name: value.detach().clone() for name, value in _changing(model).items()}
        self.steps = steps
        _put(model, weights)


def raw_weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies of what training changes."""
    return {name: value.detach().clone() for name, value in _changing(model).items()}


def _changing(model: nn.Module) -> dict[str, Tensor]:
    """Trainable parameters and buffers by name; no buffers that a state dict leaves out, which are
    constants such as a table of positions."""
    state = model.state_dict(keep_vars=True)
    return {
        name: value
        for name, value in state.items()
        if value.requires_grad or not isinstance(value, nn.Parameter)
    }


@torch.no_grad()
def _put(model: nn.Module, values: dict[str, Tensor]) -> None:
    own = _changing(model)
    for name, value in values.items():
        own[name].copy_(value)

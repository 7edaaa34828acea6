"""The optimiser: torch's AdamW over two groups of parameters."""

from typing import Protocol

import torch
from torch import nn


class OptimizerSettings(Protocol):
    """What this module reads of the configuration (`configs.schema.OptimizerConfig`)."""

    @property
    def lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def betas(self) -> tuple[float, float]: ...
    @property
    def eps(self) -> float: ...


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups: weight matrices with decay; biases and 1-d weights (norms, temperature) without.

    Frozen parameters are in neither. A parameter shared under two names appears once.

    Raises:
        ValueError: the model has no trainable parameter.
    """
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("the model has no trainable parameters; unfreeze what is to be trained")
    plain = [p for name, p in trainable if p.ndim <= 1 or name.endswith(".bias")]
    without_decay = {id(p) for p in plain}
    decayed = [p for _, p in trainable if id(p) not in without_decay]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def create_optimizer(config: OptimizerSettings, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW for the trainable parameters of `model`, fused where their device allows it."""
    groups = parameter_groups(model, config.weight_decay)
    fusable = all(p.device.type in ("cpu", "cuda") for g in groups for p in g["params"])
    return torch.optim.AdamW(
        groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fusable or None
    )

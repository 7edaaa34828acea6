"""The optimiser: torch's AdamW over groups of parameters."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import nn


class OptimizerSettings(Protocol):
    """What this module reads of the configuration (`settings.optimisation.OptimizerConfig`)."""

    @property
    def lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def betas(self) -> tuple[float, float]: ...
    @property
    def eps(self) -> float: ...
    @property
    def decay(self) -> str: ...
    @property
    def amsgrad(self) -> bool: ...
    @property
    def peaks(self) -> Mapping[str, float]: ...


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups: with decay; and without, those of exactly one dimension and those called ".bias".

    So a parameter of no dimension, such as a temperature, is decayed.

    Frozen parameters are in neither. A parameter shared under two names appears once.

    Raises:
        ValueError: the model has no trainable parameter.
    """
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("the model has no trainable parameters; unfreeze what is to be trained")
    plain = [p for name, p in trainable if p.ndim == 1 or name.endswith(".bias")]
    without_decay = {id(p) for p in plain}
    decayed = [p for _, p in trainable if id(p) not in without_decay]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def named_groups(
    model: nn.Module, rates: Mapping[tuple[str, ...], float], *, rest: float
) -> list[dict]:
    """One group per learning rate, chosen by parts of the parameters' names.

    Args:
        model: its frozen parameters are in no group.
        rates: parts of names -> learning rate. A parameter belongs to the first entry of which any
            part occurs in its name.
        rest: learning rate of all others.

    Returns:
        The rest first, then the groups in the order of `rates`, some maybe empty. Each has
        `params`, `lr` and `lr_scale`, its share of the rate of the rest, which
        `scheduler.apply_learning_rate` keeps.

    Raises:
        ValueError: the model has no trainable parameter.
    """
    members: list[list[nn.Parameter]] = [[] for _ in range(1 + len(rates))]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            hits = (i for i, parts in enumerate(rates, 1) if any(part in name for part in parts))
            members[next(hits, 0)].append(parameter)
    if not any(members):
        raise ValueError("the model has no trainable parameters; unfreeze what is to be trained")
    peaks = (rest, *rates.values())
    return [
        {"params": params, "lr": lr, "lr_scale": lr / rest}
        for params, lr in zip(members, peaks, strict=True)
    ]


def create_optimizer(config: OptimizerSettings, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW for the trainable parameters of `model`, fused where their device allows it.

    With `decay` "matrices" over `parameter_groups` (ALBEF's released rule), else over
    `named_groups`, all of them with weight decay (RefTR's).

    Raises:
        ValueError: no trainable parameter, or a key of `config.peaks` that is in no name.
    """
    if config.decay == "matrices":
        return _adamw(config, parameter_groups(model, config.weight_decay))
    names = [name for name, _ in model.named_parameters()]
    unused = [key for key in config.peaks if not any(key in name for name in names)]
    if unused:
        raise ValueError(
            f"optimizer.rates or factors: no parameter's name contains {', '.join(unused)}"
        )
    rates: dict[tuple[str, ...], float] = {(key,): rate for key, rate in config.peaks.items()}
    groups = [group for group in named_groups(model, rates, rest=config.lr) if group["params"]]
    return _adamw(config, [{**group, "weight_decay": config.weight_decay} for group in groups])


def _adamw(config: OptimizerSettings, groups: list[dict]) -> torch.optim.Optimizer:
    fusable = all(p.device.type in ("cpu", "cuda") for g in groups for p in g["params"])
    return torch.optim.AdamW(
        groups,
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        amsgrad=config.amsgrad,
        fused=fusable or None,
    )

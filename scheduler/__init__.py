"""The learning rate as a pure function of the position in the run: nothing to save or resume."""

import math
from collections.abc import Sequence
from typing import Protocol

import torch


class ScheduleSettings(Protocol):
    """What this module reads of the configuration (`settings.optimisation.ScheduleConfig`)."""

    @property
    def name(self) -> str: ...
    @property
    def min_lr(self) -> float: ...
    @property
    def warmup_lr(self) -> float: ...
    @property
    def warmup_epochs(self) -> float: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def step_size(self) -> int: ...
    @property
    def drop_epochs(self) -> Sequence[float]: ...
    @property
    def floor(self) -> float: ...
    @property
    def epochs(self) -> int | None: ...


class PeakRate(Protocol):
    """The optimiser's settings, of which the peak learning rate counts."""

    @property
    def lr(self) -> float: ...


def learning_rate(
    schedule: ScheduleSettings,
    optimizer: PeakRate,
    epoch: int,
    iteration: int,
    steps_per_epoch: int,
) -> float:
    """The learning rate of one optimiser step.

    `cosine_epochs` is `epoch_rate`. `cosine_steps` and `cosine_rates` climb linearly, for
    `warmup_steps` steps or `warmup_epochs` epochs, and fall along a cosine until the last step. All
    others are the peak times `rate_factor`.

    Args:
        schedule: its `epochs` must be set. optimizer: its `lr` is the peak.
        epoch: counted over the whole run, all stages together, from 0.
        iteration: optimiser step within the epoch, from 0.
        steps_per_epoch: optimiser steps of an epoch. Stages may differ in it; the schedule follows
            the share of the epochs.
    """
    if schedule.epochs is None:
        raise ValueError("schedule.epochs is not set; give the length of the cosine in epochs")
    if schedule.name == "cosine_epochs":
        return epoch_rate(schedule, optimizer, epoch, iteration)
    step, total = epoch * steps_per_epoch + iteration, schedule.epochs * steps_per_epoch
    if schedule.name not in ("cosine_steps", "cosine_rates"):
        return optimizer.lr * rate_factor(schedule, step, steps_per_epoch, schedule.epochs)
    of_epochs = round(schedule.warmup_epochs * steps_per_epoch)
    warmup = schedule.warmup_steps if schedule.name == "cosine_steps" else of_epochs
    rates = (schedule.warmup_lr, optimizer.lr, schedule.min_lr)
    return climb_and_fall(step, total=total, warmup=warmup, rates=rates)


def epoch_rate(
    schedule: ScheduleSettings, optimizer: PeakRate, epoch: int, iteration: int
) -> float:
    """The rule of the released ALBEF, AMC and SelfEQ training.

    An index t walks along a linear warm-up of `warmup_epochs` indices and then a cosine of `epochs`
    indices, see `warm_cosine`. Epoch 0 moves by one index per `step_size` iterations until the
    warm-up is over and stays at the peak; the released loop sets the rate after the step, so that
    iteration i >= 1 has the index (i - 1) // step_size. Epoch e >= 1 has the index
    warmup_epochs + e throughout.
    """
    assert schedule.epochs is not None
    warmup = round(schedule.warmup_epochs)
    if epoch == 0:
        index = min(max(iteration - 1, 0) // schedule.step_size, warmup)
    else:
        index = warmup + epoch
    rates = (schedule.warmup_lr, optimizer.lr, schedule.min_lr)
    return warm_cosine(index, epochs=schedule.epochs, warmup=warmup, rates=rates)


def warm_cosine(
    index: int, *, epochs: int, warmup: int, rates: tuple[float, float, float]
) -> float:
    """Linear from `rates[0]` to the peak `rates[1]` over `warmup` indices, then a whole cosine of
    `epochs` indices, which begins at the peak; `rates[2]` from its end on."""
    return climb_and_fall(index, total=warmup + epochs, warmup=warmup, rates=rates)


def climb_and_fall(
    step: int, *, total: int, warmup: int, rates: tuple[float, float, float]
) -> float:
    """Linear from `rates[0]` to `rates[1]` over `warmup` steps, then a cosine to `rates[2]`, which
    it has at step `total`."""
    first, peak, last = rates
    if step < warmup:
        return first + step * (peak - first) / warmup
    share = min(1.0, (step - warmup) / max(1, total - warmup))
    return last + 0.5 * (peak - last) * (1 + math.cos(math.pi * share))


def cosine_factor(step: int, *, total: int, warmup: int = 0, floor: float = 0.01) -> float:
    """Linear climb over `warmup` steps, then a cosine that reaches its end at step `total`.

    The factor of a group's peak rate, never below `floor`, not even during the climb. This and the
    next two rules are RefTR's released ones.
    """
    if step < warmup:
        return max(floor, (step + 1) / warmup)
    share = (step - warmup) / max(1, total - warmup)
    return max(floor, (1 + math.cos(math.pi * share)) / 2)


def multistep_factor(
    step: int, *, milestones: Sequence[int], warmup: int = 0, floor: float = 0.01
) -> float:
    """Linear climb over `warmup` steps, then a tenth from each milestone on, not below `floor`."""
    if step < warmup:
        return max(floor, (step + 1) / warmup)
    return max(floor, 0.1 ** sum(milestone <= step for milestone in milestones))


def step_factor(step: int, *, every: int) -> float:
    """A tenth after each `every` steps; no warm-up, no floor."""
    return 0.1 ** (step // every)


def rate_factor(
    schedule: ScheduleSettings, step: int, steps_per_epoch: int, total_epochs: float
) -> float:
    """The factor on the learning rate at an optimiser step of the run.

    "step" is `step_factor`, "multistep" `multistep_factor`, "cosine" `cosine_factor` until the
    run's end, with epochs made steps, "epochs" `epoch_factor`.

    Args:
        step: counted over the whole run, from 0.
        steps_per_epoch: optimiser steps of an epoch. total_epochs: of the run.
    """
    drops = [round(epoch * steps_per_epoch) for epoch in schedule.drop_epochs]
    if schedule.name == "step":
        return step_factor(step, every=max(1, drops[0]))
    if schedule.name == "epochs":
        return epoch_factor(
            step // steps_per_epoch, schedule.drop_epochs, warmup=schedule.warmup_epochs
        )
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    if schedule.name == "multistep":
        return multistep_factor(step, milestones=drops, warmup=warmup, floor=schedule.floor)
    total = round(total_epochs * steps_per_epoch)
    return cosine_factor(step, total=total, warmup=warmup, floor=schedule.floor)


def epoch_factor(epoch: int, drops: Sequence[float], *, warmup: float) -> float:
    """SimVG's and ALVG's rule, the same in all of an epoch, counted from 0.

    (epoch + 1) / (warmup + 1) in the warm-up, then a tenth for every drop d with epoch + 1 >= d.
    """
    if epoch < warmup:
        return (epoch + 1) / (warmup + 1)
    return 0.1 ** sum(epoch + 1 >= drop for drop in drops)


def apply_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of every parameter group: `rate` times its `lr_scale`, if it has
    one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)

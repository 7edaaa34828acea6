"""Optimiser and learning rate of a run, or of a stage."""

from dataclasses import dataclass, field
from typing import Literal

from groundwork.models.common.checks import require, require_positive


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW.

    name: the only legal one, so that a file that asks for another is refused.
    lr: peak learning rate. betas, eps: as in the paper of Adam.
    weight_decay: 0 makes it Adam. decay: on "all" parameters, biases and norms included (RefTR,
        RefCLIP, SimREC, ALVG), or on "matrices" only (ALBEF), not on biases and 1-d weights.
    rates: other peak rates for the parameters whose name contains a key, the first key that fits
        ("lang_backbone": 1e-5); they stay where they are when `lr` is changed. At 0 those
        parameters stay as they are.
    factors: the same as multiples of `lr`, which move with it ("mask_head": 10); after `rates`.
    amsgrad: its variant with the largest second moment (ALVG).
    """

    name: Literal["adamw"] = "adamw"
    lr: float = 1e-4
    weight_decay: float = 1e-4
    decay: Literal["all", "matrices"] = "all"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    rates: dict[str, float] = field(default_factory=dict)
    factors: dict[str, float] = field(default_factory=dict)
    amsgrad: bool = False

    def __post_init__(self) -> None:
        require_positive(self, "lr", "eps")
        require(
            self.weight_decay >= 0, f"weight_decay is {self.weight_decay}; it must not be negative"
        )
        require(all(0 <= b < 1 for b in self.betas), f"betas {self.betas} must lie in [0, 1)")
        for name, rate in self.rates.items():
            require(rate >= 0, f"rates.{name} is {rate}; it must not be negative")
        for name, factor in self.factors.items():
            require(factor > 0, f"factors.{name} is {factor}; it must be greater than 0")
        both = ", ".join(sorted(self.rates.keys() & self.factors.keys()))
        require(not both, f"rates and factors both name {both}; a part has one or the other")
        require(
            self.decay == "all" or not self.peaks,
            "decay: matrices has no rates or factors; set decay: all for rates of parts",
        )

    @property
    def peaks(self) -> dict[str, float]:
        """The peak rates of the parts of a model that have their own, in the order of groups."""
        return self.rates | {name: factor * self.lr for name, factor in self.factors.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """The learning rate over time (see `scheduler.learning_rate`).

    name: "step" (a tenth after every drop_epochs[0] epochs), "multistep" (a tenth at each of
        drop_epochs), "cosine", "cosine_rates" (RefCLIP, SimREC: from warmup_lr to the peak, then
        along a cosine to min_lr), "epochs" (ALVG: changes between epochs only; a tenth from the
        epoch before each of drop_epochs on), "cosine_epochs" (ALBEF, AMC, SelfEQ: changes per
        epoch), or "cosine_steps" (from warmup_lr to the peak in warmup_steps, then along a cosine
        to min_lr, which a single stage reaches at its last step).
    warmup_epochs: length of the linear warm-up of all but "step" and "cosine_steps", in epochs; may
        be a fraction. "cosine_epochs": epoch 0 warms up for warmup_epochs * step_size iterations.
    warmup_steps: "cosine_steps": length of the linear warm-up in optimiser steps.
    drop_epochs: see name.
    floor: of the factor on the peak, also in the warm-up ("multistep", "cosine").
    warmup_lr, min_lr: first and last rate ("cosine_...").
    epochs: length in epochs; None = those of the run, or of the stage it belongs to.
    """

    name: Literal[
        "step", "multistep", "cosine", "cosine_rates", "epochs", "cosine_epochs", "cosine_steps"
    ] = "step"
    warmup_epochs: float = 0.0
    warmup_steps: int = 0
    step_size: int = 100
    drop_epochs: tuple[float, ...] = ()
    floor: float = 0.01
    warmup_lr: float = 1e-7
    min_lr: float = 1e-6
    epochs: int | None = None

    def __post_init__(self) -> None:
        require_positive(self, "step_size", "epochs")
        for name in ("min_lr", "warmup_lr", "warmup_epochs", "warmup_steps"):
            value = getattr(self, name)
            require(value >= 0, f"{name} is {value}; it must not be negative")
        require(0 <= self.floor <= 1, f"floor is {self.floor}; it must lie in [0, 1]")
        require(
            self.name.startswith("cosine") == (not self.drop_epochs),
            f"schedule {self.name} with drop_epochs {list(self.drop_epochs)}: step needs one, "
            "multistep at least one, cosine none",
        )
        require(
            self.name != "step" or (len(self.drop_epochs) == 1 and not self.warmup_epochs),
            "schedule step takes one drop_epochs and no warm-up; use multistep",
        )
        require(all(epoch > 0 for epoch in self.drop_epochs), "drop_epochs must be positive")

"""How a run is carried out, whatever it trains: its stages, steps and checkpoints."""

from dataclasses import dataclass, field, replace
from typing import Literal

from groundwork.models.common.checks import require, require_positive
from groundwork.settings.data import Files
from groundwork.settings.optimisation import OptimizerConfig, ScheduleConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class StageConfig:
    """Some epochs of a run on the same data with the same objectives.

    epochs: how many. steps: at most this many optimiser steps per epoch; None = all data.
    objective: of ALBEF: one or several of its objectives.
    train: annotation files by split in the place of data.train; None: those of data.train that the
        objectives learn from. splits: of it, these; empty: all.
    format, image_root: of these files; None = those of data.
    augment: overrides data.augment (ALBEF); None keeps it.
    sentences_at_once: overrides data.sentences_at_once (RefTR); None keeps it.
    optimizer, schedule: an optimiser of this stage of its own with its schedule; None = the run's.
    """

    epochs: int
    steps: int | None = None
    objective: tuple[str, ...] = ()
    train: dict[str, Files] | None = None
    splits: tuple[str, ...] = ()
    format: str | None = None
    image_root: str | None = None
    augment: bool | None = None
    sentences_at_once: int | None = None
    optimizer: OptimizerConfig | None = None
    schedule: ScheduleConfig | None = None

    def __post_init__(self) -> None:
        require_positive(self, "epochs", "steps", "sentences_at_once")
        require(len(set(self.objective)) == len(self.objective), "objective names one twice")
        require(self.train is None or bool(self.train), "train names no split")
        for split, files in (self.train or {}).items():
            require(bool(files), f"train.{split} names no file; give its annotation files")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """How a run is carried out.

    stages: what is trained, in this order; none: nothing is. A file may say `epochs` and `steps` of
        the last one beside them. The schedule runs over all of them.
    batch_size: samples per process and forward. eval_batch_size: of an evaluation (of ALBEF images,
        each with all its phrases); None = the same.
    accumulate: forwards per optimiser step. clip_norm: largest gradient norm; None = no clipping.
    ema: cap of the decay of a running mean of the weights, which is what is evaluated and saved
        (RefCLIP and SimREC 0.9997); None = none.
    precision: of the forward pass (weights stay fp32); auto = bf16 where the machine has arithmetic
        for it, else fp32.
    sharded: parameters, gradients and states of the optimiser are split over the processes (FSDP2)
        instead of being whole on each: ALVG; fp32 or bf16.
    compile: what a step can compile of the model is compiled by torch.compile, which takes a minute
        or several at its first steps; on a CPU that takes a C++ compiler. Evaluations are not.
    seed: of everything random; rank r uses seed + r.
    log_every: steps between log lines.
    save_every_steps: steps between extra checkpoints; None = at epoch ends only.
    keep: epoch checkpoints that stay on disk, the newest ones; None = all.
    """

    stages: tuple[StageConfig, ...] = ()
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig
    batch_size: int = 8
    eval_batch_size: int | None = None
    accumulate: int = 1
    clip_norm: float | None = 0.1
    ema: float | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    sharded: bool = False
    compile: bool = False
    seed: int = 42
    log_every: int = 50
    save_every_steps: int | None = None
    keep: int | None = None

    def __post_init__(self) -> None:
        require_positive(self, "batch_size", "eval_batch_size", "accumulate", "clip_norm")
        require_positive(self, "log_every", "save_every_steps", "keep")
        require(self.ema is None or 0 <= self.ema < 1, f"ema is {self.ema}; it must be in [0, 1)")
        require(
            not (self.sharded and self.precision == "fp16"),
            "sharded: true trains in fp32 or bf16; set precision",
        )
        require(
            not (self.sharded and self.compile),
            "sharded: true does not go with compile: true; leave one of them out",
        )
        self._fill_schedule_lengths()

    @property
    def epochs(self) -> int:
        """Epochs of all stages together, over which the schedule runs."""
        return sum(stage.epochs for stage in self.stages)

    def _fill_schedule_lengths(self) -> None:
        def fill(schedule: ScheduleConfig, epochs: int) -> ScheduleConfig:
            return schedule if schedule.epochs else replace(schedule, epochs=epochs)

        if not self.stages:
            return
        stages = tuple(
            replace(stage, schedule=fill(stage.schedule, stage.epochs)) if stage.schedule else stage
            for stage in self.stages
        )
        object.__setattr__(self, "schedule", fill(self.schedule, self.epochs))
        object.__setattr__(self, "stages", stages)

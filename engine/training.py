"""The training loop of every system; none is known by name here.

A run is a list of stages, each with its data, criterion, optimiser and schedule. Whatever a step
draws at random follows from (seed, epoch, step, rank), and so do data order and augmentation
(`dataset.loader`): a run that is stopped anywhere and resumed goes on exactly as if nothing had
happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from functools import reduce
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from groundwork import utils
from groundwork.dataset.batches import Batch, TrainBatch
from groundwork.dataset.loader import TrainLoader
from groundwork.engine.average import WeightAverage
from groundwork.engine.curves import open_curves
from groundwork.engine.distribution import distribute, shard, whole
from groundwork.engine.folder import LOG, STEPS, lies_in, remove_log
from groundwork.engine.log import RunLog
from groundwork.engine.names import Names
from groundwork.engine.precision import chosen, computing
from groundwork.engine.preemption import Interrupted, Preemption
from groundwork.engine.snapshot import Model, Position, Snapshots
from groundwork.engine.weights import require_finite, require_weighted
from groundwork.models.common.criterion import Criterion
from groundwork.scheduler import apply_learning_rate

AnyBatch = TypeVar("AnyBatch", bound=Batch)


@dataclass(kw_only=True)
class Stage:
    """Some epochs of a run.

    name: for the log.
    criterion: its losses. loader: its batches.
    optimizer_name: key into the run's optimisers; stages that share one continue its state.
    learning_rate: (epoch, step, steps_per_epoch) -> rate, both counted over the whole run and
        within the epoch.
    epochs: how many; steps: at most this many optimiser steps per epoch.
    names: of its checkpoints, and what log.txt says about its epochs.
    """

    name: str
    criterion: Criterion
    loader: TrainLoader
    optimizer_name: str
    learning_rate: Callable[[int, int, int], float]
    epochs: int
    steps: int | None = None
    names: Names = field(default_factory=Names)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a run is carried out; fields as in `settings.training.TrainingConfig`.

    unused_parameters: whether a step may leave trainable parameters without a gradient, because
        what it reaches depends on its batch.
    ema: cap of the decay of the running mean of the weights that is validated and saved; None: the
        weights themselves are.
    """

    seed: int
    precision: str = "fp32"
    accumulate: int = 1
    clip_norm: float | None = None
    log_every: int = 50
    save_every_steps: int | None = None
    unused_parameters: bool = True
    ema: float | None = None
    sharded: bool = False

    @classmethod
    def of(cls, config: object, *, unused_parameters: bool) -> Settings:
        """The settings that a configuration of any system holds under the same names, and the one
        that it does not."""
        names = {field.name for field in fields(cls)} - {"unused_parameters"}
        held = {name: getattr(config, name) for name in names}
        return cls(**held, unused_parameters=unused_parameters)


@dataclass(frozen=True, kw_only=True)
class Validation:
    """An evaluation after an epoch, by which the best checkpoints are chosen.

    run: number of finished epochs, what tells it to end (`Preemption.until_told` is around its
        batches) -> named values, the higher the better; None when none is due. Called on every
        process, with the model in evaluation mode.
    best: file name of a checkpoint -> the value of which it has the highest of all epochs.
    """

    run: Callable[[int, Preemption], dict[str, float] | None]
    best: Mapping[str, str]


class TrainingStep(nn.Module):
    """Model and criterion as one forward, so that one wrapper sees all that has a gradient."""

    def __init__(self, model: nn.Module, criterion: Criterion):
        super().__init__()
        self.model = model
        self.criterion = criterion
        self._first = True

    def forward(self, batch: TrainBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the weighted total and the detached named scalars.

        Raises:
            ValueError: at the first step, losses and weights do not belong together.
        """
        losses: dict[str, Tensor] = self.criterion(self.model(batch), batch)
        weights = self.criterion.weights
        if self._first:
            require_weighted(weights, losses)
            self._first = False
        parts = [weights[name] * value for name, value in losses.items() if name in weights]
        return reduce(torch.add, parts), {name: value.detach() for name, value in losses.items()}


class Trainer(Generic[Model]):
    """What `fit` carries from step to step."""

    def __init__(
        self,
        model: Model,
        optimizers: dict[str, Optimizer],
        settings: Settings,
        *,
        snapshots: Snapshots[Model],
        log: RunLog,
        device: torch.device,
        validation: Validation | None = None,
    ):
        self.model = model
        self.optimizers = optimizers
        self.settings = settings
        self.snapshots = snapshots
        self.log = log
        self.device = device
        self.validation = validation
        self.position = Position()
        # Processes draw different first weights, and the running mean begins with them.
        utils.broadcast([*model.parameters(), *model.buffers()])
        self.average = None if settings.ema is None else WeightAverage(model, settings.ema)
        self.preemption = Preemption()
        self.precision = chosen(settings.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")

    def resume(self, path: Path, stages: Sequence[Stage]) -> None:
        """Continue from a checkpoint; lines of the log about later steps are taken back."""
        self.position, log = self.snapshots.restore(
            path, self.model, self.optimizers, self.scaler, self.average
        )
        if log is not None:
            self.log.restore(log, self.device)
        if path != self.snapshots.last:
            of_epoch = (stage for stage in stages for _ in range(stage.epochs))
            names = next(islice(of_epoch, self.position.epoch - 1, None)).names
            self.snapshots.complete_first_epoch(path, names)

    def train(self, stages: Sequence[Stage], blocks: Sequence[nn.Module] = ()) -> None:
        """All epochs of all stages, from `position` on; `blocks`: of the model, see
        `distribution.shard`."""
        if self.settings.sharded:
            shard(self.model, blocks, self.optimizers, self.average, self.device)
        first = 0
        for stage in stages:
            step = TrainingStep(self.model, stage.criterion)
            module = distribute(step, self.device, unused=self.settings.unused_parameters)
            while first <= self.position.epoch < first + stage.epochs:
                self.train_epoch(stage, module)
            first += stage.epochs

    def train_epoch(self, stage: Stage, module: nn.Module) -> None:
        """The rest of one epoch, from `position` on."""
        position, accumulate = self.position, self.settings.accumulate
        steps = stage.loader.sampler.steps_per_epoch // accumulate
        steps = min(steps, stage.steps or steps)
        if steps == 0:
            raise ValueError(
                f"stage {stage.name}: fewer batches than accumulate={accumulate}; "
                "lower batch_size or accumulate"
            )
        stage.loader.sampler.set_epoch(position.epoch, position.step * accumulate)
        optimizer = self.optimizers[stage.optimizer_name]
        batches: Iterator[TrainBatch] = iter(stage.loader)
        self.log.start_epoch(stage.name, position, steps, stage.names.epoch_line)
        while position.step < steps:
            rate = stage.learning_rate(position.epoch, position.step, steps)
            apply_learning_rate(optimizer, rate)
            stage.criterion.start_step(position.epoch, position.step, steps)
            seed_step(self.settings.seed, position)
            micro_batches = [next(batches) for _ in range(accumulate)]
            try:
                losses = self.train_step(module, optimizer, micro_batches)
            except RuntimeError:
                require_finite(self.model)  # if that is why a step fails, it is what is said
                raise
            position.step += 1
            position.global_step += 1
            self.log.step(position, losses, rate, micro_batches)
            every, asked = self.settings.save_every_steps, self.preemption.asked()
            due = every and position.global_step % every == 0 and position.step < steps
            if due or asked:
                self.log.check_finite()
                require_finite(self.model)
                self.snapshots.save_position(self._content(stage), position)
            if asked:
                self.preemption.end(position.global_step)
        self._end_epoch(stage, steps)

    def _end_epoch(self, stage: Stage, steps: int) -> None:
        """What follows the last of so many steps: the log's line, the validation, the files."""
        position = self.position
        # Of the last step, which a run that was resumed behind it has not made.
        self.log.end_epoch(position, stage.learning_rate(position.epoch, steps - 1, steps))
        require_finite(self.model)
        position.epoch, position.step = position.epoch + 1, 0
        try:
            best = self._best()
        except Interrupted:
            # The last step is saved; a run that goes on comes to the end of this epoch again.
            position.epoch, position.step = position.epoch - 1, steps
            self.model.train()
            self.snapshots.save_position(self._content(stage), position)
            self.preemption.end(position.global_step)
        content = self._content(stage)
        for name in best:
            # Before the epoch's own file: a run that is killed between them does the epoch again.
            self.snapshots.save_best(content, position, name)
        self.snapshots.save_epoch(content, position, stage.names)

    def _best(self) -> list[str]:
        """Validate, if it is time; the files of which this epoch is the best one so far."""
        if self.validation is None:
            return []
        self.model.eval()
        average = self.average.applied(self.model) if self.average else nullcontext()
        # Evaluations explain what they find, which compiled parts cannot.
        with average, whole(self.model), torch.compiler.set_stance("force_eager"):
            # Batch norms count other images on every process; process 0's are saved.
            utils.broadcast(self.model.buffers())
            values = self.validation.run(self.position.epoch, self.preemption)
        self.model.train()
        if values is None:
            return []
        self.log.validation(self.position, values)
        best = self.validation.best
        return [name for name in best if self.snapshots.note(name, values[best[name]])]

    def train_step(
        self, module: nn.Module, optimizer: Optimizer, micro_batches: list[TrainBatch]
    ) -> dict[str, Tensor]:
        """One optimiser step over one or several batches; returns their mean named scalars."""
        sums: dict[str, Tensor] = {}
        for index, batch in enumerate(micro_batches):
            last = index == len(micro_batches) - 1
            group = module if isinstance(module, DistributedDataParallel) else None
            with nullcontext() if last or group is None else group.no_sync():
                with computing(self.device, self.precision):
                    total, losses = module(to_device(batch, self.device))
                self.scaler.scale(total / len(micro_batches)).backward()
            for name, value in (losses | {"loss": total.detach()}).items():
                sums[name] = sums.get(name, 0) + value / len(micro_batches)
        if self.settings.clip_norm is not None:
            self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.model)
        return sums

    def _content(self, stage: Stage) -> dict[str, Any]:
        return self.snapshots.content(
            self.model,
            self.optimizers,
            stage.optimizer_name,
            scaler=self.scaler,
            position=self.position,
            log=self.log.state(),
            average=self.average,
            names=stage.names,
        )


def fit(
    model: Model,
    stages: list[Stage],
    optimizers: dict[str, Optimizer],
    settings: Settings,
    *,
    snapshots: Snapshots[Model],
    output_dir: Path,
    device: torch.device,
    resume: Path | None = None,
    validation: Validation | None = None,
    trackers: Sequence[str] = (),
    blocks: Sequence[nn.Module] = (),
) -> None:
    """Train `model` through all stages.

    Args:
        model: batch -> outputs; already on `device`, its weights loaded.
        optimizers: name -> optimiser over the model's parameters.
        snapshots: writes and reads checkpoints.
        output_dir: receives checkpoints, `log.txt` (JSON lines) and TensorBoard files.
        resume: checkpoint to continue from.
        validation: chooses the best checkpoints; None: there are none.
        trackers: keys of `curves.TRACKERS` that are told, too.
        blocks: of the model, see `distribution.shard`.

    Raises:
        FloatingPointError: a loss or a weight is no longer finite; the message lists the parts.
            Nothing is saved after it.
        SystemExit: the run was told to end and is to be resumed, see `engine.preemption`.
    """
    if resume is None or not lies_in(resume, output_dir):
        remove_log(output_dir)
    log = RunLog(
        output_dir,
        settings.log_every,
        sum(stage.epochs for stage in stages),
        file=LOG if all(stage.names.epoch_line is None for stage in stages) else STEPS,
        curves=lambda: open_curves(output_dir, trackers, snapshots.config),
    )
    trainer = Trainer(
        model,
        optimizers,
        settings,
        snapshots=snapshots,
        log=log,
        device=device,
        validation=validation,
    )
    snapshots.remove_partial()
    if resume is not None:
        trainer.resume(resume, stages)
    log.rewind(trainer.position)
    model.train()
    try:
        with trainer.preemption:
            trainer.train(stages, blocks)
    finally:
        log.close()


def seed_step(seed: int, position: Position) -> None:
    """Give this step of this process its own random numbers, and all processes their shared ones
    (`utils.shared_random`), whatever happened before it."""
    step = (seed, position.epoch, position.step)
    torch.manual_seed(_seed_of(*step, utils.rank()))
    utils.shared_random.manual_seed(_seed_of(*step))


def _seed_of(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def to_device(batch: AnyBatch, device: torch.device) -> AnyBatch:
    """The batch with its tensors on `device`; other values as they are."""
    moved = {
        key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for key, value in batch.items()
    }
    return cast(AnyBatch, moved)  # the same keys, which no type of a comprehension can say

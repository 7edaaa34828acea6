"""What a training run tells: a progress bar, `log.txt` (JSON lines) and curves (`engine.curves`).

Where a stage has a published form for what `log.txt` says about an epoch, that is what the file
holds, and our own lines are in `steps.txt`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from groundwork import utils
from groundwork.dataset.batches import TrainBatch
from groundwork.engine.curves import Curves, open_curves
from groundwork.engine.faults import FaultLog
from groundwork.engine.folder import LOG
from groundwork.engine.names import EpochLine
from groundwork.engine.snapshot import Position
from groundwork.files.json_lines import JsonLines


class RunLog:
    """Means of the named losses every `every` steps and every epoch; only the main process writes.

    Losses stay on their device until a line is written: reading them earlier would make every step
    wait.

    Args:
        folder: receives `log.txt` and `tensorboard/`.
        every: steps between lines.
        epochs: of the whole run, for the bar.
        file: of our own lines; with another one than `LOG`, that has the stages' epoch lines.
        curves: where they are drawn, on the main process; None: by TensorBoard.
    """

    def __init__(
        self,
        folder: Path,
        every: int,
        epochs: int,
        *,
        file: str = LOG,
        curves: Callable[[], list[Curves]] | None = None,
    ):
        self.lines = JsonLines(Path(folder) / file)
        self.epoch_lines = JsonLines(Path(folder) / LOG) if file != LOG else None
        self.every = every
        self.epochs = epochs
        self.main = utils.is_main()
        self.bar = tqdm(disable=True)
        self.curves: list[Curves] = []
        if self.main:
            self.curves = open_curves(Path(folder)) if curves is None else curves()
        self._window, self._epoch, self._rates, self._corrupt = Mean(), Mean(), Mean(), 0
        self._faults = FaultLog(folder)

    def rewind(self, position: Position) -> None:
        """Take back lines about what lies after `position`: the run will write them again."""
        steps, epochs = position.global_step, position.epoch
        self.lines.replace(
            row
            for row in self.lines.rows()
            # The line of an epoch has the step of the last one in it.
            if row["global_step"] <= steps and (row["kind"] == "step" or row["epoch"] < epochs)
        )
        if self.epoch_lines is not None:
            rows = self.epoch_lines.rows()
            self.epoch_lines.replace(row for row in rows if row["epoch"] < position.epoch)

    def state(self) -> dict[str, Any]:
        """The unfinished means of this process."""
        return {
            "window": self._window.state(),
            "epoch": self._epoch.state(),
            "rates": self._rates.state(),
            "corrupt": self._corrupt,
        }

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on with the means of a `state`, in the middle of an epoch."""
        self._window = Mean.restored(state["window"], device)
        self._epoch = Mean.restored(state["epoch"], device)
        self._rates = Mean.restored(state["rates"], device)
        self._corrupt = state["corrupt"]

    def start_epoch(
        self,
        stage: str,
        position: Position,
        steps: int,
        epoch_line: EpochLine | None = None,
    ) -> None:
        """Begin an epoch of `steps` steps, or go on with it from `position.step`.

        Args:
            epoch_line: see `engine.names.Names`.
        """
        self.stage, self._epoch_line = stage, epoch_line
        if position.step == 0:
            self._window, self._epoch, self._rates, self._corrupt = Mean(), Mean(), Mean(), 0
        self._since, self._samples = time.perf_counter(), 0
        title = f"epoch {position.epoch + 1}/{self.epochs} {stage}"
        self.bar = tqdm(
            total=steps, initial=position.step, desc=title, disable=not self.main, mininterval=1.0
        )

    def step(
        self,
        position: Position,
        losses: dict[str, Tensor],
        rate: float,
        batches: list[TrainBatch],
    ) -> None:
        """Take note of one step: its losses, learning rate and batches.

        Raises:
            FloatingPointError: a line is due and a loss since the epoch began is not finite.
        """
        self._window.add(losses)
        self._epoch.add(losses)
        self._rates.add({"lr": torch.tensor(rate)})
        self._samples += sum(len(batch["image"]) for batch in batches) * utils.world_size()
        self._corrupt += sum(batch["corrupt"] for batch in batches)
        for batch in batches:
            self._faults.add(batch["faults"])
        self.bar.update()
        if position.step % self.every == 0:
            self._line("step", position, rate, self._window)
            self._window = Mean()
            self._since, self._samples = time.perf_counter(), 0

    def check_finite(self) -> None:
        """Raises FloatingPointError, naming the parts, if any loss is no longer finite."""
        bad = {k: v for k, v in self._epoch.values().items() if not math.isfinite(v)}
        if bad:
            parts = ", ".join(f"{name} {value:.4g}" for name, value in self._epoch.values().items())
            raise FloatingPointError(
                f"the loss is no longer finite ({', '.join(bad)}). Means of this epoch: {parts}. "
                "Lower the learning rate, set clip_norm, or train in fp32."
            )

    def end_epoch(self, position: Position, rate: float) -> None:
        """Write the epoch's line. Raises FloatingPointError as `check_finite` does."""
        means = self._line("epoch", position, rate, self._epoch)
        if self.epoch_lines is not None and self._epoch_line is not None:
            self.epoch_lines.append(self._epoch_line(position.epoch, self._rates.values() | means))
        self.bar.close()

    def validation(self, position: Position, values: dict[str, float]) -> None:
        """Write a line about an evaluation after an epoch; all processes have the same values."""
        if not self.main:
            return
        where = {"epoch": position.epoch - 1, "step": 0, "global_step": position.global_step}
        self.lines.append({"kind": "validation", "stage": self.stage, **where, **values})
        self._draw("validation", values, position)

    def close(self) -> None:
        """Close the bar and the curves, also after an error."""
        # After an error it is still open, and would be drawn over the message at exit.
        self.bar.close()
        for curves in self.curves:
            curves.close()

    def _line(self, kind: str, position: Position, rate: float, mean: Mean) -> dict[str, float]:
        """Write a line; returns the means over all processes that it holds."""
        self.check_finite()
        values = _mean_over_processes(mean.values())
        corrupt = sum(utils.all_gather_objects(self._corrupt))
        faults = self._faults.write() if kind == "epoch" else 0
        if not self.main:
            return values
        line: dict[str, Any] = {
            "kind": kind,
            "stage": self.stage,
            "epoch": position.epoch,
            "step": position.step,
            "global_step": position.global_step,
            "lr": rate,
            **{name: float(f"{value:.6g}") for name, value in values.items()},
        }
        if kind == "step":
            seconds = time.perf_counter() - self._since
            line["samples_per_second"] = round(self._samples / seconds, 2)
        if corrupt:
            line["corrupt_images_replaced"] = corrupt
        if faults:
            line["records_not_as_annotated"] = faults
        self.lines.append(line)
        self._draw(kind, {"lr": rate, **values}, position)
        self.bar.set_postfix(
            {name: f"{value:.3f}" for name, value in values.items()}, refresh=False
        )
        return values

    def _draw(self, kind: str, values: dict[str, float], position: Position) -> None:
        named = {f"{kind}/{name}": value for name, value in values.items()}
        for curves in self.curves:
            curves.add(named, position.global_step)


@dataclass
class Mean:
    """Running means of named scalars; a name may be absent from some steps."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def state(self) -> dict[str, Any]:
        return {"sums": {k: v.cpu() for k, v in self.sums.items()}, "counts": dict(self.counts)}

    @classmethod
    def restored(cls, state: dict[str, Any], device: torch.device) -> Mean:
        sums = {name: value.to(device) for name, value in state["sums"].items()}
        return cls(sums, dict(state["counts"]))

    def values(self) -> dict[str, float]:
        if not self.sums:
            return {}
        means = torch.stack([self.sums[n].float() / self.counts[n] for n in self.sums]).tolist()
        return dict(zip(self.sums, means, strict=True))


def _mean_over_processes(values: dict[str, float]) -> dict[str, float]:
    """Mean of each value over the processes that have it."""
    everyone = utils.all_gather_objects(values)
    names = dict.fromkeys(name for one in everyone for name in one)
    having = {name: [one[name] for one in everyone if name in one] for name in names}
    return {name: sum(found) / len(found) for name, found in having.items()}

"""Checkpoints of a run: written atomically in a room's published layout, read back exactly.

A file holds the published entries {model, optimizer, lr_scheduler, config, epoch} and one of our
own, `run`, with what an exact continuation needs besides. `checkpoint_NN.pth` is written after
every epoch; `last.ckpt`, which is not taken for a finished checkpoint by an evaluation of the
folder, at `save_every_steps` within an epoch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import utils
from models.common.checkpoint import CheckpointError, read_checkpoint

logger = logging.getLogger("groundwork")


@dataclass
class Position:
    """Where a run stands: finished epochs, finished steps of this epoch and of the whole run."""

    epoch: int = 0
    step: int = 0
    global_step: int = 0


class Snapshots:
    """Saves and restores runs in `folder`.

    Args:
        config: the merged configuration, as plain values; written into every file.
        export: model -> its state in the published layout.
        restore_model: fills a model from such a state.
        keep: how many epoch checkpoints stay, the newest; None = all.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        *,
        export: Callable[[nn.Module], dict[str, Tensor]],
        restore_model: Callable[[nn.Module, dict[str, Tensor]], None],
        keep: int | None = None,
    ):
        self.folder = Path(folder)
        self.config = config
        self.export = export
        self.restore_model = restore_model
        self.keep = keep

    @property
    def last(self) -> Path:
        return self.folder / "last.ckpt"

    def content(
        self,
        model: nn.Module,
        optimizers: dict[str, Optimizer],
        current: str,
        scaler: torch.amp.GradScaler,
        position: Position,
    ) -> dict[str, Any]:
        """Everything a file holds; `current` names the optimiser of the published entry."""
        return {
            "model": self.export(model),
            "optimizer": optimizers[current].state_dict(),
            "lr_scheduler": {"last_epoch": position.epoch},
            "config": self.config,
            "epoch": position.epoch if position.step else position.epoch - 1,
            "run": {
                "position": asdict(position),
                "current": current,
                "other_optimizers": {
                    name: optimizer.state_dict()
                    for name, optimizer in optimizers.items()
                    if name != current
                },
                "scaler": scaler.state_dict(),
                "world_size": utils.world_size(),
            },
        }

    def save_position(self, content: dict[str, Any], position: Position) -> None:
        """Save in the middle of an epoch."""
        if utils.is_main():
            _write(content | {"epoch": position.epoch}, self.last)
        utils.barrier()

    def save_epoch(self, content: dict[str, Any], position: Position) -> None:
        """Save after an epoch as `checkpoint_NN.pth` and drop what it supersedes."""
        if utils.is_main():
            path = self.folder / f"checkpoint_{position.epoch - 1:02d}.pth"
            _write(content | {"epoch": position.epoch - 1}, path)
            self.last.unlink(missing_ok=True)
            if self.keep is not None:
                for old in sorted(self.folder.glob("checkpoint_*.pth"))[: -self.keep]:
                    old.unlink()
        utils.barrier()

    def newest(self) -> Path:
        """The file that a run in this folder would continue from.

        Raises:
            FileNotFoundError: the folder holds none.
        """
        epochs = sorted(self.folder.glob("checkpoint_*.pth"))
        if self.last.is_file():
            return self.last
        if not epochs:
            raise FileNotFoundError(
                f"--resume: {self.folder} holds no checkpoint_*.pth and no last.ckpt; "
                "name another --output_dir, or start without --resume"
            )
        return epochs[-1]

    def restore(
        self,
        path: Path,
        model: nn.Module,
        optimizers: dict[str, Optimizer],
        scaler: torch.amp.GradScaler,
    ) -> Position:
        """Fill model, optimisers and scaler from a file of ours; returns where its run stood.

        Raises:
            CheckpointError: the file was not written by this engine, or by a run with other
                optimisers.
        """
        content = read_checkpoint(path)
        run = content.get("run")
        if not isinstance(run, dict):
            raise CheckpointError(
                f"{path}: holds weights but no state of a run of ours, so it cannot be resumed. "
                "To start a new run from these weights, give it as --checkpoint without --resume."
            )
        states = {run["current"]: content["optimizer"], **run["other_optimizers"]}
        if set(states) != set(optimizers):
            raise CheckpointError(
                f"{path}: has optimisers {sorted(states)}, this configuration has "
                f"{sorted(optimizers)}. Resume with the configuration that the run was started "
                "with (manifest.json)."
            )
        self.restore_model(model, content["model"])
        for name, state in states.items():
            optimizers[name].load_state_dict(state)
        scaler.load_state_dict(run["scaler"])
        position = Position(**run["position"])
        if run["world_size"] != utils.world_size():
            logger.warning(
                "%s was written by %d processes and is resumed by %d: the run continues, but what "
                "it draws at random differs from the uninterrupted one.",
                path, run["world_size"], utils.world_size(),
            )  # fmt: skip
        logger.info("resumed %s at epoch %d, step %d", path, position.epoch, position.step)
        return position


def _write(content: dict[str, Any], path: Path) -> None:
    with utils.atomic_write(path) as partial:
        torch.save(content, partial)

"""Checkpoints of a run: written atomically in a room's published layout, read back exactly.

A file holds the published entries {model, optimizer, lr_scheduler, config, epoch}, what the system
keeps beside its weights (the vocabulary of whole words) and `run`, with what an exact continuation
needs besides. Where a running mean of the weights is trained, `model` is that.
`checkpoint_NN.pth` (or what its stage calls it) is written after every epoch, `checkpoint_best.pth`
after one that validated better than all before, and others alike by other metrics; `last.ckpt`,
which is not taken for a finished checkpoint by an evaluation of the folder, at `save_every_steps`
within an epoch.
"""

import logging
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from groundwork import utils
from groundwork.engine.average import WeightAverage, raw_weights
from groundwork.engine.distribution import gathered, is_sharded
from groundwork.engine.folder import (
    CHECKPOINTS,
    LAST,
    checkpoints_of,
    lies_in,
    require_no_run,
)
from groundwork.engine.names import Names
from groundwork.files.lock import held
from groundwork.files.safe import atomic_write, remove_partial
from groundwork.models.common.checkpoint import CheckpointError, read_checkpoint

logger = logging.getLogger("groundwork")
OUR_NAMES = Names()
Model = TypeVar("Model", bound=nn.Module)
EPOCH_FILE = re.compile(r"checkpoint_(?:[a-z]+_)?(\d+)\.pth")
SHARES = ("batch_size", "accumulate")
"""What may change with the number of processes if a step keeps its samples."""


@dataclass
class Position:
    """Where a run stands: finished epochs, finished steps of this epoch and of the whole run."""

    epoch: int = 0
    step: int = 0
    global_step: int = 0


class Snapshots(Generic[Model]):
    """Saves and restores runs in `folder`.

    Args:
        config: the merged configuration, as plain values; written into every file.
        export: model -> its state in the published layout.
        restore_model: fills a model from such a state.
        keep: how many epoch checkpoints stay, the newest; None = all.
        may_change: dotted keys of the configuration that a resumed run may have otherwise, because
            no number of it depends on them; with another number of processes `SHARES`, too, if a
            step has as many samples.
        beside: further entries of every file.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        *,
        export: Callable[[Model], dict[str, Tensor]],
        restore_model: Callable[[Model, dict[str, Tensor]], None],
        keep: int | None = None,
        may_change: Collection[str] = (),
        beside: Mapping[str, Any] | None = None,
    ):
        self.folder = Path(folder)
        self.config = config
        self.export = export
        self.restore_model = restore_model
        self.keep = keep
        self.may_change = may_change
        self.beside: dict[str, Any] = dict(beside or {})
        self.best: dict[str, float] = {}
        self._seen: dict[Path, int] = {}

    @property
    def last(self) -> Path:
        return self.folder / LAST

    def content(
        self,
        model: Model,
        optimizers: dict[str, Optimizer],
        current: str,
        *,
        scaler: torch.amp.GradScaler,
        position: Position,
        log: dict[str, Any],
        average: WeightAverage | None = None,
        names: Names = OUR_NAMES,
    ) -> dict[str, Any]:
        """Everything a file holds; `current` names the optimiser of the published entry, whose
        own name is one of the stage's `names`.

        Every process of a group must call this: each adds the unfinished means of its `log`, and
        its parts of what is sharded, which process 0 has whole.
        """
        with average.applied(model) if average else nullcontext():
            # Copies: the export shares its tensors with the model, which gets its own values back.
            weights = {k: v.clone() if average else v for k, v in self.export(model).items()}
        content = {
            **self.beside,
            "model": weights,
            names.optimizer: optimizers[current].state_dict(),
            names.schedule: {"last_epoch": position.epoch},
            "config": self.config,
            "epoch": position.epoch if position.step else position.epoch - 1,
            "run": {
                "position": asdict(position),
                "current": current,
                "current_entry": names.optimizer,
                "other_optimizers": {
                    name: optimizer.state_dict()
                    for name, optimizer in optimizers.items()
                    if name != current
                },
                "scaler": scaler.state_dict(),
                "logs": utils.all_gather_objects(log),
                "best": dict(self.best),
                "average": average and {"weights": raw_weights(model), "steps": average.steps},
            },
        }
        return gathered(content) if is_sharded(model) else content

    def save_position(self, content: dict[str, Any], position: Position) -> None:
        """Save in the middle of an epoch."""
        if utils.is_main():
            _write(content | {"epoch": position.epoch}, self.last)
        utils.barrier()

    def save_epoch(
        self, content: dict[str, Any], position: Position, names: Names = OUR_NAMES
    ) -> None:
        """Save after an epoch as `checkpoint_NN.pth` and drop what it supersedes."""
        if utils.is_main():
            path = self.folder / names.checkpoint.format(position.epoch - 1)
            _write(content | {"epoch": position.epoch - 1}, path)
            self.last.unlink(missing_ok=True)
            self._remove_old()
        utils.barrier()

    def note(self, name: str, value: float) -> bool:
        """Take note of a validation for the file `name`; is it better than all before?"""
        better = name not in self.best or value > self.best[name]
        if better:
            self.best[name] = value
        return better

    def save_best(self, content: dict[str, Any], position: Position, name: str) -> None:
        """Save as `name`, in the place of the earlier best one."""
        if utils.is_main():
            _write(content | {"epoch": position.epoch - 1}, self.folder / name)
        utils.barrier()

    def epochs(self) -> list[Path]:
        """The epoch checkpoints in the folder, oldest epoch first."""
        found = {path: EPOCH_FILE.fullmatch(path.name) for path in self.folder.glob("*.pth")}
        numbers = {path: int(match[1]) for path, match in found.items() if match}
        return sorted(numbers, key=numbers.__getitem__)

    def _remove_old(self) -> None:
        if self.keep is not None:
            for old in self.epochs()[: -self.keep]:
                old.unlink()

    def remove_partial(self) -> None:
        """Remove checkpoints that a killed process left half written, or was about to remove."""
        if utils.is_main():
            self._remove_old()
            remove_partial(self.folder, self.last.name)
            remove_partial(self.folder, CHECKPOINTS)

    def starting_point(self, resume: bool | None, checkpoint: str | None) -> Path | None:
        """What a run goes on from: `checkpoint`, or else the newest; None for a new run.

        Args:
            resume: None: go on with the newest of the folder if there is one, whatever `checkpoint`
                the run began with.

        Raises:
            FileNotFoundError: see `newest`.
            FileExistsError: the folder holds another run than that which goes on.
            CheckpointError: see `restore`.
        """
        self._seen = self._written()
        if resume is None:
            path = self.newest() if checkpoints_of(self.folder) else None
        else:
            path = (Path(checkpoint) if checkpoint else self.newest()) if resume else None
        if path is None or not lies_in(path, self.folder):
            require_no_run(self.folder)
        if path is not None:
            self._read_run(path)
        return path

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder for this run, from its first file on.

        Raises:
            ValueError: another run holds it. FileExistsError: one has written to it since the
                `starting_point` of this one was chosen.
        """
        if not utils.is_main():
            yield
            return
        with held(self.folder, "trains"):
            if self._written() != self._seen:
                raise FileExistsError(
                    f"{self.folder}: another run has written checkpoints meanwhile; go on with it"
                    " by --resume, or choose another --output_dir"
                )
            yield

    def _written(self) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in checkpoints_of(self.folder)}

    def newest(self) -> Path:
        """The file that a run in this folder would continue from.

        Raises:
            FileNotFoundError: the folder holds none.
        """
        if self.last.is_file():
            return self.last
        # The best ones of a run that was killed before its first epoch's own was written.
        found = self.epochs() or sorted(self.folder.glob(CHECKPOINTS), reverse=True)
        if not found:
            raise FileNotFoundError(
                f"--resume: {self.folder} holds no checkpoint_*.pth and no last.ckpt; "
                "name another --output_dir, or start without --resume"
            )
        return found[-1]

    def complete_first_epoch(self, path: Path, names: Names) -> None:
        """Write what a run lacks that was killed after its first best checkpoint `path`: the other
        best ones of that epoch and its own, all of them the same."""
        if utils.is_main() and lies_in(path, self.folder) and not self.epochs():
            content = read_checkpoint(path)
            for name in (*self.best, names.checkpoint.format(content["epoch"])):
                if not (self.folder / name).is_file():
                    _write(content, self.folder / name)
        utils.barrier()

    def restore(
        self,
        path: Path,
        model: Model,
        optimizers: dict[str, Optimizer],
        scaler: torch.amp.GradScaler,
        average: WeightAverage | None = None,
    ) -> tuple[Position, dict[str, Any] | None]:
        """Fill model, optimisers and scaler from a file of ours.

        Returns:
            Where its run stood, and the state of this process's log; None if another number of
            processes wrote the file.

        Raises:
            CheckpointError: the file was not written by this engine, or by a run that was
                configured otherwise.
        """
        content = self._read_run(path)
        run = content["run"]
        current = content[run.get("current_entry", OUR_NAMES.optimizer)]
        states = {run["current"]: current, **run["other_optimizers"]}
        self.restore_model(model, content["model"])
        if average is not None:
            average.restore(model, run["average"]["weights"], run["average"]["steps"])
        for name, state in states.items():
            optimizers[name].load_state_dict(state)
        scaler.load_state_dict(run["scaler"])
        self.best = run["best"]
        position, logs = Position(**run["position"]), run["logs"]
        same_group = len(logs) == utils.world_size()
        if not same_group:
            before = samples_per_step(content["config"], len(logs))
            now = samples_per_step(self.config, utils.world_size())
            logger.warning(
                "%s was written by %d processes and is resumed by %d: the run continues, with %s, "
                "but what it draws at random differs from the uninterrupted one.",
                path, len(logs), utils.world_size(),
                f"as many samples in a step ({now})" if now == before else
                f"{now} samples in a step, not {before} (batch_size, accumulate)",
            )  # fmt: skip
        logger.info("resumed %s at epoch %d, step %d", path, position.epoch, position.step)
        return position, logs[utils.rank()] if same_group else None

    def _read_run(self, path: Path) -> dict[str, Any]:
        """A file of ours that this run may go on from; raises as `restore` says."""
        content = read_checkpoint(path)
        run = content.get("run")
        if not (isinstance(run, dict) and "logs" in run):
            raise CheckpointError(
                f"{path}: holds weights but no state of a run of ours, so it cannot be resumed. "
                "To start a new run from these weights, give it as --checkpoint without --resume."
            )
        self._check_config(path, content["config"], processes=len(run["logs"]))
        return content

    def _check_config(self, path: Path, written: dict[str, Any], processes: int) -> None:
        ours, theirs = _flatten(self.config), _flatten(written)
        now = utils.world_size()
        same_step = samples_per_step(self.config, now) == samples_per_step(written, processes)
        # In as many processes as before, another division would be another run for nothing.
        shared_anew = now != processes and same_step
        may_change = {*self.may_change, *(SHARES if shared_anew else ())}
        differing = [
            f"{key} was {theirs.get(key)!r}, now {ours.get(key)!r}"
            # The system first: of another one all else differs, too.
            for key in sorted(ours.keys() | theirs.keys(), key=lambda key: (key != "system", key))
            if ours.get(key) != theirs.get(key) and key not in may_change
        ]
        if differing:
            more = f" and {len(differing) - 5} more" if len(differing) > 5 else ""
            raise CheckpointError(
                f"{path}: cannot be resumed with another configuration: "
                f"{'; '.join(differing[:5])}{more}. Resume with the configuration in "
                "manifest.json, or start a new run from these weights: --checkpoint without "
                "--resume."
            )


def samples_per_step(config: Mapping[str, Any], processes: int) -> int:
    """How many samples one step of the optimiser has, those of all processes together."""
    return processes * math.prod(config.get(key, 1) for key in SHARES)


def _flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts and lists as one dict with dotted keys."""
    if not isinstance(config, dict | list | tuple):
        return {prefix: config}
    items = config.items() if isinstance(config, dict) else enumerate(config)
    return {
        name: value
        for key, below in items
        for name, value in _flatten(below, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def _write(content: dict[str, Any], path: Path) -> None:
    """Raises OSError as the system does, such as of a full disk."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # Torch's writer puts an error of its own, which tells nothing, over that of the file.
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None

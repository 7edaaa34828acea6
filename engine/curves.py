"""Where the curves of a run are drawn: TensorBoard always, Weights & Biases and MLflow if asked.

Nothing depends on them: `log.txt` holds all that they show.
"""

import importlib
import json
import logging
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch.utils.tensorboard import SummaryWriter

from groundwork.engine.folder import CURVES, TRACKED
from groundwork.files.foreign import parse_json, read_text
from groundwork.files.safe import write_text

logger = logging.getLogger("groundwork")
PROJECT = "groundwork"
"""What runs are under, unless WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME says otherwise."""
_LONGEST = 500  # letters of a parameter of MLflow
_AT_ONCE = 100  # parameters


class Curves(Protocol):
    """A place that named values go to, step by step."""

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Values of a step of the whole run; after a restart some steps come twice."""

    def close(self) -> None:
        """Everything has been added, or the run has failed."""


class TensorBoard:
    """Files in the run's own folder."""

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(str(folder / CURVES))

    def add(self, values: Mapping[str, float], step: int) -> None:
        """See `Curves`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """See `Curves`."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases; its own variables (WANDB_MODE, WANDB_PROJECT, ...) are heard."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        import wandb

        identity = _tracked(folder).get("wandb") or uuid.uuid4().hex
        project = None if os.environ.get("WANDB_PROJECT") else PROJECT
        self._run = wandb.init(
            project=project, name=folder.name, id=identity, resume="allow", dir=str(folder),
            config=dict(config),
        )  # fmt: skip
        # Its own count may only grow, which that of a run that goes on from a checkpoint does not.
        self._run.define_metric("*", step_metric="global_step")
        _track(folder, wandb=identity)

    def add(self, values: Mapping[str, float], step: int) -> None:
        """See `Curves`."""
        self._run.log({**values, "global_step": step})

    def close(self) -> None:
        """See `Curves`."""
        self._run.finish()


class MLflow:
    """A run of MLflow at MLFLOW_TRACKING_URI; configuration as parameters.

    A server that does not answer is warned of once and does not end the training.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        import mlflow
        import mlflow.entities

        self._mlflow, self._silent = mlflow, False
        self._client = mlflow.MlflowClient()
        self._run = _tracked(folder).get("mlflow") or self._begun(folder, config)
        _track(folder, mlflow=self._run)

    def add(self, values: Mapping[str, float], step: int) -> None:
        """See `Curves`."""
        now = int(time.time() * 1000)
        metrics = [
            # Its names have no @, as that of Acc@0.5 has.
            self._mlflow.entities.Metric(re.sub(r"[^\w\-. /:]", "_", name), value, now, step)
            for name, value in values.items()
        ]
        try:
            self._client.log_batch(self._run, metrics=metrics)
        except self._mlflow.MlflowException as error:
            if not self._silent:
                logger.warning("MLflow does not take step %d (%s); log.txt has it", step, error)
            self._silent = True

    def close(self) -> None:
        """See `Curves`."""
        self._client.set_terminated(self._run)

    def _begun(self, folder: Path, config: Mapping[str, Any]) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        run: str = self._client.create_run(experiment, run_name=folder.name).info.run_id
        parameters = [
            self._mlflow.entities.Param(key, str(value)[:_LONGEST]) for key, value in _flat(config)
        ]
        for start in range(0, len(parameters), _AT_ONCE):
            self._client.log_batch(run, params=parameters[start : start + _AT_ONCE])
        return run


TRACKERS: dict[str, type[WandB] | type[MLflow]] = {"wandb": WandB, "mlflow": MLflow}
"""What a run may be told of beside TensorBoard; the names of their packages and extras."""


def require_installed(trackers: Sequence[str]) -> None:
    """Raises ValueError for a tracker whose package is not installed; names the extra."""
    for name in trackers:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(
                f"--track {name}: the package is not installed ({error}): pip install -e .[{name}]"
            ) from error


def open_curves(
    folder: Path, trackers: Sequence[str] = (), config: Mapping[str, Any] | None = None
) -> list[Curves]:
    """Those of the run in a folder, which are gone on with if it is resumed (process 0 only)."""
    return [TensorBoard(folder), *(TRACKERS[name](folder, config or {}) for name in trackers)]


def _tracked(folder: Path) -> dict[str, str]:
    """Tracker -> what it calls the run of the folder."""
    file = folder / TRACKED
    found: dict[str, str] = (
        parse_json(read_text(file), str(file), "delete it") if file.is_file() else {}
    )
    return found


def _track(folder: Path, **names: str) -> None:
    write_text(folder / TRACKED, json.dumps({**_tracked(folder), **names}) + "\n")


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

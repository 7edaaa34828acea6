"""Curves go to TensorBoard and, if asked, to Weights & Biases and MLflow, one run of a run."""

import json
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from groundwork.engine.curves import MLflow, open_curves, require_installed
from groundwork.engine.folder import CURVES, TRACKED, remove_log
from groundwork.engine.log import RunLog
from groundwork.engine.snapshot import Position

CONFIG = {"seed": 3, "optimizer": {"lr": 1e-4}, "stages": [{"epochs": 2}]}


class Drawn(list):
    """What would be drawn."""

    def add(self, values, step):
        self.append((step, values))

    def close(self):
        self.append("closed")


def test_a_run_tells_all_its_curves_the_same(tmp_path):
    first, second = Drawn(), Drawn()
    log = RunLog(tmp_path, 1, 1, curves=lambda: [first, second])
    log.start_epoch("one", Position(), 2)
    log.validation(Position(epoch=1, global_step=7), {"Acc@0.5": 50.0})
    log.close()
    assert first == second == [(7, {"validation/Acc@0.5": 50.0}), "closed"]


def test_tensorboard_holds_every_value_at_its_step(tmp_path):
    (curves,) = open_curves(tmp_path)
    for step in (1, 2):
        curves.add({"step/loss": 0.5 * step, "step/lr": 0.1}, step)
    curves.close()
    found = EventAccumulator(str(tmp_path / CURVES)).Reload()
    assert [(one.step, one.value) for one in found.Scalars("step/loss")] == [(1, 0.5), (2, 1.0)]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_package_that_is_not_installed_is_named_with_its_extra(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=rf"--track {name}: .*pip install -e \.\[{name}\]"):
        require_installed([name])


def again(folder: Path, name: str) -> list[str]:
    """What the tracker calls the run when it begins, goes on, and when another begins."""
    names = []
    for step in (1, 2):
        told = open_curves(folder, [name], CONFIG)
        for curves in told:
            curves.add({"step/loss": 0.5 * step, "validation/Acc@0.5": 7.0}, step)
            curves.close()
        names.append(json.loads((folder / TRACKED).read_text())[name])
    remove_log(folder)
    open_curves(folder, [name], CONFIG)[1].close()
    return [*names, json.loads((folder / TRACKED).read_text())[name]]


@pytest.mark.slow
def test_weights_and_biases_has_one_run_of_a_run_that_is_resumed(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    first, second, other = again(tmp_path / "amc", "wandb")
    assert first == second != other
    written = [path.stem for path in (tmp_path / "amc" / "wandb").rglob("*.wandb")]
    assert written.count(f"run-{first}") == 2 and written.count(f"run-{other}") == 1


@pytest.mark.slow
def test_mlflow_has_one_run_of_a_run_that_is_resumed(tmp_path, monkeypatch, caplog):
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    first, second, other = again(tmp_path / "amc", "mlflow")
    assert first == second != other
    client = mlflow.MlflowClient()
    run = client.get_run(first)
    assert run.data.params == {"seed": "3", "optimizer.lr": "0.0001", "stages": "[{'epochs': 2}]"}
    assert run.info.run_name == "amc" and run.info.status == "FINISHED"
    values = [(m.step, m.value) for m in client.get_metric_history(first, "step/loss")]
    assert values == [(1, 0.5), (2, 1.0)]
    assert run.data.metrics["validation/Acc_0.5"] == 7.0
    # A server that does not answer is said once.
    lost = MLflow(tmp_path / "amc", CONFIG)
    client.delete_run(other)
    lost.add({"step/loss": 1.0}, 3)
    lost.add({"step/loss": 1.0}, 4)
    assert caplog.text.count("MLflow does not take step") == 1

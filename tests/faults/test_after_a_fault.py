"""What the fault matrix found, each as a claim of its own."""

import errno
import json
import logging
import os
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import predict
import test as evaluation
from groundwork.dataset.formats import notes
from groundwork.dataset.sources import read_splits
from groundwork.engine import Snapshots
from groundwork.engine.folder import LAST
from groundwork.engine.weights import require_finite
from groundwork.files.lock import held
from groundwork.jobs import label
from groundwork.models.common.checkpoint import CheckpointError
from groundwork.models.common.frozen_cache import FrozenCache
from groundwork.report.prediction_files import read_predictions, write_predictions
from groundwork.report.predictions import Prediction, Run
from groundwork.tools.preparation import Outputs
from tests.helpers.fork_server import fork_server
from tests.helpers.own_checkpoints import write_checkpoint
from tests.helpers.script_runs import CONFIGS, error_of

REFTR = str(CONFIGS / "tiny/reftr/refcoco+.yaml")


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt  # what comes after it does not happen, as after a SIGKILL


def prediction(value: float) -> Prediction:
    return Prediction(
        "1", "a.jpg", "val", "ring", (9, 9), (1.0, 1.0), ((0.0, 0.0, 3.0, 3.0),),
        heatmap=np.full((2, 2), value, np.float32),
    )  # fmt: skip


def test_maps_are_never_beside_the_predictions_of_other_weights(tmp_path, monkeypatch):
    old, new = (Run("albef", "", "x.pth", "b", identity=name) for name in ("old", "new"))
    path = write_predictions(tmp_path, old, [prediction(0.25)])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("groundwork.report.prediction_files.write_text", stop)
        write_predictions(tmp_path, new, [prediction(0.75)])
    with pytest.raises(FileNotFoundError, match="run the evaluation"):
        read_predictions(path)
    run, (one,) = read_predictions(write_predictions(tmp_path, new, [prediction(0.75)]))
    assert run == new and one.heatmap.max() == 0.75


def snapshots(folder: Path, **config: int) -> Snapshots:
    return Snapshots(folder, config, export=dict, restore_model=print)


def test_resume_auto_begins_and_goes_on_by_the_same_command(tmp_path):
    assert snapshots(tmp_path).starting_point(None, "ALBEF.pth") is None
    torch.save({"model": {}, "config": {}, "run": {"logs": [{}]}}, tmp_path / "checkpoint_best.pth")
    found = snapshots(tmp_path).starting_point(None, "ALBEF.pth")
    assert found == tmp_path / "checkpoint_best.pth", "nothing else was written yet"
    torch.save({"model": {}, "config": {}, "run": {"logs": [{}]}}, tmp_path / LAST)
    assert snapshots(tmp_path).starting_point(None, "ALBEF.pth") == tmp_path / LAST
    torch.save({"model": {}, "config": {}, "run": {}}, tmp_path / LAST)
    with pytest.raises(CheckpointError, match="no state of a run of ours"):
        snapshots(tmp_path).starting_point(None, "ALBEF.pth")


def test_a_step_is_divided_anew_only_among_another_number_of_processes(tmp_path):
    def resumed(processes: int, batch_size: int, accumulate: int) -> Path | None:
        content = {"model": {}, "config": {"batch_size": 4, "accumulate": 1}}
        torch.save(content | {"run": {"logs": [{}] * processes}}, tmp_path / LAST)
        ours = snapshots(tmp_path, batch_size=batch_size, accumulate=accumulate)
        return ours.starting_point(None, None)

    assert resumed(2, 8, 1) == resumed(2, 4, 2) == resumed(1, 4, 1) == tmp_path / LAST
    for processes, batch_size, accumulate in ((1, 2, 2), (2, 8, 2), (2, 2, 1)):
        with pytest.raises(CheckpointError, match="batch_size was 4|accumulate was 1"):
            resumed(processes, batch_size, accumulate)


def hold(folder: Path, holding, over) -> None:
    with held(folder, "trains"):
        holding.set()
        over.wait(60)


def test_a_folder_is_held_by_one_process_until_it_ends(tmp_path):
    context = fork_server()
    holding, over = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path / "run", holding, over))
    process.start()
    assert holding.wait(60)
    with pytest.raises(ValueError, match="another process trains into this folder"):
        with held(tmp_path / "run", "trains"):
            pass
    process.kill()
    process.join()
    with held(tmp_path / "run", "trains", patience=5):
        pass


def test_a_run_that_another_one_has_overtaken_does_not_begin(tmp_path):
    late = snapshots(tmp_path)
    assert late.starting_point(False, None) is None
    (tmp_path / "checkpoint_00.pth").touch()
    with pytest.raises(FileExistsError, match="written checkpoints meanwhile"), late.alone():
        pass


def test_weights_that_are_no_longer_finite_are_not_saved():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    require_finite(model)
    model[1].bias.data[1] = torch.inf
    with pytest.raises(FloatingPointError, match=r"1\.bias.*a gradient was not"):
        require_finite(model)


def test_a_full_disk_is_said_to_be_full(tmp_path, monkeypatch):
    """Torch's writer says `unexpected pos` in its place."""
    from groundwork.engine import snapshot

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Full:
        write = full

    def save(content: dict, file: object) -> None:
        del file
        true_save(content, Full())

    true_save = torch.save
    monkeypatch.setattr(torch, "save", save)
    message = error_of(lambda: snapshot._write({"a": torch.zeros(9)}, tmp_path / "x.pth"))
    assert "no space left on device; make room and start the same command again" in message
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_of_the_cache_is_made_anew(tmp_path, caplog):
    network, image = nn.Conv2d(3, 2, 1).eval(), torch.ones(1, 3, 4, 4)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [self.inner(x)]

    def ask() -> torch.Tensor:
        with torch.no_grad():
            return FrozenCache(tmp_path, 1.0)(Net().eval(), image)[0]

    first = ask()
    (file,) = tmp_path.rglob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        assert torch.equal(ask(), first)
    assert "is damaged" in caplog.text
    assert torch.equal(ask(), first) and caplog.text.count("is damaged") == 1


def test_a_cached_table_without_its_notes_is_read_anew(tmp_path, tiny_data, monkeypatch):
    files = {"train": [str(tiny_data / "vg/train.json")]}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(notes, "save", stop)
        read_splits(files, "vg", str(tmp_path))
    (table,) = tmp_path.glob("*.arrow")
    before = table.stat().st_ino
    read_splits(files, "vg", str(tmp_path))
    assert table.stat().st_ino != before
    assert json.loads(table.with_suffix(".notes.json").read_text()) == []


def test_a_folder_of_files_never_mixes_those_of_two_inputs(tmp_path):
    """Killed after the first file of the second input, the preparation goes on."""
    source, out = tmp_path / "source", tmp_path / "out"
    args = Namespace(out=out, dry_run=False, again=False)

    def prepare(content: str, *, killed: bool = False) -> None:
        source.write_text(content)
        files = {
            "a": lambda path: path.write_text(content),
            "b": stop if killed else lambda path: path.write_text(content),
        }
        Outputs(args, "x", "X", [source]).write_folder("masks", files)

    prepare("old")
    with pytest.raises(KeyboardInterrupt):
        prepare("newer", killed=True)
    stamp = source.stat()
    source.write_text("newer")
    os.utime(source, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    files = {name: (lambda path: path.write_text("newer")) for name in "ab"}
    Outputs(args, "x", "X", [source]).write_folder("masks", files)
    assert [(out / "masks" / name).read_text() for name in "ab"] == ["newer", "newer"]


@pytest.fixture
def checkpoint(embedded, tmp_path) -> Path:
    assert embedded.is_dir()  # in which the shipped configurations are at home
    return write_checkpoint("reftr", tmp_path / "weights" / "own.pth")


def evaluate(checkpoint: Path, out: Path, *more: str) -> list[dict]:
    return evaluation.main(
        ["--config", REFTR, "--checkpoint", str(checkpoint), "--output_dir", str(out),
         "--device", "cpu", "--split", "val", "--set", "data.workers=0", *more]
    )  # fmt: skip


def test_weights_that_are_replaced_while_they_are_evaluated_have_no_results(
    checkpoint, tmp_path, monkeypatch
):
    from groundwork.jobs import evaluate as job

    predict_all = job.predict

    def replaced(*args, **kwargs):
        content = torch.load(checkpoint, weights_only=True)
        torch.save(content | {"epoch": 9}, checkpoint)
        return predict_all(*args, **kwargs)

    monkeypatch.setattr(job, "predict", replaced)
    message = error_of(lambda: evaluate(checkpoint, tmp_path / "out"))
    assert "was replaced while it was evaluated" in message
    assert not (tmp_path / "out" / "results.json").exists()


def test_an_evaluation_that_left_images_out_is_made_again(checkpoint, embedded, tmp_path):
    out, tolerant = tmp_path / "out", "data.tolerate_corrupt=true"
    whole = evaluate(checkpoint, tmp_path / "whole", tolerant)
    lists = torch.load(embedded / "annotations_resc/unc+/unc+_val.pth", weights_only=True)
    image = embedded / "images" / "train2014" / lists[0][0]
    kept = shutil.copy(image, tmp_path / "kept.jpg")
    try:
        image.unlink()
        image.write_bytes(b"no image")
        less = evaluate(checkpoint, out, tolerant)
    finally:
        shutil.copy(kept, image)
    assert any("corrupt images left out" in row["note"] for row in less)
    assert evaluate(checkpoint, out, tolerant) == whole


def test_labels_are_never_beside_the_manifest_of_others(tmp_path, monkeypatch):
    (tmp_path / label.MANIFEST).write_text("{}")
    monkeypatch.setattr("groundwork.dataset.formats.labels.write", stop)
    with pytest.raises(KeyboardInterrupt):
        args = Namespace(out=str(tmp_path), checkpoint="x.pth", split="train", write=[])
        label.write(label_config(), [], args, {}, proposals=None, data={})
    assert not (tmp_path / label.MANIFEST).exists()


def label_config():
    from groundwork.settings import load_config

    return load_config(REFTR, [])


def test_a_call_of_predict_that_was_ended_may_be_made_again_and_no_other_one(
    checkpoint, embedded, tmp_path, monkeypatch
):
    image = str(next((embedded / "images" / "test").glob("*.jpg")))
    out = tmp_path / "out"

    def ask(phrase: str) -> list[str]:
        predict.main(
            [image, phrase, "--checkpoint", str(checkpoint), "--out", str(out), "--device", "cpu"]
        )
        return (out / "predictions.jsonl").read_text().splitlines()

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("groundwork.jobs.predict.write_manifest", stop)
        ask("a ring")
    assert "is not empty" in error_of(lambda: ask("a star"))
    assert len(ask("a ring")) == 1
    assert "is not empty" in error_of(lambda: ask("a ring"))

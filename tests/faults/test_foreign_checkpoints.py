"""Checkpoint files of others: read where they hold weights, called what they are where not."""

import argparse
import datetime
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import grounding_eval_singlegpu
import Pretrain_vg
import pseudo_label
import test
import train
from groundwork.models.common.checkpoint import CheckpointError, read_checkpoint, without_wrappers
from groundwork.report.__main__ import main as report
from groundwork.tools import published_reftr
from tests.helpers import script_runs
from tests.helpers.script_runs import CONFIGS, error_of

VAL = ["data.splits=[val]"]
SMALL = (
    "data.workers=0", "data.image_size=48", "data.max_image_size=48", "batch_size=4",
    "precision=fp32", "log_every=1", "select=null", "epochs=1", "steps=1",
    "model.backbone.output_stride=32",
)  # fmt: skip
BOXES = CONFIGS / "tiny/reftr/refcoco+.yaml"


def ground(checkpoint: Path, out: Path) -> list[dict]:
    config = "tiny/Grounding_refcoco"
    return script_runs.evaluate(grounding_eval_singlegpu, config, checkpoint, out, overrides=VAL)


def values(rows: list[dict]) -> list[tuple[object, ...]]:
    return [(row["split"], row["metric"], row["value"]) for row in rows]


# --- names that wrappers leave --------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda key: f"module.{key}",
        lambda key: f"module.module.{key}",
        lambda key: f"_orig_mod.{key}",
        lambda key: f"module._orig_mod.{key}",
        lambda key: f"_orig_mod.module.{key}",
        lambda key: key.replace(".", "._orig_mod.", 1),
        lambda key: f"_fsdp_wrapped_module.{key}",
    ],
    ids=["ddp", "twice", "compiled", "compiled ddp", "ddp compiled", "compiled part", "fsdp"],
)
def test_what_wrappers_put_into_names_is_taken_away(wrapped):
    # An entry of every system; one of RefCLIP's begins like a wrapper.
    names = [
        "visual_encoder.pos_embed", "text_encoder.bert.encoder.layer.0.output.dense.weight",
        "vl_transformer.encoder.layers.0.linear1.weight", "module_list.19.conv.weight",
        "attention_manner.linear.weight", "vis_enc.beit3.encoder.layer_norm.A.weight",
    ]  # fmt: skip
    state = {name: torch.zeros(1) for name in names}
    assert list(without_wrappers({wrapped(key): v for key, v in state.items()}, "x.pth")) == names


def test_one_name_twice_is_an_error():
    with pytest.raises(CheckpointError, match=r"x\.pth: holds a more than once, as a, module\.a"):
        without_wrappers({"a": torch.zeros(1), "module.a": torch.ones(1)}, "x.pth")


@pytest.fixture
def weights(trained) -> dict[str, torch.Tensor]:
    return read_checkpoint(trained / "checkpoint_01.pth")["model"]


@pytest.mark.usefixtures("embedded")
def test_a_compiled_and_wrapped_albef_evaluates_and_trains_as_the_bare_one(
    weights, trained, tmp_path
):
    path = tmp_path / "wrapped.pth"
    torch.save({"model": {f"module._orig_mod.{k}": v for k, v in weights.items()}}, path)
    expected = values(ground(trained / "checkpoint_01.pth", tmp_path / "bare"))
    assert values(ground(path, tmp_path / "wrapped")) == expected
    script_runs.train(
        Pretrain_vg, "tiny/Pretrain_vg_amc", tmp_path / "run", "--checkpoint", str(path)
    )


@pytest.mark.usefixtures("embedded")
def test_albefs_fine_tuned_retrieval_files_are_read(weights, tmp_path, capsys):
    """They have BERT without its head one level higher, one pointer, and `idx_queue`."""
    state = {
        key.replace(".bert.", "."): value
        for key, value in weights.items()
        if ".cls." not in key and not key.startswith("queue_ptr")
    }
    state |= {"queue_ptr": torch.zeros(1, dtype=torch.int64)}
    state |= {"idx_queue": torch.full((1, state["image_queue"].shape[1]), -100)}
    path = tmp_path / "refcoco.pth"
    torch.save({"model": state}, path)
    assert ground(path, tmp_path / "out")
    assert "idx_queue (1)" in capsys.readouterr().err.partition("Not used:")[2]


# --- RefTR's files --------------------------------------------------------------------------------


def published_args() -> argparse.Namespace:
    """Of the kinds that the command line of a published file has."""
    return argparse.Namespace(
        lr=1e-4, lr_backbone_names=["backbone.0"], masks=False, frozen_weights=None,
        distributed=True, dist_url="env://", output_dir="/somewhere/exps/refcoco", gpu=0, resume="",
    )  # fmt: skip


@pytest.mark.usefixtures("embedded")
def test_a_published_reftr_file_goes_through_every_script(tmp_path):
    start = ["--config", str(BOXES), "--device", "cpu"]
    settings = ["--set", *SMALL]
    train.main([*start, "--output_dir", str(tmp_path / "first"), *settings])
    file = tmp_path / "checkpoint0099.pth"
    torch.save(
        {
            "model": read_checkpoint(tmp_path / "first" / "checkpoint_00.pth")["model"],
            "optimizer": {"state": {}, "param_groups": []},
            "lr_scheduler": {"last_epoch": 99},
            "epoch": 99,
            "args": published_args(),
            "best_val_acc": np.float64(0.5),
        },
        file,
    )
    out = ["--output_dir", str(tmp_path / "results")]
    rows = test.main([*start, "--checkpoint", str(file), *out, "--split", "val", *settings])
    assert report([str(tmp_path / "results")]) == rows
    again = published_reftr.main(
        [str(BOXES), "--device", "cpu", "--eval", f"--resume={file}", "--split", "val",
         "--output_dir", str(tmp_path / "published"), *settings]
    )  # fmt: skip
    assert values(again) == values(rows)
    train.main(
        [*start, "--checkpoint", str(file), "--output_dir", str(tmp_path / "second"), *settings]
    )
    labels = tmp_path / "labels"
    pseudo_label.main([*start, "--checkpoint", str(file), "--out", str(labels), *settings])
    assert (labels / "labels.jsonl").stat().st_size
    resumed = [*start, "--resume", str(file), "--output_dir", str(tmp_path / "third"), *settings]
    message = error_of(lambda: train.main(resumed))
    assert "holds weights but no state of a run of ours" in message


# --- weights that are no numbers ------------------------------------------------------------------


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_found_at_loading(value, weights, tmp_path):
    broken = weights["text_encoder.bert.embeddings.LayerNorm.weight"].clone()
    broken[0] = value
    path = tmp_path / "broken.pth"
    state = {**weights, "text_encoder.bert.embeddings.LayerNorm.weight": broken}
    torch.save({"model": state}, path)
    start = ("--checkpoint", str(path))
    for run in (
        lambda: ground(path, tmp_path / "out"),
        lambda: script_runs.train(Pretrain_vg, "tiny/Pretrain_vg_amc", tmp_path / "run", *start),
    ):
        message = error_of(run)
        assert f"{path}: NaN or infinite values in " in message
        assert "text_encoder.bert.embeddings.LayerNorm.weight" in message


# --- files that are no checkpoints ----------------------------------------------------------------


class Trainer:
    """A class that a file may bring along."""


def script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(2, 2)).save(path)


def written(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text)


def zipped(path: Path) -> None:
    with open(path, "wb") as file:
        np.savez(file, weights=np.zeros(2))


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"model": {}, "trainer": Trainer()}))


FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (written(""), "is an empty file"),
    "page": (written("\n<!DOCTYPE html><html>Quota exceeded</html>"), "is a web page"),
    "xml": (written('<?xml version="1.0"?><Error>AccessDenied</Error>'), "is a web page"),
    "pointer": (
        written("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"),
        "is a pointer of git-lfs.*git lfs pull",
    ),
    "answer": (written('{"message": "Not Found"}'), "is a text that begins .*Not Found"),
    "safetensors": (
        lambda path: safetensors.torch.save_file({"a": torch.zeros(2)}, path),
        "is in the format of safetensors.*load_file",
    ),
    "zip": (zipped, r"is a zip archive that torch.save did not write \(in it: weights\.npy\)"),
    "script": (script, "is a TorchScript program"),
    "pickle": (pickled, r"is a plain pickle of tests\.faults\.test_foreign_checkpoints\.Trainer"),
    "class": (
        lambda path: torch.save({"model": {}, "trainer": Trainer()}, path),
        r"not loaded.*of the class tests\.faults\.test_foreign_checkpoints\.Trainer.*Re-save",
    ),
    "date": (
        lambda path: torch.save({"model": {}, "date": datetime.date(2026, 1, 1)}, path),
        r"not loaded.*an object of the class datetime\.date",
    ),
    "module": (
        lambda path: torch.save(nn.Linear(2, 2), path),
        r"not loaded.*an object of the class torch\.nn\.modules\.linear\.Linear",
    ),
    "exported": (script, "is an exported file.*give the checkpoint that it was made of"),
    "tensor": (lambda path: torch.save(torch.zeros(2), path), "holds a Tensor, not a dictionary"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_checkpoint_is_called_what_it_is(name, tmp_path):
    write, expected = FILES[name]
    path = tmp_path / f"{name}{'.pt2' if name == 'exported' else '.pth'}"
    write(path)
    with pytest.raises(CheckpointError, match=f"{path.name}: {expected}") as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert "weights_only" not in message and "\x1b" not in message and "\n" not in message


# --- files of another system ----------------------------------------------------------------------


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("config", ["tiny/Grounding_refcoco", "tiny/alvg/refcoco+"])
def test_a_file_of_ours_of_another_system_is_called_what_it_is(config, tmp_path):
    """Not by what it lacks of this system: texts without [SEP], or a SentencePiece model."""
    file = tmp_path / "reftr.pth"
    model = {"vl_transformer.level_embed": torch.zeros(1, 4)}
    torch.save({"model": model, "config": {"system": "reftr", "stages": []}}, file)
    argv = ["--config", config, "--checkpoint", str(file), "--output_dir", str(tmp_path / "out")]
    message = error_of(lambda: test.main([*argv, "--device", "cpu", "--set", "data.workers=0"]))
    assert "It looks like a checkpoint of RefTR" in message and "[SEP]" not in message
    assert not (tmp_path / "out").exists()

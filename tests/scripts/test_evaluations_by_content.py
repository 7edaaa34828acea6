"""Results belong to the content that they were computed from, never to a file name."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import grounding_eval_singlegpu
import test
import train
from groundwork.models.common.checkpoint import read_checkpoint
from groundwork.report.results import read_rows, rescore
from tests.helpers import script_runs
from tests.helpers.script_runs import CONFIGS

CONFIG = "tiny/Grounding_refcoco"
REFTR = CONFIGS / "tiny/reftr/refcoco+.yaml"
SMALL = (
    "data.workers=0", "data.image_size=48", "data.max_image_size=48", "batch_size=4",
    "precision=fp32", "select=null", "model.backbone.output_stride=32",
)  # fmt: skip
pytestmark = pytest.mark.usefixtures("embedded")


def ground(checkpoint: Path, out: Path, *overrides: str, splits: str = "val") -> list[dict]:
    chosen = [f"data.splits=[{splits}]", *overrides]
    return script_runs.evaluate(grounding_eval_singlegpu, CONFIG, checkpoint, out, overrides=chosen)


def other(checkpoint: Path, path: Path) -> Path:
    """A file of other weights."""
    content = read_checkpoint(checkpoint)
    weight = "text_encoder.bert.encoder.layer.2.crossattention.self.key.weight"
    torch.manual_seed(0)
    content["model"][weight] = torch.randn_like(content["model"][weight])
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


@pytest.fixture
def checkpoint(trained, tmp_path) -> Path:
    (tmp_path / "a").mkdir()
    return Path(shutil.copy(trained / "checkpoint_01.pth", tmp_path / "a" / "x.pth"))


def rows_of(rows: list[dict], *splits: str) -> list[dict]:
    return [row for row in rows if row["split"] in splits and row["checkpoint"]]


def test_other_weights_under_the_same_name_are_evaluated(checkpoint, tmp_path):
    out = tmp_path / "out"
    first = ground(checkpoint, out)
    second = ground(other(checkpoint, tmp_path / "b" / "x.pth"), out)
    assert second != first and second == ground(tmp_path / "b" / "x.pth", tmp_path / "alone")
    other(checkpoint, checkpoint)
    assert ground(checkpoint, out) == second, "the same path, written anew"
    assert len((out / "evaluations.txt").read_text().splitlines()) == 2


def test_rows_of_other_weights_do_not_stay_beside_new_ones(checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    ground(checkpoint, out, splits="val, testA")
    assert "replaces" not in capsys.readouterr().err
    ground(checkpoint, out, splits="testB")
    assert {row["split"] for row in read_rows(out / "results.json")} == {"val", "testA", "testB"}
    ground(other(checkpoint, tmp_path / "b" / "x.pth"), out)
    said = "holds an evaluation of other weights, settings or annotations as x.pth"
    assert said in capsys.readouterr().err
    rows = read_rows(out / "results.json")
    assert {row["split"] for row in rows if row["checkpoint"]} == {"val"}
    assert rows_of(rows, "val") == rows_of(rescore(out), "val")


def test_another_configuration_and_other_annotations_are_evaluated(checkpoint, embedded, tmp_path):
    out, listed = tmp_path / "out", embedded / "refcoco+" / "test.json"
    lines = out / "evaluations.txt"
    ground(checkpoint, out)
    ground(checkpoint, out, "data.workers=1")
    assert len(lines.read_text().splitlines()) == 1, "no number depends on it"
    ground(checkpoint, out, "data.max_words=2")
    assert len(lines.read_text().splitlines()) == 2
    own = tmp_path / "test.json"
    shutil.copy(listed, own)
    ground(checkpoint, out, f"data.test_file=[{own}]")
    entries = json.loads(own.read_text())
    entries[0]["text"] = "a green square"
    own.write_text(json.dumps(entries))
    ground(checkpoint, out, f"data.test_file=[{own}]")
    assert len(lines.read_text().splitlines()) == 4


def test_box_systems_do_the_same(tmp_path):
    start = ["--config", str(REFTR), "--device", "cpu"]
    short = ["--set", *SMALL, "epochs=1", "steps=1"]
    for seed in ("1", "2"):
        train.main([*start, "--seed", seed, "--output_dir", str(tmp_path / seed), *short])
    out = tmp_path / "out"
    found = [
        test.main(
            [*start, "--checkpoint", str(tmp_path / seed / "checkpoint_00.pth"), "--split", "val",
             "--output_dir", str(out), "--set", *SMALL]
        )
        for seed in ("1", "2", "2")
    ]  # fmt: skip
    assert rows_of(found[0], "val") != rows_of(found[1], "val") == rows_of(found[2], "val")
    assert len((out / "evaluations.txt").read_text().splitlines()) == 2

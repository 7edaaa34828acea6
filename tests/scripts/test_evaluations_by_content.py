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
from tests.helpers.script_runs import CONFIGS, error_of

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


# --- several in one command -----------------------------------------------------------------------


def compare(out: Path, configs: list[object], checkpoints: list[Path], *more: str) -> list[dict]:
    return test.main(
        ["--config", *map(str, configs), "--checkpoint", *map(str, checkpoints), "--device", "cpu",
         "--output_dir", str(out), *more, "--set", "data.workers=0", "batch_size=4"]
    )  # fmt: skip


def test_two_runs_whose_files_have_one_name_are_two_in_the_table(checkpoint, tmp_path):
    another, out = other(checkpoint, tmp_path / "b" / "x.pth"), tmp_path / "out"
    rows = compare(out, [CONFIG, CONFIG], [checkpoint, another], "--split", "val")
    pointing = {
        row["checkpoint"]: row["value"]
        for row in rows
        if row["checkpoint"] and row["metric"] == "pointing"
    }
    assert list(pointing) == ["a/x.pth", "b/x.pth"]
    alone = ground(another, tmp_path / "alone")
    (value,) = (row["value"] for row in alone if row["checkpoint"] and row["metric"] == "pointing")
    assert pointing["b/x.pth"] == value
    assert read_rows(out / "results.json") == rows
    folders = {file.parent.relative_to(out) for file in out.rglob("predictions_*.jsonl")}
    assert folders == {Path(CONFIG, "a/x"), Path(CONFIG, "b/x")}


def test_configurations_given_by_name_have_folders_of_their_own(checkpoint, tmp_path):
    lost = tmp_path / "nowhere.pth"
    names = ["tiny/Grounding_refcoco", "tiny/Grounding_refclef"]
    rows = compare(tmp_path, names, [checkpoint, checkpoint], "--split", "val")
    assert {row["benchmark"] for row in rows} == {"embedded/refcoco+", "embedded/refclef"}
    assert all((tmp_path / name / "x").is_dir() for name in names)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth: no such file"):
        compare(tmp_path / "out", names, [checkpoint, lost], "--split", "val")
    assert not (tmp_path / "out").exists(), "the second is looked at before the first is evaluated"


def test_what_cannot_be_evaluated_is_named_before_anything_is_written(checkpoint, tmp_path):
    names, both, out = [CONFIG, "tiny/reftr/flickr30k"], [checkpoint, checkpoint], tmp_path / "out"
    message = error_of(lambda: compare(out, names, both, "--split", "testA"))
    assert "tiny/reftr/flickr30k: split 'testA': the configuration has no annotation" in message
    message = error_of(lambda: compare(out, [CONFIG, CONFIG], both))
    assert f"--config {CONFIG} and {CONFIG} evaluate {checkpoint} on one benchmark" in message
    assert not out.exists()
    (tmp_path / "file").touch()
    message = error_of(lambda: ground(checkpoint, tmp_path / "file"))
    assert f"{tmp_path / 'file'} cannot be a folder" in message


def test_an_evaluation_that_fails_leaves_nothing_behind(checkpoint, tmp_path):
    content = read_checkpoint(checkpoint)
    del content["model"]["text_proj.weight"]
    torch.save(content, checkpoint)
    assert "text_proj.weight" in error_of(lambda: ground(checkpoint, tmp_path / "out"))
    assert not (tmp_path / "out").exists()

"""The quick start runs through, from data to page, at a size that teaches nothing."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import quickstart
from groundwork import Grounder
from groundwork.experiments import seeds
from groundwork.experiments.quick import common, reftr
from groundwork.experiments.quick.common import draw
from groundwork.report.results import Row, read_rows
from groundwork.report.seeds import SeedRow, write_seed_rows

HEAT_MAPS = ["data.workers=0", "batch_size=4", "stages.0.epochs=1", "stages.0.steps=2"]
BOXES = ["data.workers=0", "batch_size=4", "epochs=1", "steps=2"]


@pytest.fixture(scope="module")
def one_model(tmp_path_factory) -> tuple[Path, list[Row]]:
    """The folder and the rows of a quick start of one of the models, in one process."""
    folder = tmp_path_factory.mktemp("one_model")
    call = ["--out", str(folder / "run"), "--data", str(folder / "data"), "--scenes", "20"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "default_processes", lambda: 1)
        rows = quickstart.main([*call, "--models", "b_amc", "--set", *HEAT_MAPS])
    return folder / "run", rows


def assert_reported(run: Path, rows: list[Row], checkpoints: set[str]) -> None:
    """Every benchmark has rows of these models, and the page an image sheet of each."""
    assert rows == json.loads((run / "results.json").read_text())
    assert {row["checkpoint"] for row in rows if row["system"] == "ALBEF"} == checkpoints
    names = ("refcoco+", "refclef", "flickr30k", "paraphrases")
    assert {row["benchmark"] for row in rows} == {f"embedded/{name}" for name in names}
    assert {"centre", "random"} <= {row["system"] for row in rows}
    assert {"pointing", "matching", "same object"} <= {row["metric"] for row in rows}
    assert (run / "index.html").read_text().count("<img") == len(checkpoints)


def assert_calibrated(run: Path) -> None:
    """The model that predict.py asks knows whether something is there."""
    calibration = Grounder.load(run / "b_amc" / "b_amc.pth", device="cpu").calibration
    assert calibration.fitted.data == "embedded/refcoco+ val"
    assert [one.data.split()[1] for one in calibration.held_out] == ["testA", "testB"]


def test_a_model_of_the_quick_start_is_trained_evaluated_reported_and_calibrated(one_model):
    assert_reported(*one_model, {"b_amc.pth"})
    assert_calibrated(one_model[0])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quick_start_trains_evaluates_and_reports_every_model(tmp_path):
    call = ["--out", str(tmp_path / "run"), "--data", str(tmp_path / "data"), "--scenes", "60"]
    rows = quickstart.main([*call, "--set", *HEAT_MAPS])
    four = {"a_match.pth", "quickstart_base.pth", "b_amc.pth", "c_selfeq.pth"}
    assert_reported(tmp_path / "run", rows, four)
    assert_calibrated(tmp_path / "run")


def train_boxes_and_masks(folder: Path, data: Path) -> None:
    call = ["--parts", "reftr", "--out", str(folder), "--data", str(data)]
    rows = quickstart.main([*call, "--set", *BOXES])

    models = {row["checkpoint"]: row["objective"] for row in rows if row["system"] == "RefTR"}
    assert models == {
        "reftr_multi.pth": "multi-phrase",
        "reftr_single.pth": "REC",
        "reftr_masks.pth": "RES",
    }
    assert {"pointing", "Acc@0.5", "Acc@0.5 (merged box)", "mIoU"} <= {
        row["metric"] for row in rows
    }


def test_the_part_of_boxes_and_masks_trains_one_model_from_the_other(
    tmp_path, embedded, monkeypatch
):
    monkeypatch.setattr(reftr, "default_processes", lambda: 1)
    train_boxes_and_masks(tmp_path, embedded)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_share_the_training_of_boxes_and_masks(tmp_path, embedded, monkeypatch):
    monkeypatch.setattr(reftr, "default_processes", lambda: 2)
    train_boxes_and_masks(tmp_path, embedded)


def test_data_are_drawn_once_and_anew_only_for_files_that_are_not_there(tmp_path):
    done, lists = tmp_path / "summary.json", tmp_path / "annotations_resc"
    draw(tmp_path, scenes=20)
    assert done.is_file() and not lists.exists()
    draw(tmp_path, scenes=20, trees=True)
    assert done.is_file() and any(lists.rglob("*.pth"))
    when = done.stat().st_mtime_ns
    draw(tmp_path, scenes=20)
    draw(tmp_path, scenes=20, trees=True)
    assert done.stat().st_mtime_ns == when


def summarised(folder: Path, *more: str) -> list[SeedRow]:
    """The rows over the quick starts of two seeds, below a folder."""
    call = ["--out", str(folder / "runs"), "--data", str(folder / "data"), "--scenes", "20"]
    return seeds.main([*call, "--models", "b_amc", "--seeds", "0", "1", *more])


def assert_summarised(folder: Path, rows: list[SeedRow], monkeypatch) -> None:
    """One row of both runs, and what a quick start says of its own beside it."""
    assert {row.runs for row in rows} == {2}
    (row,) = [
        r for r in rows if (r.checkpoint, r.split, r.metric) == ("b_amc.pth", "testA", "pointing")
    ]

    write_seed_rows(folder / "expected.json", "a processor", rows)
    monkeypatch.setattr(quickstart, "EXPECTED", folder / "expected.json")
    lines = quickstart.compared(read_rows(folder / "runs/seed_0_threads_1/results.json"))
    (line,) = [line for line in lines if "testA, pointing" in line and "b_amc" in line]
    assert f"2 runs gave {row.mean:.2f}" in line and line.endswith(": as expected")
    same = [{**asdict(row), "value": row.mean}]
    wide = replace(row, mean=50.0, sd=40.0)
    write_seed_rows(folder / "expected.json", "a processor", [wide])
    lines = quickstart.compared(same)
    assert "expected 0.00 to 100.00" in lines[1]
    assert lines[2:] == [
        "  1 of 1 numbers of all metrics are as expected",
        "  1 of 1 ranges are as wide as the scale: those runs differ too much to expect anything of"
        " another",
    ]
    write_seed_rows(folder / "expected.json", "a processor", rows)
    far = [{**asdict(row), "value": row.mean + 1000}]
    assert quickstart.compared(far)[1].endswith("NOT as expected")
    assert quickstart.compared(far)[2] == "  0 of 1 numbers of all metrics are as expected"
    other = replace(row, metric="matching")
    write_seed_rows(folder / "expected.json", "a processor", [other])
    said = quickstart.compared([{**asdict(other), "value": other.mean}])
    assert said[1] == "  1 of 1 numbers of all metrics are as expected"
    far = [{**asdict(other), "value": other.mean + 1000}]
    said = quickstart.compared(far)
    assert "matching" in said[1] and said[1].endswith("NOT as expected")
    other = replace(row, metric="map correlation", mean=0.9, sd=0.1, runs=3)
    write_seed_rows(folder / "expected.json", "a processor", [other])
    said = quickstart.compared([{**asdict(other), "value": -1.5}])
    assert "expected -0.25 to 1.00" in said[1] and said[2].startswith("  0 of 1 numbers")


def test_quick_starts_of_seeds_that_are_done_make_one_row_and_say_what_to_expect(
    one_model, tmp_path, monkeypatch
):
    for seed in range(2):
        folder = tmp_path / f"runs/seed_{seed}_threads_1"
        folder.mkdir(parents=True)
        moved = [
            row | {"value": row["value"] + seed} if row["value"] is not None else row
            for row in one_model[1]
        ]
        (folder / "results.json").write_text(json.dumps(moved))
    assert_summarised(tmp_path, summarised(tmp_path), monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quick_start_over_seeds_makes_one_row_of_its_runs_and_says_what_to_expect(
    tmp_path, monkeypatch
):
    small = [*HEAT_MAPS[:-1], "stages.0.steps=1"]
    assert_summarised(tmp_path, summarised(tmp_path, "--set", *small), monkeypatch)

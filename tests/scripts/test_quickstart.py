"""The quick start runs through, from data to page, at a size that teaches nothing."""

import json
from dataclasses import asdict

import quickstart
from groundwork import Grounder
from groundwork.experiments import seeds
from groundwork.experiments.quick.common import draw
from groundwork.report.results import read_rows
from groundwork.report.seeds import write_seed_rows


def test_the_quick_start_trains_evaluates_and_reports_every_model(tmp_path):
    call = ["--out", str(tmp_path / "run"), "--data", str(tmp_path / "data"), "--scenes", "60"]
    small = ["data.workers=0", "batch_size=4", "stages.0.epochs=1", "stages.0.steps=2"]
    rows = quickstart.main([*call, "--set", *small])

    assert rows == json.loads((tmp_path / "run" / "results.json").read_text())
    models = {row["checkpoint"] for row in rows if row["system"] == "ALBEF"}
    assert models == {"a_match.pth", "quickstart_base.pth", "b_amc.pth", "c_selfeq.pth"}
    benchmarks = {row["benchmark"] for row in rows}
    names = ("refcoco+", "refclef", "flickr30k", "paraphrases")
    assert benchmarks == {f"embedded/{name}" for name in names}
    assert {"centre", "random"} <= {row["system"] for row in rows}
    assert {"pointing", "matching", "same object"} <= {row["metric"] for row in rows}
    page = (tmp_path / "run" / "index.html").read_text()
    assert page.count("<img") == 4
    # The model that predict.py asks knows whether something is there.
    calibration = Grounder.load(tmp_path / "run" / "b_amc" / "b_amc.pth", device="cpu").calibration
    assert calibration.fitted.data == "embedded/refcoco+ val"
    assert [one.data.split()[1] for one in calibration.held_out] == ["testA", "testB"]


def test_the_part_of_boxes_and_masks_trains_one_model_from_the_other(tmp_path, embedded):
    call = ["--parts", "reftr", "--out", str(tmp_path), "--data", str(embedded)]
    small = ["data.workers=0", "batch_size=4", "epochs=1", "steps=2"]
    rows = quickstart.main([*call, "--set", *small])

    models = {row["checkpoint"]: row["objective"] for row in rows if row["system"] == "RefTR"}
    assert models == {
        "reftr_multi.pth": "multi-phrase",
        "reftr_single.pth": "REC",
        "reftr_masks.pth": "RES",
    }
    assert {"pointing", "Acc@0.5", "Acc@0.5 (merged box)", "mIoU"} <= {
        row["metric"] for row in rows
    }


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


def test_the_quick_start_over_seeds_makes_one_row_of_its_runs_and_says_what_to_expect(
    tmp_path, monkeypatch
):
    call = ["--out", str(tmp_path / "runs"), "--data", str(tmp_path / "data"), "--scenes", "60"]
    call += ["--models", "b_amc", "--seeds", "0", "1"]
    small = ["data.workers=0", "batch_size=4", "stages.0.epochs=1", "stages.0.steps=1"]
    rows = seeds.main([*call, "--set", *small])
    assert {row.runs for row in rows} == {2}
    (row,) = [
        r for r in rows if (r.checkpoint, r.split, r.metric) == ("b_amc.pth", "testA", "pointing")
    ]

    write_seed_rows(tmp_path / "expected.json", "a processor", rows)
    monkeypatch.setattr(quickstart, "EXPECTED", tmp_path / "expected.json")
    lines = quickstart.compared(read_rows(tmp_path / "runs/seed_0_threads_1/results.json"))
    (line,) = [line for line in lines if "testA, pointing" in line and "b_amc" in line]
    assert f"2 runs gave {row.mean:.2f}" in line and line.endswith(": as expected")
    far = [{**asdict(row), "value": row.mean + 1000}]
    assert quickstart.compared(far)[1].endswith("NOT as expected")

"""The same three commands for all seven systems, on the embedded data."""

import json
from pathlib import Path

import pytest

import pseudo_label
import test as evaluation
import train
from groundwork.dataset.synthetic import write_dataset
from groundwork.engine import remove_run
from groundwork.models.common.explain.perturbation import CELLS
from groundwork.report.prediction_files import predictions_files, read_predictions
from tests.helpers.script_runs import CONFIGS

# Name -> (configuration to train with, configuration to evaluate with, settings of a short run).
HEAT_MAPS = "tiny/Grounding_refcoco"
SHORT = ["data.workers=0", "batch_size=4", "stages.0.steps=2", "stages.0.epochs=1"]
BOXES = [*SHORT[:2], "steps=2", "epochs=1", "precision=fp32", "select=null"]
SYSTEMS = {
    "ALBEF": ("tiny/Pretrain", HEAT_MAPS, SHORT),
    "AMC": ("tiny/Pretrain_vg_amc", HEAT_MAPS, SHORT),
    "SelfEQ": ("tiny/Pretrain_vg", HEAT_MAPS, SHORT),
    "RefTR": ("tiny/reftr/refcoco+", "tiny/reftr/refcoco+", BOXES),
    "RefCLIP": (
        "tiny/refclip/refcoco+",
        "tiny/refclip/refcoco+",
        [*BOXES, "model.init.detector=null", "model.cache=null"],
    ),
    "SimREC": ("tiny/simrec/refcoco+", "tiny/simrec/refcoco+", BOXES),
    "ALVG": ("tiny/alvg/refcoco+", "tiny/alvg/refcoco+", [*BOXES, "stages=[{}]"]),
}
# RefTR's training list, for a teacher whose own lists are others.
TUPLES = [
    "data.train.train=data/embedded/annotations_resc/unc+/unc+_train.pth",
    "data.format=tuples",
    "data.image_root=data/embedded/images/train2014",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("systems")
    write_dataset(folder / "data" / "embedded", scenes=24, seed=7, trees=True)
    return folder


@pytest.fixture(scope="module")
def checkpoints(place) -> dict[str, Path]:
    """A hardly trained checkpoint of each, by train.py."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for name, (config, _, settings) in SYSTEMS.items():
            run = Path("runs") / name
            argv = ["--config", str(CONFIGS / f"{config}.yaml"), "--output_dir", str(run)]
            train.main([*argv, "--device", "cpu", "--set", *settings])
            (last, *_) = sorted(run.glob("checkpoint_*.pth"), reverse=True)
            found[name] = last.rename(run / f"{name}.pth")
    return found


@pytest.fixture
def in_place(checkpoints, place, monkeypatch) -> dict[str, Path]:
    """The checkpoints, from the folder of the data."""
    monkeypatch.chdir(place)
    return checkpoints


def test_one_command_makes_one_table_of_all_seven(checkpoints, place, monkeypatch):
    monkeypatch.chdir(place)
    configs = [str(CONFIGS / f"{config}.yaml") for _, config, _ in SYSTEMS.values()]
    rows = evaluation.main(
        ["--config", *configs, "--checkpoint", *map(str, checkpoints.values()), "--device", "cpu",
         "--output_dir", "compared", "--split", "testA", "--set", "data.workers=0"]
    )  # fmt: skip
    pointing = {row["checkpoint"] for row in rows if row["metric"] == "pointing"}
    assert {f"{name}.pth" for name in SYSTEMS} <= pointing
    assert json.loads(Path("compared/results.json").read_text())
    table = Path("compared/results.md").read_text()
    assert all(system in table for system in ("ALBEF", "RefTR", "RefCLIP", "SimREC", "ALVG"))


@pytest.mark.parametrize(
    "name",
    [
        "AMC",
        "RefTR",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("RefCLIP", "SimREC", "ALVG")),
    ],
)
def test_perturbation_gives_every_system_heat_maps(name, checkpoints, place, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    argv = ["--config", str(CONFIGS / f"{SYSTEMS[name][1]}.yaml"), "--device", "cpu",
            "--checkpoint", str(checkpoints[name]), "--split", "testB"]  # fmt: skip

    def evaluated(out: Path, *more: str) -> dict[str, float]:
        call = [*argv, "--output_dir", str(out), *more, "--set", "data.workers=0"]
        return {row["metric"]: row for row in evaluation.main(call) if row["checkpoint"]}

    own = evaluated(tmp_path / "own")
    rows = evaluated(tmp_path / "perturbation", "--explain", "perturbation")
    assert rows["pointing"]["note"].endswith("perturbation map")
    (file,) = predictions_files(tmp_path / "perturbation" / name)
    _, predictions = read_predictions(file)
    assert {one.heatmap.shape for one in predictions} == {(CELLS, CELLS)}
    # After two steps SimREC answers the same whatever it sees: nothing can be taken from it.
    assert any(one.heatmap.max() > 0 for one in predictions) or name == "SimREC"
    if name != "AMC":  # boxes are the system's own still
        assert rows["Acc@0.5"]["value"] == own["Acc@0.5"]["value"]


def label(name: str, checkpoints: dict[str, Path], out: Path, *settings: str) -> list[dict]:
    config = SYSTEMS[name][0] if SYSTEMS[name][1] != HEAT_MAPS else HEAT_MAPS
    pseudo_label.main(
        ["--config", str(CONFIGS / f"{config}.yaml"), "--checkpoint", str(checkpoints[name]),
         "--out", str(out), "--device", "cpu", "--set", "data.workers=0", *settings]
    )  # fmt: skip
    return [json.loads(line) for line in (out / "labels.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_labels_a_split(name, checkpoints, place, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    more = TUPLES if SYSTEMS[name][1] == HEAT_MAPS else []
    found = label(name, checkpoints, tmp_path, *more)
    assert found and all(len(one["box"]) == 4 for one in found)


@pytest.mark.parametrize(
    "config, split", [("tiny/Grounding_refcoco", "testA"), ("tiny/Pretrain_vg_amc", "train")]
)
def test_amc_labels_by_the_configurations_that_ship(config, split, in_place, tmp_path):
    counts = pseudo_label.main(
        ["--config", config, "--checkpoint", str(in_place["AMC"]), "--split", split,
         "--out", str(tmp_path), "--device", "cpu", "--set", "data.workers=0"]
    )  # fmt: skip
    found = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert len(found) == counts["kept"] > 0
    assert {one["split"] for one in found} == {split}
    manifest = json.loads((tmp_path / "labels_manifest.json").read_text())
    assert any("AMC.pth" in name for name in manifest["data"]) and len(manifest["data"]) > 1


def test_reftr_trains_on_the_boxes_of_amc(checkpoints, place, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    label("AMC", checkpoints, tmp_path, *TUPLES)
    remove_run(tmp_path / "student")
    train.main(
        ["--config", str(CONFIGS / "tiny/reftr/refcoco+.yaml"), "--device", "cpu",
         "--output_dir", str(tmp_path / "student"),
         "--set", *BOXES, f"data.labels={tmp_path / 'labels.jsonl'}"]
    )  # fmt: skip
    lines = (tmp_path / "student" / "log.txt").read_text().splitlines()
    assert any("loss_bbox" in json.loads(line) for line in lines)


def test_albef_keeps_the_checkpoint_that_points_best_on_validation(place, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    refer = "data/embedded"
    train.main(
        ["--config", str(CONFIGS / "tiny/Pretrain_vg_amc.yaml"), "--device", "cpu",
         "--output_dir", str(tmp_path), "--set", *SHORT[:3], "stages.0.epochs=2",
         "benchmark=embedded/refcoco+", f"data.test_file=[{refer}/refcoco+/test.json]",
         f"data.refcoco_data={refer}", "select={splits: [val], metric: pointing}"]
    )  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "log.txt").read_text().splitlines()]
    values = [row["pointing"] for row in rows if row["kind"] == "validation"]
    assert len(values) == 2 and (tmp_path / "checkpoint_best.pth").is_file()

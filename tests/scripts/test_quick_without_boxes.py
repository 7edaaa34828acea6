"""Learning without boxes in one command, at a size that teaches nothing."""

import json

import pytest

import quickstart
import train
from tests.helpers.script_runs import CONFIGS

SMALL = ["data.workers=0", "batch_size=4", "epochs=1", "steps=2"]
pytestmark = pytest.mark.usefixtures("embedded")


@pytest.fixture
def reftr(tmp_path):
    """What the part `reftr` would leave in the output folder."""
    folder = tmp_path / "run" / "reftr_single"
    config = str(CONFIGS / "tiny/reftr/refcoco+.yaml")
    train.main(["--config", config, "--output_dir", str(folder), "--set", *SMALL])
    (folder / "checkpoint_best.pth").rename(folder / "reftr_single.pth")
    return (folder / "log.txt").read_bytes()


@pytest.mark.slow
def test_one_command_ends_in_one_table_of_all_of_them(tmp_path, reftr, capsys):
    out = tmp_path / "run"
    rows = quickstart.main(["--parts", "without_boxes", "--out", str(out), "--set", *SMALL])
    assert (out / "reftr_single" / "log.txt").read_bytes() == reftr
    names = [
        ("detector", "likeliest object"), ("RefCLIP", "REC without boxes"),
        ("oracle", "best of the chosen cell"), ("oracle", "best of the selected cells"),
        ("SimREC", "REC by pseudo-labels"), ("SimREC", "REC"), ("RefTR", "REC"),
    ]  # fmt: skip
    found = [(row["system"], row["objective"], row["split"]) for row in rows]
    assert sorted(found) == sorted((*name, split) for name in names for split in ("testA", "testB"))
    value = {(row["objective"], row["split"]): row["value"] for row in rows}
    for split in ("testA", "testB"):
        best, chosen = (
            value[f"best of the {cells}", split] for cells in ("selected cells", "chosen cell")
        )
        assert value["REC without boxes", split] <= chosen <= best
    said = capsys.readouterr().out
    assert said.count("### ") == 1 and "### embedded/refcoco+: Acc@0.5" in said
    manifest = json.loads((out / "without_boxes/student/manifest.json").read_text())
    assert manifest["config"]["data"]["labels"].endswith("without_boxes/labels/labels.jsonl")
    assert (out / "index.html").read_text().count("<img") == 4

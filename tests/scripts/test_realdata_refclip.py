"""Every step of learning without boxes runs on real images: detector file, teacher, labels,
student.

The detector's weights are generated in the layout of published files, so that nothing is claimed
about accuracy. GROUNDWORK_REALDATA names the folder of the images.
"""

import json
import os
from pathlib import Path

import pytest
import torch

import pseudo_label
import test
import train
from groundwork.models.refclip.build import build_detector
from groundwork.models.refclip.config import RefclipDetectorConfig
from groundwork.tools import prepare_flickr30k
from tests.helpers.script_runs import CONFIGS

REALDATA = os.environ.get("GROUNDWORK_REALDATA")
pytestmark = pytest.mark.skipif(
    not REALDATA, reason="GROUNDWORK_REALDATA names no folder of real data"
)
ENTRIES = {"train": 6, "val": 3, "test": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[Path, Path]:
    """(annotation file of a few expressions, folder of their images)"""
    raw = Path(REALDATA or "", "flickr30k_mini_fullsize")
    out = tmp_path_factory.mktemp("flickr30k")
    prepare_flickr30k.main(["--raw", str(raw), "--out", str(out)])
    content = json.loads((out / "anns" / "flickr30k.json").read_text(encoding="utf-8"))
    few = out / "few" / "flickr30k.json"
    few.parent.mkdir()
    few.write_text(json.dumps({split: content[split][:n] for split, n in ENTRIES.items()}))
    return few, raw / "images"


def published_layout(config: RefclipDetectorConfig, path: Path) -> Path:
    torch.manual_seed(0)
    detector = build_detector(config)
    network = detector if config.name == "yolov3" else detector.network
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.parametrize(
    "config",
    [RefclipDetectorConfig(), RefclipDetectorConfig(name="fcos_resnet50_fpn", classes=91)],
    ids=lambda config: config.name,
)
def test_the_whole_scheme_runs_on_real_images(config, data, tmp_path):
    file, images = data
    detector = published_layout(config, tmp_path / "detector.pth")
    shared = [
        "benchmark=flickr30k", f"data.train={{train: {file}}}",
        f"data.evaluate={{val: {file}, test: {file}}}", f"data.image_root={images}",
        "data.workers=0", "batch_size=2", "epochs=1", "steps=2", "precision=fp32",
    ]  # fmt: skip
    teacher = [
        *shared, f"model.init={{detector: {detector}}}", "model.text.train_words=true",
        f"model.detector.name={config.name}", f"model.detector.classes={config.classes}",
        f"model.cache={{folder: {tmp_path / 'cache'}}}", "model.detector.batch_norm=eval",
    ]  # fmt: skip
    start = ["--config", str(CONFIGS / "refclip" / "refcoco.yaml"), "--device", "cpu"]
    train.main([*start, "--output_dir", str(tmp_path / "teacher"), "--set", *teacher])
    checkpoint = str(tmp_path / "teacher" / "checkpoint_00.pth")
    found = test.main(
        [*start, "--output_dir", str(tmp_path / "out"), "--eval-weights", checkpoint,
         "--split", "test", "--set", *teacher]
    )  # fmt: skip
    assert {row["n"] for row in found if row["metric"] == "Acc@0.5"} == {ENTRIES["test"]}
    labels = tmp_path / "labels"
    pseudo_label.main(
        [*start, "--checkpoint", checkpoint, "--split", "train", "--out", str(labels), "--set",
         *teacher]
    )  # fmt: skip
    student = ["--config", str(CONFIGS / "tiny/simrec/refcoco+.yaml"), "--device", "cpu"]
    train.main(
        [*student, "--output_dir", str(tmp_path / "student"), "--set", *shared,
         f"data.labels={labels / 'labels.jsonl'}"]
    )  # fmt: skip
    assert (tmp_path / "student" / "checkpoint_00.pth").is_file()

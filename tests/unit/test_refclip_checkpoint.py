"""Published RefCLIP and detector files go in and out, and others are refused by name."""

import argparse
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from groundwork.models.common.checkpoint import CheckpointError
from groundwork.models.common.word_system import load
from groundwork.models.refclip.build import REFCLIP, build_model
from groundwork.models.refclip.config import RefclipDetectorConfig, RefclipInitConfig
from tests.helpers.tiny_refclip import MODEL, VOCABULARY, tiny_refclip
from tests.helpers.tiny_reftr import tiny_reftr

ENCODER = "visual_encoder."


def initialised(model, init) -> list:
    """What was loaded of the files that `init` names."""
    return REFCLIP.initialise(model, SimpleNamespace(init=init), None)


@pytest.fixture
def save(tmp_path):
    def write(content: object, name: str = "det_best.pth") -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return write


def released(seed: int = 1, prefix: str = "") -> dict:
    """The five entries of a released file; `prefix` as several GPUs leave it."""
    state = REFCLIP.published_state(tiny_refclip(seed=seed))
    return {
        "epoch": 25,
        "state_dict": {prefix + name: value for name, value in state.items()},
        "optimizer": {"state": {}, "param_groups": []},
        "scheduler": {"last_epoch": 10},
        "lr": 1e-6,
    }


def detector_state(config: RefclipDetectorConfig = MODEL.detector, seed: int = 3) -> dict:
    state = REFCLIP.published_state(tiny_refclip(replace(MODEL, detector=config), seed=seed))
    return {k.removeprefix(ENCODER): v for k, v in state.items() if k.startswith(ENCODER)}


def start(detector: Path, **changes) -> tuple:
    config = replace(MODEL, **changes)
    model = build_model(config, VOCABULARY)
    return model, initialised(model, RefclipInitConfig(detector=str(detector)))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_released_file_comes_back_whole_with_its_detectors_statistics(save, prefix):
    file = released(prefix=prefix)
    name = f"{prefix}{ENCODER}module_list.0.batch_norm.running_mean"
    file["state_dict"][name] = file["state_dict"][name] + 5
    model = tiny_refclip()
    report = str(load(model, save(file)))
    for key, value in model.state_dict().items():
        assert torch.equal(value, file["state_dict"][prefix + key]), key
    assert "Written after epoch 25" in report and "Kept as initialised" not in report


def test_files_without_counters_of_batches_are_whole(save):
    state = {k: v for k, v in released()["state_dict"].items() if "num_batches" not in k}
    assert "Kept as initialised" not in str(load(tiny_refclip(), save({"state_dict": state})))


@pytest.mark.parametrize("wrap", ["flat", "state_dict", "module", "whole"])
def test_the_detector_is_found_in_any_wrapper(save, wrap):
    flat = detector_state()
    content = {
        "flat": flat,
        "state_dict": {"state_dict": flat},
        "module": {f"module.{ENCODER}{name}": value for name, value in flat.items()},
        "whole": {"state_dict": REFCLIP.published_state(tiny_refclip(seed=3))},
    }[wrap]
    model, (report,) = start(save(content, "yolov3_coco.pth"))
    own = model.visual_encoder.state_dict()
    assert own.keys() == flat.keys() and all(torch.equal(own[k], v) for k, v in flat.items())
    assert report.used == len(flat)


def test_a_detector_of_other_classes_says_how_many(save):
    other = replace(MODEL.detector, classes=7)
    with pytest.raises(CheckpointError, match=r"know 7 classes.*set model\.detector\.classes to 7"):
        start(save(detector_state(other), "yolov3_vg.pth"))


def test_a_torchvision_detector_is_read_from_its_file(save):
    config = RefclipDetectorConfig(name="fcos_resnet50_fpn", classes=3)
    model = build_model(replace(MODEL, detector=config), VOCABULARY)
    state = {k: v + 1 for k, v in model.visual_encoder.network.state_dict().items()}
    file = save(state, "fcos.pth")
    initialised(model, RefclipInitConfig(detector=str(file)))
    for name, value in model.visual_encoder.network.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_downloading_is_asked_for_and_fails_with_the_remedy(monkeypatch):
    config = RefclipDetectorConfig(name="fcos_resnet50_fpn", classes=91)
    model = build_model(replace(MODEL, detector=config), VOCABULARY)

    def refuse(*_args, **_kwargs):
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(CheckpointError, match="no network.*download them elsewhere"):
        initialised(model, RefclipInitConfig(detector="torchvision"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("linear_ts.bias"), "missing: linear_ts.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "unknown: extra"),
        (
            lambda s: s.update({"linear_vs.weight": torch.zeros(2, 3)}),
            r"linear_vs.weight \(2, 3\) in the file, \(16, 16\) in the model",
        ),
        (
            lambda s: s.update({"lang_encoder.embedding.weight": torch.zeros(9, 8)}),
            r"its vocabulary has 9 words, that of the configuration 20.*words\.txt",
        ),
    ],
)
def test_files_that_do_not_fit_name_what_does_not(save, change, message):
    file = released()
    change(file["state_dict"])
    with pytest.raises(CheckpointError, match=message):
        load(tiny_refclip(), save(file))


def test_a_detector_with_a_tensor_less_is_refused(save):
    state = detector_state()
    state.pop("module_list.37.conv.bias")
    with pytest.raises(CheckpointError, match="missing: module_list.37.conv.bias"):
        start(save(state, "yolov3_coco.pth"))


def test_files_of_other_systems_are_called_by_their_name(save):
    with pytest.raises(CheckpointError, match="looks like a checkpoint of RefTR"):
        load(tiny_refclip(), save({"model": tiny_reftr().state_dict()}))
    with pytest.raises(CheckpointError, match="looks like a checkpoint of RefTR"):
        start(save({"model": tiny_reftr().state_dict()}))


def test_no_code_of_a_file_runs_and_damaged_ones_are_named(save, tmp_path):
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        load(tiny_refclip(), save({**released(), "args": argparse.Namespace(out=Path("x"))}))
    short = tmp_path / "short.pth"
    short.write_bytes(save(released()).read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        load(tiny_refclip(), short)
    with pytest.raises(FileNotFoundError, match="checkpoint not found"):
        start(tmp_path / "yolov3_coco.pth")


def test_a_checkpoint_and_parts_of_it_exclude_each_other():
    with pytest.raises(ValueError, match=r"init\.refclip replaces all weights"):
        RefclipInitConfig(refclip="a.pth", detector="b.pth")

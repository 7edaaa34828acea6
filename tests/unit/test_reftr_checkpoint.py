"""Published RefTR, DETR, ResNet and BERT files go in and out, and others are refused by name."""

import argparse
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.models import resnet18

from groundwork.models.common.checkpoint import CheckpointError, read_checkpoint
from groundwork.models.reftr.build import ReftrSystem, build_model, build_text_encoder
from groundwork.models.reftr.checkpoint import load, published_state
from groundwork.models.reftr.config import ReftrInitConfig, ReftrModelConfig, ReftrTextConfig
from tests.helpers.tiny_albef import tiny_model
from tests.helpers.tiny_reftr import MASKS, MODEL, TEXT, tiny_reftr

GOLDEN = Path(__file__).parents[1] / "golden"
OF_MASKS = ("bbox_attention.", "mask_head.")
NAMESPACE = argparse.Namespace(lr=1e-4, test_split=["val"], output_dir="runs", resume=None)


def initialised(model, init) -> list:
    """What was loaded of the files that `init` names."""
    return ReftrSystem().initialise(model, SimpleNamespace(init=init), None)


@pytest.fixture
def save(tmp_path):
    def write(content: object, name: str = "checkpoint.pth") -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return write


def released(config: ReftrModelConfig = MODEL, seed: int = 1) -> dict:
    """A file as the release writes it."""
    return {
        "model": published_state(tiny_reftr(config, seed=seed)),
        "optimizer": {"state": {}, "param_groups": []},
        "lr_scheduler": {"last_epoch": 7},
        "epoch": 7,
        "args": NAMESPACE,
        "best_val_acc": 0.5,
    }


def assert_holds(model, state: dict[str, torch.Tensor], but: tuple[str, ...] = ("\0",)) -> None:
    for name, value in model.state_dict().items():
        if not name.startswith(but):
            assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("config", [MODEL, MASKS], ids=["boxes", "masks"])
def test_a_released_file_comes_back_whole(config, save):
    file, model = released(config), tiny_reftr(config)
    report = str(load(model, save(file)))
    assert_holds(model, file["model"])
    assert "Written after epoch 7" in report and "Kept as initialised" not in report


@pytest.mark.parametrize("size", ["tiny", "base"])
def test_a_saved_file_has_the_published_keys_and_shapes_in_their_order(size):
    golden = json.loads((GOLDEN / f"reftr_keys_{size}.json").read_text())
    with torch.device("meta"):
        model = build_model(SIZES[size])
    written = {name: list(value.shape) for name, value in published_state(model).items()}
    assert written == golden
    ours = [name for name in written if not name.endswith("position_ids")]
    assert ours == [name for name in golden if not name.endswith("position_ids")]


SIZES = {
    "tiny": ReftrModelConfig(
        text=ReftrTextConfig(vocab_size=200, width=64, layers=2, heads=4, ffn=128),
        width=128, ffn=128, encoder_layers=2, decoder_layers=3, masks=True, weights={"cem": 1.0},
    ),
    "base": ReftrModelConfig(masks=True, weights={"cem": 1.0}),
}  # fmt: skip


def test_files_of_older_and_newer_libraries_and_wrappers_are_read(save):
    file = released()
    state = {f"module.{name}": value for name, value in file["model"].items()}
    state["module.lang_backbone.embeddings.token_type_ids"] = torch.zeros(1, 32, dtype=torch.long)
    state["module.img_backbone.0.body.bn1.num_batches_tracked"] = torch.tensor(3)
    state["module.bbox_embed.total_params"] = torch.zeros(1)
    del state["module.lang_backbone.embeddings.position_ids"]
    model = tiny_reftr()
    load(model, save({"model": state}))
    assert_holds(model, file["model"])


def test_a_file_with_masks_loads_into_a_model_without(save):
    file, model = released(MASKS), tiny_reftr()
    report = str(load(model, save(file)))
    assert_holds(model, file["model"])
    assert "Not used: bbox_attention (4), mask_head (28)" in report


def test_a_file_without_masks_starts_a_model_with_them_only_on_request(save):
    file, model = released(), tiny_reftr(MASKS)
    path, before = save(file), {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"missing: bbox_attention.*and 27 more"):
        load(model, path)
    (report,) = initialised(model, ReftrInitConfig(reftr=str(path)))
    assert_holds(model, file["model"], OF_MASKS)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items() if k[:4] == "mask")
    assert "Kept as initialised (not in the file): bbox_attention (4), mask_head (28)" in str(
        report
    )


def test_the_consistency_block_is_left_out_where_it_is_off(save):
    with_block = replace(MASKS, weights={"cem": 1.0})
    file, model = released(with_block), tiny_reftr(MASKS)
    assert "Not used: cem_block (6)" in str(load(model, save(file)))


def detr_file(model) -> dict:
    """A DETR with this model's backbone and encoder, and parts that RefTR does not take."""
    state = {}
    for name, value in model.state_dict().items():
        if name.startswith("img_backbone."):
            state[name.replace("img_backbone", "backbone", 1)] = value
        if name.startswith("vl_transformer.encoder"):
            state[name.removeprefix("vl_")] = value
    others = {
        "transformer.decoder.norm.weight": torch.zeros(32),
        "input_proj.weight": torch.zeros(32, 64, 1, 1),
        "bbox_embed.layers.0.weight": torch.zeros(32, 32),
        "class_embed.weight": torch.zeros(92, 32),
    }
    return {"model": state | others, "args": NAMESPACE}


def test_detr_gives_backbone_and_encoder_and_a_warning(save):
    source, model = tiny_reftr(seed=1), tiny_reftr()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    (report,) = initialised(model, ReftrInitConfig(detr=str(save(detr_file(source)))))
    taken = ("img_backbone.", "vl_transformer.encoder.")
    for name, value in model.state_dict().items():
        expected = source.state_dict() if name.startswith(taken) else before
        assert torch.equal(value, expected[name]), name
    assert "trained on COCO" in str(report) and "validation and test images" in str(report)


def test_a_detr_of_another_depth_is_refused(save):
    path = save(detr_file(tiny_reftr(replace(MODEL, encoder_layers=2))))
    with pytest.raises(CheckpointError, match=r"encoder.*unknown: layers\.1\."):
        initialised(tiny_reftr(), ReftrInitConfig(detr=str(path)))


def test_a_torchvision_file_gives_the_backbone(save):
    torch.manual_seed(1)
    network = resnet18()
    backbone = replace(MODEL.backbone, name="resnet18", width=64)
    for norm in ("frozen", "batch"):
        model = tiny_reftr(replace(MODEL, backbone=replace(backbone, norm=norm)))
        initialised(model, ReftrInitConfig(backbone=str(save(network.state_dict()))))
        assert_holds(model.img_backbone[0].body, network.state_dict())


def test_a_folder_gives_the_text_network(tmp_path):
    torch.manual_seed(1)
    source, model = build_text_encoder(TEXT), tiny_reftr()
    source.save_pretrained(tmp_path)
    initialised(model, ReftrInitConfig(text=str(tmp_path)))
    assert_holds(model.lang_backbone, source.state_dict())
    with pytest.raises(CheckpointError, match=r"model\.init\.text: .*nowhere is neither a folder"):
        initialised(model, ReftrInitConfig(text=str(tmp_path / "nowhere")))


def test_nothing_is_loaded_unasked():
    assert initialised(tiny_reftr(), ReftrInitConfig()) == []


class Stranger:
    """A class that no checkpoint of the release holds."""


class Attack:
    """Runs a command when it is unpickled in the ordinary way."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_only_namespaces_are_allowed_and_no_code_runs(save, tmp_path):
    for name, content in (
        ("stranger", Stranger()),
        ("inside", argparse.Namespace(odd=Stranger())),
        ("path", argparse.Namespace(output_dir=Path("runs"))),
        ("attack", argparse.Namespace(odd=Attack(tmp_path / "ran"))),
    ):
        path = save(released() | {"args": content}, f"{name}.pth")
        with pytest.raises(CheckpointError, match=f"{name}.pth: not loaded.*Re-save it"):
            load(tiny_reftr(), path)
    assert not (tmp_path / "ran").exists()


def test_released_entries_beside_the_weights_are_read_as_values(save):
    best = {"best_val_acc": np.float64(0.5), "counts": np.arange(3)}
    content = read_checkpoint(save(released() | {"args": NAMESPACE} | best))
    assert content["args"] == NAMESPACE
    assert content["best_val_acc"] == 0.5 and content["counts"].tolist() == [0, 1, 2]


def test_the_permission_ends_with_the_loading(save):
    path = save(released())
    load(tiny_reftr(), path)
    with pytest.raises(pickle.UnpicklingError, match="Namespace"):
        torch.load(path, weights_only=True)


def test_files_of_other_systems_are_named(save):
    path = save({"model": tiny_model().state_dict()})
    with pytest.raises(CheckpointError, match="looks like a checkpoint of ALBEF, AMC or SelfEQ"):
        load(tiny_reftr(), path)
    path = save(detr_file(tiny_reftr()))
    with pytest.raises(CheckpointError, match="looks like a checkpoint of DETR"):
        load(tiny_reftr(), path)


def test_truncated_files_missing_keys_and_other_sizes_are_refused(save, tmp_path):
    path = save(released())
    cut = tmp_path / "cut.pth"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="cut.pth: truncated or damaged"):
        load(tiny_reftr(), cut)
    with pytest.raises(FileNotFoundError, match="absent.pth"):
        load(tiny_reftr(), tmp_path / "absent.pth")
    file = released()
    del file["model"]["query_encoder.linear2.bias"]
    with pytest.raises(CheckpointError, match=r"missing: query_encoder\.linear2\.bias"):
        load(tiny_reftr(), save(file, "lacking.pth"))
    with pytest.raises(CheckpointError, match=r"RefTR\. other shapes: .*32\) in the file"):
        load(tiny_reftr(replace(MODEL, width=64)), path)

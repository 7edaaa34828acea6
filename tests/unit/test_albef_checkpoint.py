"""Published and own checkpoint files go in and out of ALBEF, and others are refused by name."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from groundwork.models.albef.checkpoint import TOKENS, load, published_state
from groundwork.models.albef.config import AlbefModelConfig, TextConfig
from groundwork.models.albef.vision import resize_position_embedding
from groundwork.models.common.checkpoint import CheckpointError
from tests.helpers.tiny_albef import MODEL, tiny_model

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    """The published layout of a model whose twin and queues differ from a fresh one's."""
    model = tiny_model(seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "_m." in name:
                parameter.add_(0.25)
        model.queue_ptr_img.fill_(4)
        model.queue_ptr_txt.fill_(4)
    return published_state(model)


@pytest.fixture
def save(tmp_path):
    def write(state: dict, **more: object) -> Path:
        path = tmp_path / "file.pth"
        torch.save({"model": state, **more}, path)
        return path

    return write


def assert_holds(model, state: dict[str, torch.Tensor], but: tuple[str, ...] = ()) -> None:
    for name, value in model.state_dict().items():
        if not name.startswith(but or ("\0",)):
            assert torch.equal(value, state[name]), name


def test_a_saved_file_comes_back_whole(state, save):
    model = tiny_model()
    report = str(load(model, save(state, epoch=3)))
    assert_holds(model, state)
    assert "Written after epoch 3" in report and "Kept as initialised" not in report


def test_a_saved_file_has_the_published_keys_and_shapes():
    golden = json.loads((GOLDEN / "amc_tiny_keys.json").read_text())
    settings = json.loads((GOLDEN / "bert_tiny.json").read_text())
    names = TextConfig.__dataclass_fields__.keys() & settings.keys()
    config = AlbefModelConfig(
        image_size=256, patch_size=16, vision_width=96, vision_depth=12, vision_heads=12,
        text=TextConfig(**{name: settings[name] for name in names}), embed_dim=32, queue_size=24,
    )  # fmt: skip
    written = published_state(tiny_model(config))
    assert {name: list(value.shape) for name, value in written.items()} == golden


def test_the_first_release_with_one_pointer_is_read(state, save):
    pointer = state.pop("queue_ptr_img")
    del state["queue_ptr_txt"]
    model = tiny_model()
    report = load(model, save(state | {"queue_ptr": pointer}))
    assert model.queue_ptr_img.item() == model.queue_ptr_txt.item() == 4
    assert "single queue_ptr" in str(report)


def test_a_file_saved_from_inside_ddp_is_read(state, save):
    model = tiny_model()
    load(model, save({f"module.{name}": value for name, value in state.items()}))
    assert_holds(model, state)


def test_a_bare_state_dict_is_read(state, tmp_path):
    torch.save(state, tmp_path / "bare.pth")
    model = tiny_model()
    load(model, tmp_path / "bare.pth")
    assert_holds(model, state)


def test_a_file_without_a_twin_makes_the_twin_a_copy(state, save):
    model = tiny_model()
    report = load(model, save({k: v for k, v in state.items() if "_m." not in k}))
    assert torch.equal(model.vision_proj_m.weight, state["vision_proj.weight"])
    assert "twin starts as a copy" in str(report)


def test_an_evaluation_model_leaves_twin_and_queues_and_says_so(state, save):
    model = tiny_model(momentum=False)
    report = str(load(model, save(state)))
    assert_holds(model, state)
    assert "Not used: " in report and "visual_encoder_m (" in report and "image_queue (1)" in report


def test_a_queue_of_another_length_starts_afresh(state, save):
    model = tiny_model(replace(MODEL, queue_size=6))
    before = model.image_queue.clone()
    report = load(model, save(state))
    assert torch.equal(model.image_queue, before)
    assert model.queue_ptr_img.item() == model.queue_ptr_txt.item() == 0
    assert "10 columns not taken, the model's has 6" in str(report)


def test_position_embeddings_are_resized_for_another_image_size(state, save):
    model = tiny_model(replace(MODEL, image_size=48))
    report = load(model, save(state))
    assert "resized from 16 to 36" in str(report)
    expected = resize_position_embedding(state["visual_encoder.pos_embed"], (6, 6))
    assert torch.equal(model.visual_encoder.pos_embed, expected)


@pytest.mark.parametrize("grid", [(6, 6), (2, 2), (3, 7)])
def test_position_embeddings_are_resized_bicubically_without_antialiasing(grid):
    embedding = torch.randn(1, 1 + 16, 8)
    resized = resize_position_embedding(embedding, grid)
    assert torch.equal(resized[:, :1], embedding[:, :1])
    square = embedding[0, 1:].T.reshape(1, 8, 4, 4)
    plain = F.interpolate(square, size=grid, mode="bicubic", align_corners=False, antialias=False)
    torch.testing.assert_close(resized[0, 1:].T.reshape(1, 8, *grid), plain)


def test_position_embeddings_of_the_same_grid_are_not_touched():
    embedding = torch.randn(1, 1 + 16, 8)
    assert resize_position_embedding(embedding, (4, 4)) is embedding


def test_position_embeddings_of_no_square_grid_are_refused():
    with pytest.raises(ValueError, match="15 patch rows"):
        resize_position_embedding(torch.randn(1, 1 + 15, 8), (4, 4))


def test_a_file_of_another_width_is_refused_with_both_shapes(state, save):
    wide = tiny_model(replace(MODEL, embed_dim=8))
    with pytest.raises(CheckpointError, match=r"vision_proj.weight \(16, 32\) .* \(8, 32\)"):
        load(wide, save(state))


def test_a_file_of_another_system_is_recognised(save):
    keys = ("vl_transformer.encoder.layers.0.weight", "img_backbone.0.body.conv1.weight")
    with pytest.raises(CheckpointError, match="looks like a checkpoint of RefTR"):
        load(tiny_model(), save({key: torch.zeros(2) for key in keys}))


def test_a_key_too_many_and_a_key_too_few_are_named(state, save):
    with pytest.raises(CheckpointError, match="unknown: bbox_head.weight"):
        load(tiny_model(), save(state | {"bbox_head.weight": torch.zeros(1)}))
    del state["itm_head.bias"]
    with pytest.raises(CheckpointError, match="missing: itm_head.bias"):
        load(tiny_model(), save(state))


def test_a_truncated_file_is_called_so(state, save):
    path = save(state)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"file\.pth: (truncated|not loaded)"):
        load(tiny_model(), path)


def test_a_file_that_holds_more_than_tensors_is_not_run(state, save):
    with pytest.raises(CheckpointError, match="Re-save"):
        load(tiny_model(), save(state, args=Path("x")))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        load(tiny_model(), tmp_path / "nowhere.pth")


def test_a_refused_file_leaves_the_model_as_it_was(state, save):
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    del state["itm_head.bias"]
    with pytest.raises(CheckpointError):
        load(model, save(state))
    assert_holds(model, before)


def test_a_file_of_ours_says_how_its_texts_end_and_one_with_sep_is_refused(state, save):
    own = {"config": {"stages": []}}
    with pytest.raises(CheckpointError, match=r"end with \[SEP\].*train it anew"):
        load(tiny_model(), save(state, **own))
    assert load(tiny_model(), save(state, **own, tokens=TOKENS)).used

"""Published BEiT-3 and ALVG files in, our own out and in again; wrong ones are named."""

import pytest
import torch

from groundwork.models.alvg.build import build_encoder, build_model
from groundwork.models.alvg.checkpoint import initialise_encoder, load, published_state, start_from
from groundwork.models.common.checkpoint import CheckpointError
from tests.unit.test_alvg_model import TINY, batch, config


def released_file(path, model, *, wrapped=True):
    """As the authors' training script writes them, with the parts that nothing uses."""
    state = {key: torch.randn_like(value) if value.is_floating_point() else value
             for key, value in published_state(model).items()}  # fmt: skip
    for key in state:
        if key.endswith("running_var"):
            state[key] = state[key].abs() + 0.5
    state |= {
        "vis_enc.beit3.vision_embed.mask_token": torch.zeros(1, 1, 32),
        "head.class_embed_token.weight": torch.zeros(2, 32),
        "head.bbox_embed_token.layers.0.weight": torch.zeros(32, 32),
        "head.mask_head.norm.weight": torch.ones(32),
        "head.criterion.empty_weight": torch.tensor([1.0, 0.1]),
    }
    prefix = "module." if wrapped else ""
    content = {"state_dict": {prefix + key: value for key, value in state.items()}}
    torch.save(content | {"epoch": 7, "lr": 5e-5, "best_d_acc": 81.5, "amp": None}, path)
    return state


def beit3_file(path, *, key="model", side=14):
    encoder = build_encoder(TINY)
    state = {f"beit3.{name}": torch.randn_like(v) for name, v in encoder.state_dict().items()}
    state["beit3.vision_embed.proj.weight"] = torch.randn(32, 3, 8, 8)
    state["beit3.encoder.embed_positions.A.weight"] = torch.randn(side * side + 3, 32)
    state |= {"beit3.vision_embed.mask_token": torch.zeros(1, 1, 32), "logit_scale": torch.ones(())}
    state |= {"language_head.weight": torch.zeros(4, 32), "head.weight": torch.zeros(2, 32)}
    torch.save({key: state} if key else state, path)
    return state


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_released_file_selects_the_released_behaviour_and_says_so(tmp_path, wrapped):
    released = build_model(config(compat="released")).eval()
    state = released_file(tmp_path / "det_best.pth", released, wrapped=wrapped)
    model = build_model(config()).eval()
    report = str(load(model, tmp_path / "det_best.pth"))
    assert "compat: released" in report and "epoch 7" in report
    load(released, tmp_path / "det_best.pth")
    with torch.no_grad():
        ours, theirs = model(batch(1, 1)), released(batch(1, 1))
    for name in ("pred_boxes", "score", "pred_masks"):
        torch.testing.assert_close(ours[name], theirs[name])
    assert torch.equal(model.head.input_proj.weight, state["head.input_proj.weight"])


def test_a_new_run_from_a_released_file_keeps_its_configuration(tmp_path):
    released_file(tmp_path / "det_best.pth", build_model(config()))
    model = build_model(config())
    assert "set model.compat" in str(start_from(model, tmp_path / "det_best.pth"))
    assert model.head.transformer.decoder.chained


def test_own_files_come_back_exactly_and_stay_as_they_are(tmp_path):
    first, second = build_model(config()), build_model(config())
    torch.save({"model": published_state(first)}, tmp_path / "own.pth")
    assert "released" not in str(load(second, tmp_path / "own.pth"))
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key
    assert second.head.transformer.decoder.chained


def test_a_model_of_boxes_starts_one_with_masks_but_is_not_evaluated_as_one(tmp_path):
    torch.save({"model": published_state(build_model(config(masks=False)))}, tmp_path / "rec.pth")
    model = build_model(config())
    assert "Kept as initialised" in str(start_from(model, tmp_path / "rec.pth"))
    with pytest.raises(CheckpointError, match=r"missing: head\.mask_head"):
        load(model, tmp_path / "rec.pth")
    load(build_model(config(masks=False)), tmp_path / "rec.pth")


def test_a_model_of_one_query_starts_one_of_several(tmp_path):
    one, several = build_model(config()), build_model(config(queries=4, several_targets=True))
    torch.save({"model": published_state(one)}, tmp_path / "rec.pth")
    own = several.head.query_embed.weight.detach().clone()
    assert "Queries 2 to 4" in str(start_from(several, tmp_path / "rec.pth"))
    assert torch.equal(several.head.query_embed.weight[:1], one.head.query_embed.weight)
    assert torch.equal(several.head.query_embed.weight[1:], own[1:])


def test_another_number_of_queries_is_named(tmp_path):
    torch.save({"model": published_state(build_model(config(queries=3)))}, tmp_path / "g.pth")
    with pytest.raises(CheckpointError, match=r"head\.query_embed\.weight \(3, 32\) in the file"):
        load(build_model(config()), tmp_path / "g.pth")


@pytest.mark.parametrize("key", ["model", "module", ""])
def test_a_public_encoder_is_resized_whatever_it_lies_in(tmp_path, key):
    state = beit3_file(tmp_path / "beit3.pth", key=key)
    encoder = build_encoder(TINY)
    report = str(initialise_encoder(encoder, tmp_path / "beit3.pth"))
    assert "14 x 14 to 4 x 4" in report and "from 8 to 16" in report and "3 entries" in report
    table = encoder.encoder.embed_positions.A.weight
    assert torch.equal(table[:3], state["beit3.encoder.embed_positions.A.weight"][:3])
    scaled = build_encoder(TINY)
    initialise_encoder(scaled, tmp_path / "beit3.pth", scaled=True)
    torch.testing.assert_close(
        scaled.vision_embed.proj.weight * 4, encoder.vision_embed.proj.weight
    )


def test_files_of_other_systems_and_hostile_ones_are_refused(tmp_path):
    torch.save({"model": {"vl_transformer.level_embed": torch.zeros(1)}}, tmp_path / "reftr.pth")
    with pytest.raises(CheckpointError, match="RefTR"):
        load(build_model(config()), tmp_path / "reftr.pth")
    with pytest.raises(CheckpointError, match="beit3_base_indomain"):
        initialise_encoder(build_encoder(TINY), tmp_path / "reftr.pth")
    torch.save({"model": Hostile()}, tmp_path / "hostile.pth")
    with pytest.raises(CheckpointError, match="not loaded"):
        load(build_model(config()), tmp_path / "hostile.pth")


class Hostile:
    def __reduce__(self):
        return (print, ("this must never run",))

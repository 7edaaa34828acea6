"""RefTR: what may change its boxes and what may not, what learns, what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from groundwork.geometry import iou
from groundwork.models.common.attention import MultiheadAttention
from groundwork.models.reftr.backbone import SinePosition
from groundwork.models.reftr.build import ReftrSystem, build_criterion
from groundwork.models.reftr.config import (
    ReftrBackboneConfig,
    ReftrInitConfig,
    ReftrModelConfig,
    ReftrTextConfig,
)
from groundwork.models.reftr.criterion import INSIDE, attention_loss, cells_of_boxes
from groundwork.models.reftr.postprocess import outputs_to_groundings
from tests.helpers.tiny_reftr import (
    CLS,
    MASKS,
    MODEL,
    SEP,
    TEXT,
    VOCABULARY,
    tiny_batch,
    tiny_phrases,
    tiny_reftr,
)


class Tokenizer:
    """As much of a tokeniser as a model asks for."""

    def __init__(self, words: int = VOCABULARY, pad: int = 0):
        self.words, self.pad_token_id = words, pad

    def __len__(self) -> int:
        return self.words


def boxes_of(model, batch) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(batch)["pred_boxes"]


def assert_same(first: torch.Tensor, second: torch.Tensor) -> None:
    assert torch.allclose(first, second, atol=1e-5)


def assert_moves(first: torch.Tensor, second: torch.Tensor) -> None:
    assert (first - second).abs().max() > 1e-4


def with_phrases(batch: dict, order: list[int], row: int = 0) -> dict:
    """The phrases of one image in another order."""
    changed = dict(batch)
    for key in ("phrase_text_ids", "phrase_text_mask", "phrase_start", "phrase_stop"):
        changed[key] = batch[key].clone()
        changed[key][row] = batch[key][row, order]
    return changed


def test_the_first_boxes_are_the_middle_half():
    torch.manual_seed(0)
    model = ReftrSystem().build(MODEL, Tokenizer()).model
    assert_same(boxes_of(model, tiny_batch()), torch.full((2, 1, 4), 0.5))


def test_image_words_and_phrases_all_matter():
    model, batch = tiny_reftr(), tiny_phrases()
    boxes = boxes_of(model, batch)
    assert_moves(boxes, boxes_of(model, batch | {"image": batch["image"].flip(2)}))
    assert_moves(boxes, boxes_of(model, batch | {"text_ids": batch["text_ids"].roll(1, 1)}))
    shifted = batch | {"phrase_start": batch["phrase_start"] - 1}
    assert_moves(boxes[:, 0], boxes_of(model, shifted)[:, 0])
    assert_moves(boxes[0, 0], boxes[0, 1])


def test_what_padded_cells_hold_does_not_reach_a_box():
    model, batch = tiny_reftr(), tiny_batch(((96, 64), (96, 160)))
    boxes = boxes_of(model, batch)

    def disturb(_module, _inputs, projected):
        projected = projected.clone()
        projected[0, :, :, 2:] += 5  # columns of cells right of the 64 pixels
        return projected

    model.input_proj[0].register_forward_hook(disturb)
    assert torch.equal(boxes, boxes_of(model, batch))


def test_padding_of_sentence_and_phrases_changes_no_box():
    model, batch = tiny_reftr(), tiny_phrases()
    longer = dict(batch)
    for key in ("text_ids", "text_mask", "phrase_text_ids", "phrase_text_mask"):
        longer[key] = nn.functional.pad(batch[key], (0, 5))
    assert_same(boxes_of(model, batch), boxes_of(model, longer))


def test_boxes_follow_the_order_of_the_phrases():
    model, batch = tiny_reftr(), tiny_phrases()
    order = [2, 0, 1, 3]
    turned = boxes_of(model, with_phrases(batch, order))
    assert_same(boxes_of(model, batch)[0, order[:3]], turned[0, :3])


def test_unused_slots_change_nothing_and_have_no_gradient():
    model, few = tiny_reftr(), tiny_phrases(slots=3)
    many = tiny_phrases(slots=7)
    assert_same(boxes_of(model, few), boxes_of(model, many)[:, :3])
    criterion, losses = build_criterion(MODEL), []
    for batch in (few, many):
        model.zero_grad()
        outputs = model(batch)
        outputs["pred_boxes"].retain_grad()
        criterion(outputs, batch)["loss_giou"].backward()
        unused = ~batch["phrase_valid"]
        assert not outputs["pred_boxes"].grad[unused].any()
        losses.append(model.map_phrase[0].weight.grad.clone())
    assert torch.allclose(*losses, atol=1e-6)


def test_an_image_without_phrases_is_legal():
    model, batch = tiny_reftr(), tiny_phrases((2, 0))
    outputs = model(batch)
    assert outputs["pred_boxes"].isfinite().all()
    total = sum(build_criterion(MODEL)(outputs, batch).values())
    total.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert len(outputs_to_groundings(outputs, batch)) == 2


@pytest.mark.parametrize("several", [False, True])
def test_an_empty_text_takes_its_context_from_cls_and_gives_a_box(several):
    batch = tiny_phrases() if several else tiny_batch()
    if several:  # an empty span
        batch["phrase_stop"] = batch["phrase_start"].clone()
    else:
        batch["text_ids"] = torch.tensor([[CLS, SEP], [CLS, SEP]])
        batch["text_mask"] = torch.ones(2, 2, dtype=torch.long)
    model, seen = tiny_reftr(), []
    model.query_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2]))
    outputs = model(batch)
    outside = seen[0]
    assert not outside[..., 0].any() and outside[..., 1:].all()
    sum(build_criterion(MODEL)(outputs, batch).values()).backward()
    assert outputs["pred_boxes"].isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("batch", [tiny_batch(), tiny_phrases()], ids=["one", "several"])
def test_fused_attention_computes_what_weights_would(batch, monkeypatch):
    model = tiny_reftr()
    fused, forward, asked = boxes_of(model, batch), MultiheadAttention.forward, []

    def with_weights(*inputs, **options):
        asked.append(options.get("need_weights", False))
        return forward(*inputs, **options | {"need_weights": True})

    monkeypatch.setattr(MultiheadAttention, "forward", with_weights)
    assert_same(fused, boxes_of(model, batch))
    assert len(asked) == 1 + 2 * 3 and not any(asked)


@pytest.mark.parametrize("config", [MODEL, MASKS], ids=["boxes", "masks"])
@pytest.mark.parametrize("train_from", ["stem", "layer1", "layer2", "nothing"])
def test_gradients_are_where_they_should_be(config, train_from):
    config = replace(config, backbone=replace(config.backbone, train_from=train_from))
    model, batch = tiny_reftr(config).train(), tiny_batch()
    losses, criterion = build_criterion(config)(model(batch), batch), build_criterion(config)
    assert losses.keys() == criterion.weights.keys()
    sum(losses.values()).backward()
    parts = ("conv1", "layer1", "layer2", "layer3", "layer4")
    first = {"stem": 0, "layer1": 1, "layer2": 2, "nothing": 5}[train_from]
    for name, parameter in model.named_parameters():
        frozen = "img_backbone" in name and name.split(".")[3] in parts[:first]
        assert (parameter.grad is None) == frozen, name


def test_frozen_norms_keep_their_statistics_and_trained_ones_learn():
    for norm in ("frozen", "batch", "group"):
        backbone = replace(MODEL.backbone, norm=norm, train_from="stem")
        model = tiny_reftr(replace(MODEL, backbone=backbone)).train()
        before = {k: v.clone() for k, v in model.img_backbone.named_buffers()}
        outputs = model(tiny_batch())
        outputs["pred_boxes"].sum().backward()
        moved = [k for k, v in model.img_backbone.named_buffers() if not torch.equal(v, before[k])]
        assert bool(moved) == (norm == "batch")
        has_gain = any("bn1.weight" in name for name, _ in model.named_parameters())
        assert has_gain == (norm != "frozen")


@pytest.mark.parametrize(
    ("name", "stride", "cells"),
    [("resnet10", 32, (3, 3)), ("resnet18", 16, (6, 6)), ("resnet34", 8, (12, 12)),
     ("resnet50", 16, (6, 6))],
)  # fmt: skip
def test_other_networks_strides_and_heads_work(name, stride, cells):
    width = 64 if name == "resnet50" else 16
    backbone = ReftrBackboneConfig(name=name, width=width, output_stride=stride)
    config = replace(MASKS, backbone=backbone, heads=8, width=64)
    outputs = tiny_reftr(config).eval()(tiny_batch())
    assert outputs["mask_attention"].shape == (2, 8, *cells)
    assert outputs["pred_masks"].shape == (2, 24, 24)
    assert torch.allclose(outputs["mask_attention"].sum(dim=(1, 2, 3)), torch.ones(2))


def test_roberta_is_built_with_its_own_padding():
    text = replace(TEXT, kind="roberta", pad_id=1, type_vocab_size=1, positions=34)
    batch = tiny_batch()
    batch["text_ids"] = torch.where(batch["text_mask"] == 1, batch["text_ids"], 1)
    model = tiny_reftr(replace(MODEL, text=text))
    longer = batch | {
        "text_ids": nn.functional.pad(batch["text_ids"], (0, 3), value=1),
        "text_mask": nn.functional.pad(batch["text_mask"], (0, 3)),
    }
    assert_same(boxes_of(model, batch), boxes_of(model, longer))


def test_lower_layers_are_supervised_unless_the_model_has_masks():
    batch, wide = tiny_batch(), replace(MODEL, aux_loss=False)
    names = {"loss_bbox", "loss_giou"}
    lower = {f"{name}_{layer}" for name in names for layer in (0, 1)}
    for config, expected in (
        (MODEL, names | lower),
        (wide, names),
        (MASKS, names | {"loss_mask", "loss_dice"}),
        (replace(MASKS, weights={"cem": 2.0}), names | {"loss_mask", "loss_dice", "loss_cem"}),
    ):
        losses = build_criterion(config)(tiny_reftr(config)(batch), batch)
        assert losses.keys() == expected == build_criterion(config).weights.keys()


def test_box_losses_are_sums_over_phrases_per_image_or_per_phrase():
    batch = tiny_phrases((3, 1))
    outputs = {"phrase_mask": batch["phrase_valid"], "pred_boxes": torch.full((2, 4, 4), 0.5)}
    truth = torch.cat(batch["target_boxes"])
    total = (truth - 0.5).abs().sum()
    for per, count in (("image", 2), ("phrase", 4)):
        criterion = build_criterion(replace(MODEL, box_loss_per=per))
        assert criterion(outputs, batch)["loss_bbox"] == pytest.approx((total / count).item())


def test_cells_belong_to_a_box_of_the_image_without_its_padding():
    padding = torch.zeros(2, 4, 4, dtype=torch.bool)
    padding[1, :, 2:] = True  # the second image has half the width
    right_half = torch.tensor([[0.75, 0.5, 0.5, 1.0]]).expand(2, 4)
    inside = cells_of_boxes(right_half, padding)
    assert inside[0].nonzero()[:, 1].unique().tolist() == [2, 3]
    assert inside[1].nonzero()[:, 1].unique().tolist() == [1]
    speck = torch.tensor([[0.3, 0.9, 0.01, 0.01]])
    assert cells_of_boxes(speck, padding[:1]).nonzero().tolist() == [[0, 3, 1]]


def test_attention_is_learnt_from_the_boxes_of_real_phrases():
    outputs = {
        "attention": torch.full((3, 1, 2, 2, 2), 0.1),
        "cell_padding": torch.zeros(1, 2, 2, dtype=torch.bool),
        "phrase_mask": torch.tensor([[True, False]]),
    }
    outputs["attention"][:, 0, 1] = float("nan")  # of an unused slot
    left_half = torch.tensor([[0.25, 0.5, 0.5, 1.0]])
    (loss,) = attention_loss(outputs, left_half)
    assert loss.item() == pytest.approx(-np.log(0.5 + INSIDE))


@pytest.mark.parametrize("config", [MODEL, MASKS], ids=["boxes", "masks"])
def test_attention_is_given_in_training_only_where_it_is_learnt(config):
    plain = tiny_reftr(config).train()
    assert "attention" not in plain(tiny_batch())
    config = replace(config, weights=config.weights | {"attention": 1.0})
    model, batch = tiny_reftr(config).train(), tiny_batch()
    losses = build_criterion(config)(model(batch), batch)
    losses["loss_attention"].backward()
    assert model.map_phrase[0].weight.grad.abs().max() > 0
    with torch.no_grad():
        assert "attention" not in model.eval()(batch)


def test_a_tiny_model_learns_boxes_and_masks_of_two_images():
    backbone = replace(MODEL.backbone, norm="group", train_from="stem")
    config = replace(MASKS, backbone=backbone)
    model, batch, criterion = tiny_reftr(config).train(), tiny_batch(), build_criterion(config)
    batch["target_boxes"][1] = torch.tensor([[0.7, 0.6, 0.4, 0.3]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    totals = []
    for _ in range(40):
        losses = criterion(model(batch), batch)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.5 * totals[0]
    found = boxes_of(model, batch)[:, 0]
    both = zip(found, batch["target_boxes"], strict=True)
    corners = [
        [torch.cat([b[:2] - b[2:] / 2, b[:2] + b[2:] / 2]) for b in (a, t[0])] for a, t in both
    ]
    assert all(iou(a.numpy(), t.numpy())[0, 0] > 0.5 for a, t in corners)


def test_groundings_are_in_pixels_of_the_original_image():
    batch = tiny_batch(((96, 64), (70, 96)))
    logits = torch.full((2, 24, 24), -4.0)
    logits[:, :10, :8] = 4.0
    outputs = {
        "pred_boxes": torch.tensor([[[0.5, 0.5, 1.0, 0.5]], [[0.25, 0.5, 0.75, 1.0]]]),
        "phrase_mask": torch.ones(2, 1, dtype=torch.bool),
        "pred_masks": logits,
    }
    first, second = outputs_to_groundings(outputs, batch)
    assert np.allclose(first.boxes, [[0, 48, 128, 144]]) and first.point == (64, 96)
    assert np.allclose(second.boxes, [[-24, 0, 120, 140]]), "boxes are not clipped"
    assert first.mask.shape == (192, 128) and second.mask.shape == (140, 192)
    assert first.mask[:70, :50].all() and not first.mask[90:].any()
    assert first.derived == {"point"} and first.scores == 1 and first.phrase == "thing 0"


@pytest.mark.parametrize("size", [(110, 87), (64, 48), (33, 25)])
def test_mirrored_logits_are_mirrored_masks(size):
    """Nothing moves to a side on the way from the network's size to that of the image."""
    logits = torch.randn(1, 16, 12, generator=torch.Generator().manual_seed(0))
    batch = {
        "image_mask": torch.zeros(1, 64, 48, dtype=torch.bool),
        "size": [size],
        "resized": [(64, 48)],
        "phrase": ["x"],
    }

    def mask_of(logits):
        boxes, valid = torch.full((1, 1, 4), 0.5), torch.ones(1, 1, dtype=torch.bool)
        outputs = {"pred_boxes": boxes, "phrase_mask": valid, "pred_masks": logits}
        return outputs_to_groundings(outputs, batch)[0].mask

    assert (mask_of(logits.flip(1, 2)) != mask_of(logits)[::-1, ::-1]).mean() < 1e-3


def test_the_position_code_counts_valid_cells_only():
    padding = torch.zeros(1, 4, 6, dtype=torch.bool)
    code = SinePosition(16)(padding)
    padded = nn.functional.pad(padding, (0, 3, 0, 2), value=True)
    assert torch.equal(SinePosition(16)(padded)[:, :, :4, :6], code)
    assert torch.equal(code[0, :8, :, 0], code[0, :8, :, 5]), "the first half is the row's"


def test_a_lower_temperature_leaves_no_wave_of_the_position_code_flat():
    padding = torch.zeros(1, 8, 8, dtype=torch.bool)
    spread = {t: SinePosition(64, t)(padding)[0, 32:, 0].std(dim=1) for t in (20.0, 10000.0)}
    assert (spread[20.0] > 0.02).all() and (spread[10000.0] < 0.02).sum() > 8


def test_cells_hold_their_place_only_if_positions_are_content():
    cells, position = torch.rand(1, 32, 2, 3), torch.rand(1, 32, 2, 3)
    words, visible = torch.rand(1, 4, 32), torch.zeros(1, 2, 3, dtype=torch.bool)
    for factor, held in ((0.0, cells), (2.0, cells + 2 * position)):
        model = tiny_reftr(replace(MODEL, content_positions=factor)).vl_transformer
        model.encoder.layers = nn.ModuleList()
        memory = model.encode(words, visible[:, 0, :1].expand(1, 4), cells, position, visible)
        assert_same(memory.states[:, 4:], held.flatten(2).transpose(1, 2))


def test_what_cannot_work_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="queries_per_phrase is 2; RefTR works with 1"):
        ReftrModelConfig(queries_per_phrase=2)
    with pytest.raises(ValueError, match="feature_levels is 4"):
        ReftrModelConfig(feature_levels=4)
    with pytest.raises(ValueError, match="weights.cem is 1.0, .* without masks: true"):
        ReftrModelConfig(weights={"cem": 1.0})
    with pytest.raises(ValueError, match="multiple of 32"):
        ReftrModelConfig(width=100, heads=4)
    with pytest.raises(ValueError, match="not divisible by 5 projection_groups"):
        ReftrModelConfig(projection_groups=5)
    with pytest.raises(ValueError, match="choose a smaller network"):
        ReftrBackboneConfig(width=32)
    with pytest.raises(ValueError, match="init.detr would be lost"):
        ReftrInitConfig(reftr="a.pth", detr="b.pth")
    with pytest.raises(ValueError, match="not divisible by 5 heads"):
        ReftrTextConfig(heads=5)
    with pytest.raises(ValueError, match="takes one phrase per image"):
        tiny_reftr(MASKS)(tiny_phrases())


def test_a_sentence_beyond_the_table_of_positions_is_refused():
    with pytest.raises(ValueError, match="9 tokens, but the model has positions for 8"):
        tiny_reftr(replace(MODEL, max_text_tokens=8))(tiny_batch())


def test_a_phrase_with_two_boxes_is_refused_by_name():
    batch, model = tiny_batch(), tiny_reftr()
    batch["target_boxes"][1] = torch.rand(2, 4)
    with pytest.raises(ValueError, match=r"1\.jpg: 1 phrases but 2 boxes"):
        build_criterion(MODEL)(model(batch), batch)


def test_a_tokeniser_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="tokeniser has 61 words"):
        ReftrSystem().build(MODEL, Tokenizer(61))
    with pytest.raises(ValueError, match="pads with 1"):
        ReftrSystem().build(MODEL, Tokenizer(pad=1))

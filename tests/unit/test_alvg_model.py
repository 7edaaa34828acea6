"""ALVG's parts by themselves: worked numbers, hard cases, sizes."""

import dataclasses

import numpy as np
import pytest
import torch

from groundwork.metrics import several
from groundwork.models.alvg.build import (
    AlvgSystem,
    build_criterion,
    build_encoder,
    build_model,
    build_postprocess,
)
from groundwork.models.alvg.config import AlvgModelConfig, Beit3Config
from groundwork.models.alvg.regions import coverage, outside_ratio, overlap, rasterise

TINY = Beit3Config(
    image_size=64, patch_size=16, layers=2, width=32, heads=4, ffn=64, vocab_size=50, drop_path=0.1
)


def config(**values) -> AlvgModelConfig:
    sizes = {"encoder": TINY, "width": 32, "heads": 4, "ffn": 64, "query_ffn": 48}
    return AlvgModelConfig(**sizes | {"mask_channels": 16, "masks": True} | values)


def batch(*counts: int) -> dict:
    """Samples of so many targets."""
    stream = torch.Generator().manual_seed(5)
    boxes = [torch.tensor([[0.4, 0.5, 0.3, 0.4], [0.7, 0.6, 0.2, 0.2]])[:count] for count in counts]
    masks = [(rasterise(one, 64, 64) > 0) for one in boxes]
    return {
        "image": torch.randn(len(counts), 3, 64, 64, generator=stream),
        "text_ids": torch.tensor([[0, 7, 9, 2, 1]]).expand(len(counts), -1),
        "text_mask": torch.tensor([[1, 1, 1, 1, 0]]).expand(len(counts), -1),
        "target_boxes": boxes,
        "target_masks": masks,
        "target_mask": torch.stack([one.any(dim=0) for one in masks]),
        "size": [(50, 80)] * len(counts),
        "phrase": ["a thing"] * len(counts),
    }


def test_the_score_is_rewarded_on_the_target_and_punished_elsewhere():
    cell = torch.zeros(1, 2, 2)
    cell[0, 0, 0] = 1
    reward = overlap(cell)
    torch.testing.assert_close(reward.flatten(), torch.tensor([1.0, -1 / 3, -1 / 3, -1 / 3]))
    assert (reward * torch.ones(2, 2)).sum().abs() < 1e-6
    assert -(reward * torch.tensor([[2.0, 0], [0, 0]])).sum() == -2


def test_attention_beside_the_target_costs_its_ratio():
    attention, target = torch.tensor([[0.7, 0.1], [0.1, 0.1]]), torch.tensor([[1.0, 0], [0, 0]])
    assert outside_ratio(attention, target).item() == pytest.approx(0.42796, abs=1e-5)


def test_a_target_without_area_teaches_nothing_and_breaks_nothing():
    empty = torch.zeros(1, 4, 4)
    assert overlap(empty).isfinite().all()
    assert outside_ratio(torch.full((4, 4), 1 / 16), empty[0]) == 0


def test_several_targets_share_the_reward():
    shares = coverage(torch.eye(4)[:2].reshape(2, 2, 2), (2, 2))
    assert overlap(shares).flatten().tolist() == [0.5, 0.5, -0.5, -0.5]


@pytest.mark.parametrize("compat", ["default", "released"])
@pytest.mark.parametrize("counts", [(2, 0, 1), (0, 0)])
def test_a_training_step_takes_any_number_of_targets(compat, counts):
    torch.manual_seed(1)
    settings = config(queries=4, several_targets=True, compat=compat)
    model, criterion = build_model(settings).train(), build_criterion(settings)
    losses = criterion(model(batch(*counts)), batch(*counts))
    assert set(losses) == set(criterion.weights)
    sum(criterion.weights[name] * loss for name, loss in losses.items()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_every_parameter_is_trained_by_masks_and_boxes():
    settings = config()
    model, criterion = build_model(settings).train(), build_criterion(settings)
    for layer in model.encoder.encoder.layers:
        layer.drop_path.drop_prob = 0.0
    losses = criterion(model(batch(1, 1)), batch(1, 1))
    sum(criterion.weights[name] * loss for name, loss in losses.items()).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_padding_changes_nothing_by_default_and_something_as_released():
    longer = {
        "text_ids": torch.nn.functional.pad(batch(1)["text_ids"], (0, 6), value=1),
        "text_mask": torch.nn.functional.pad(batch(1)["text_mask"], (0, 6)),
    }
    for compat in ("default", "released"):
        torch.manual_seed(1)
        model = build_model(config(compat=compat)).eval()
        with torch.no_grad():
            short, long = model(batch(1)), model(batch(1) | longer)
        # As released every text is padded to one length, so that it is no matter here either.
        torch.testing.assert_close(short["pred_boxes"], long["pred_boxes"])


def test_the_score_lies_between_0_and_2_and_attention_is_a_distribution():
    with torch.no_grad():
        outputs = build_model(config()).eval()(batch(1, 1))
    assert 0 < outputs["score"].min() and outputs["score"].max() < 2
    torch.testing.assert_close(outputs["attention"].sum(dim=(-2, -1)), torch.ones(3, 2, 1))
    assert outputs["pred_masks"].shape == (2, 32, 32)


def test_without_enhancement_there_is_no_score_and_attention_is_the_heat_map():
    settings = config(image_enhancement=False)
    with torch.no_grad():
        outputs = build_model(settings).eval()(batch(1))
    assert "score" not in outputs
    (grounding,) = build_postprocess(settings)(outputs, batch(1))
    assert grounding.heatmap.shape == (4, 4) and grounding.mask.shape == (50, 80)
    assert "loss_score_attention" not in build_criterion(settings)(outputs, batch(1))


def test_sure_boxes_without_area_are_not_found():
    settings = config(queries=3, several_targets=True)
    with torch.no_grad():
        outputs = build_model(settings).eval()(batch(1))
    outputs["pred_logits"] = torch.tensor([[[9.0, 0], [5, 0], [0, 9]]])
    flat, real = [0.5, 0.5, 0.0, 0.4], [0.5, 0.5, 0.2, 0.4]
    postprocess = build_postprocess(settings)
    for boxes, number in (([flat, real, real], 1), ([flat, flat, real], 0), ([flat] * 3, 0)):
        outputs["pred_boxes"] = torch.tensor([boxes])
        (grounding,) = postprocess(outputs, batch(1))
        assert len(grounding.boxes) == number


def test_box_only_batches_have_attention_losses_and_no_mask_losses():
    settings = config()
    boxes_only = {k: v for k, v in batch(1, 1).items() if not k.startswith("target_mask")}
    losses = build_criterion(settings)(build_model(settings)(boxes_only), boxes_only)
    assert "loss_mask" not in losses and losses["loss_score_attention"].isfinite()


def test_an_image_of_another_size_and_a_foreign_tokeniser_are_refused():
    with pytest.raises(ValueError, match=r"data\.resize"):
        build_model(config())(batch(1) | {"image": torch.zeros(1, 3, 64, 32)})

    class Bert:
        pad_token_id = 0

        def __len__(self):
            return 10

    with pytest.raises(ValueError, match=r"beit3\.spm"):
        AlvgSystem().build(config(), Bert())


def test_predictions_that_are_not_finite_are_named():
    settings = config()
    outputs = build_model(settings)(batch(1))
    outputs["layer_boxes"] = outputs["layer_boxes"] * float("nan")
    with pytest.raises(FloatingPointError, match="learning rate"):
        build_criterion(settings)(outputs, batch(1))


def test_a_convolutional_stem_gives_the_same_grid():
    settings = config(encoder=dataclasses.replace(TINY, stem="convolutions", stem_channels=8))
    with torch.no_grad():
        assert build_model(settings).eval()(batch(1))["score"].shape == (1, 4, 4)


def test_released_switches_all_quirks_on():
    assert all(dataclasses.asdict(config(compat="released").quirks).values())
    assert not any(dataclasses.asdict(config().quirks).values())


def test_the_worked_example_of_f1():
    truths = [[0, 0, 10, 10], [20, 20, 30, 30]]
    good = [[0, 0, 10, 9], [20, 20, 30, 27]]
    third = [*good, [50, 50, 60, 60]]
    assert several.f1_score(third, truths) == pytest.approx(4 / 5)
    assert not several.all_found(third, truths) and several.all_found(good, truths)
    assert several.all_found(np.zeros((0, 4)), []) and not several.all_found(good, [])


def test_the_encoder_has_the_published_number_of_parameters():
    published = {224: (16, 220_987_392), 640: (32, 222_913_536)}
    for side, (patch, count) in published.items():
        with torch.device("meta"):
            encoder = build_encoder(Beit3Config(image_size=side, patch_size=patch))
        # The public files also hold a mask token, which nothing uses.
        assert sum(p.numel() for p in encoder.parameters()) + 768 == count

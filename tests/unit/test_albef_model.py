"""ALBEF's queues, twin, objectives and heat maps at the edges of what a batch can hold."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from groundwork import utils
from groundwork.models.albef.explainer import Explainer, phrase_rounds, place_in_image
from groundwork.models.albef.model import MOMENTUM_PAIRS
from groundwork.models.albef.objectives import AttentionMaskConsistency, SelfConsistency
from groundwork.models.albef.vision import vision_transformer
from groundwork.models.common.attention import AttentionRecorder
from groundwork.models.common.heatmap import explanation, min_max
from groundwork.models.common.timm_backbone import TimmConfig
from tests.helpers.tiny_albef import (
    ALL,
    MODEL,
    TEXT,
    phrase_alone,
    texts,
    tiny_batch,
    tiny_criterion,
    tiny_model,
)
from tests.helpers.tiny_runs import start_group


def train_once(model, batch: dict, *objectives: str) -> dict[str, torch.Tensor]:
    """Named losses after one forward and backward of their weighted total."""
    criterion = tiny_criterion(*objectives)
    losses = criterion(model(batch), batch)
    sum(criterion.weights[k] * v for k, v in losses.items() if k in criterion.weights).backward()
    return losses


def finite_gradients(model) -> bool:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return bool(gradients) and all(g.isfinite().all() for g in gradients)


# --- queues and twin ------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 25), min_size=1, max_size=6))
def test_queues_hold_the_newest_features_whatever_the_batch_sizes(sizes):
    model = tiny_model()
    size = MODEL.queue_size
    slots: list[torch.Tensor] = list(model.image_queue.T.clone())
    written = 0
    for number, count in enumerate(sizes):
        images = torch.randn(
            count, MODEL.embed_dim, generator=torch.Generator().manual_seed(number)
        )
        model.enqueue(images, -images)
        for row in images:
            slots[written % size] = row
            written += 1
    assert model.queue_ptr_img.item() == model.queue_ptr_txt.item() == written % size
    assert torch.equal(model.image_queue, torch.stack(slots, dim=1))
    filled = min(written, size)
    fresh = (torch.arange(written - filled, written)) % size
    assert torch.equal(model.text_queue[:, fresh], -model.image_queue[:, fresh])


def enqueue_half(folder: Path, features: torch.Tensor) -> None:
    model = tiny_model()
    for part in features.split(8):
        mine = part.chunk(2)[utils.rank()]
        model.enqueue(mine, -mine)
    torch.save(
        [model.image_queue, model.text_queue, model.queue_ptr_img], folder / f"{utils.rank()}"
    )


def test_queues_are_the_same_with_and_without_a_process_group(tmp_path):
    features = torch.randn(32, MODEL.embed_dim)
    start_group(enqueue_half, tmp_path, features)
    model = tiny_model()
    for part in features.split(8):
        model.enqueue(part, -part)
    for rank in "01":
        image_queue, text_queue, pointer = torch.load(tmp_path / rank)
        assert torch.equal(image_queue, model.image_queue)
        assert torch.equal(text_queue, model.text_queue)
        assert torch.equal(pointer, model.queue_ptr_img)


def test_the_twin_starts_as_a_copy_and_never_gets_a_gradient():
    model = tiny_model()
    names = dict(model.named_parameters())
    twins = {
        name: name.replace(f"{pair}.", f"{pair}_m.", 1)
        for pair in MOMENTUM_PAIRS
        for name in names
        if name.startswith(f"{pair}.")
    }
    assert twins and all(torch.equal(names[name], names[twin]) for name, twin in twins.items())
    train_once(model, tiny_batch([True] * 4), *ALL)
    assert all(
        names[twin].grad is None and not names[twin].requires_grad for twin in twins.values()
    )
    reached = [name for name in twins if names[name].grad is not None]
    assert len(reached) > 0.9 * len(twins)


def test_the_twin_follows_by_the_running_average():
    model = tiny_model()
    before = model.vision_proj_m.weight.clone()
    with torch.no_grad():
        model.vision_proj.weight.add_(1.0)
    model.update_twin()
    torch.testing.assert_close(model.vision_proj_m.weight, before + 1 - MODEL.momentum)


# --- batches at the edge --------------------------------------------------------------------------


def test_a_batch_of_one_warns_that_it_cannot_match_and_trains():
    model = tiny_model()
    with pytest.warns(UserWarning, match="no negative.*batch size of 2"):
        losses = train_once(model, tiny_batch([False]), "itc_itm_mlm", "amc")
    assert losses["loss_itm"].item() == 0
    assert finite_gradients(model)


@pytest.mark.parametrize("objectives", [ALL, ("selfeq",), ("selfeq", "amc")], ids="+".join)
def test_a_batch_without_any_paraphrase_is_legal(objectives):
    model = tiny_model()
    losses = train_once(model, tiny_batch([False] * 3), *objectives)
    assert losses["loss_cst_syn"].item() == losses["loss_sim_syn"].item() == 0
    assert losses["loss_syn_itm"].item() == 0
    assert finite_gradients(model)
    assert model.queue_ptr_img.item() == 3, "the phrases' features still enter the queue"


@pytest.mark.parametrize("objectives", [ALL, ("amc",)], ids="+".join)
def test_a_batch_without_any_region_is_legal(objectives):
    model = tiny_model()
    losses = train_once(model, tiny_batch([True] * 3, regions=[False] * 3), *objectives)
    assert losses["loss_amc_mean"].item() == losses["loss_amc_max"].item() == 0
    assert finite_gradients(model)


def test_one_paraphrase_among_many_samples_is_legal():
    model = tiny_model()
    with pytest.warns(UserWarning, match="no negative"):
        losses = train_once(model, tiny_batch([False, True, False, False]), *ALL)
    assert losses["loss_sim_syn"].item() > 0
    assert finite_gradients(model)


# --- what is computed -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objectives", "paraphrased", "expected"),
    [
        # Runs of the image encoder and its twin, of the text encoder and its twin (with the texts
        # that hide words), and of attentions without a fused kernel: two layers of two attentions
        # for every text that is explained.
        (("amc",), True, (1, 0, 1, 0, 4)),
        (("itc_itm_mlm",), True, (1, 1, 2, 2, 0)),
        (("itc_itm_mlm", "amc"), True, (1, 1, 2, 2, 4)),
        (("selfeq",), True, (1, 1, 3, 3, 8)),
        (("selfeq",), False, (1, 1, 1, 1, 0)),
        (ALL, True, (1, 1, 4, 4, 8)),
    ],
)
def test_passes_are_computed_once_and_only_if_an_objective_needs_them(
    objectives, paraphrased, expected
):
    model = tiny_model()
    encoders = [
        model.visual_encoder,
        model.visual_encoder_m,
        model.text_encoder.bert.embeddings,
        model.text_encoder_m.bert.embeddings,
    ]
    dropouts = [m for n, m in model.named_modules() if "text" in n and n.endswith("attn_drop")]
    runs = Counter()
    for name, modules in enumerate([*([encoder] for encoder in encoders), dropouts]):
        for module in modules:
            module.register_forward_hook(lambda *_, name=name: runs.update([name]))
    train_once(model, tiny_batch([paraphrased] * 3), *objectives)
    assert tuple(runs[name] for name in range(5)) == expected


def test_a_twin_without_a_say_is_not_asked_for_soft_labels():
    model, criterion, batch = tiny_model(), tiny_criterion("itc_itm_mlm"), tiny_batch([False] * 3)
    criterion.start_step(epoch=0, step=0, steps_per_epoch=5)
    needs = criterion.objectives["itc_itm_mlm"].needs(batch)["phrase"]
    words = model(batch)({"phrase": needs}).phrase.words
    assert needs.distil_over is words.teacher is words.student is None
    criterion.start_step(epoch=0, step=1, steps_per_epoch=5)
    needs = criterion.objectives["itc_itm_mlm"].needs(batch)["phrase"]
    assert model(batch)({"phrase": needs}).phrase.words.teacher.shape[1] == TEXT.vocab_size


# --- objectives on maps ---------------------------------------------------------------------------


def consistency(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return SelfConsistency(image_text=torch.nn.Identity(), threshold=0.8).consistency(first, second)


def test_an_empty_region_of_interest_costs_half_the_threshold_per_map():
    first, second = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = consistency(first, second)
    assert loss.item() == pytest.approx(0.4 + 0.4)


def test_an_empty_region_of_interest_has_a_finite_gradient():
    maps = torch.zeros(2, 3, 4, 4, requires_grad=True)
    consistency(*maps).backward()
    assert maps.grad.isfinite().all()


def test_constant_maps_have_finite_gradients_through_their_scaling():
    maps = torch.zeros(2, 3, 4, 4, requires_grad=True)
    consistency(*(min_max(one) for one in maps)).backward()
    assert maps.grad.isfinite().all()


@pytest.mark.parametrize(
    ("first", "second", "cost"),
    [(0.5, 0.4, 0.0), (0.6, 0.25, 0.15), (0.3, 0.5, 0.1), (0.3, 0.3, 0.8)],
)
def test_even_maps_cost_what_each_lacks_to_half_the_threshold(first, second, cost):
    maps = torch.full((2, 4, 4), first), torch.full((2, 4, 4), second)
    assert consistency(*maps).item() == pytest.approx(cost, abs=1e-6)


def test_uneven_maps_cost_their_deviation_over_all_cells():
    half = torch.zeros(1, 4, 4)
    half[:, :, :2] = 1.0
    assert consistency(half, half).item() == pytest.approx(2 * half.std().item())


@pytest.mark.parametrize("mean_over", ["batch", "sample"])
def test_a_region_that_fills_the_image_has_no_outside_to_exceed(mean_over):
    class Passes:
        class phrase:
            heatmaps = torch.rand(2, 4, 4).requires_grad_()

    batch = {"region_index": torch.arange(2), "region_mask": torch.ones(2, 24, 24)}
    losses = AttentionMaskConsistency(mean_over=mean_over)(Passes, batch)
    sum(losses.values()).backward()
    maps = Passes.phrase.heatmaps
    assert maps.grad.isfinite().all()
    large = F.interpolate(maps[:, None], size=(24, 24), mode="bilinear")[:, 0].detach()
    means = large.mean() if mean_over == "batch" else large.mean((1, 2))
    assert losses["loss_amc_mean"].item() == pytest.approx((0.1 - means).relu().mean().item())
    expected = (0.5 - large.amax((1, 2))).relu().mean().item()
    assert losses["loss_amc_max"].item() == pytest.approx(expected)


# --- explanations ---------------------------------------------------------------------------------


def test_an_explanation_takes_grid_and_heads_from_its_tensors():
    draw = torch.Generator().manual_seed(0)
    attention = torch.rand(2, 3, 5, 1 + 6, generator=draw)
    gradient = torch.randn(2, 3, 5, 1 + 6, generator=draw)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    maps = explanation(attention, gradient, mask, (2, 3))
    expected = torch.zeros(2, 2, 3)
    for n in range(2):
        for cell in range(6):
            values = [
                attention[n, h, t, 1 + cell] * max(gradient[n, h, t, 1 + cell], torch.tensor(0.0))
                for h in range(3)
                for t in range(5)
                if mask[n, t]
            ]
            expected[n, cell // 3, cell % 3] = sum(values) / (3 * 5)
    torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize("mode", ["itm", "itc"])
@pytest.mark.parametrize(("side", "grid"), [(32, (4, 4)), (48, (6, 6))])
def test_heat_maps_have_the_grid_of_the_image_size(mode, side, grid):
    model = tiny_model(replace(MODEL, image_size=side), momentum=False)
    outputs = Explainer(model, mode=mode, layer=2 if mode == "itm" else 1).eval()(
        pairs([1, 2], side)
    )
    assert outputs["heatmaps"].shape == (3, *grid)
    assert (outputs["heatmaps"] >= 0).all() and outputs["heatmaps"].amax() > 0


@pytest.mark.parametrize("mode", ["itm", "itc"])
def test_heat_maps_of_images_that_are_not_square_have_rows_and_columns(mode):
    model = tiny_model(momentum=False)
    encoder = model.visual_encoder = vision_transformer(
        image_size=(32, 48), patch_size=8, width=32, depth=2, heads=2
    )
    assert encoder.patch_embed.grid_size == (4, 6)
    batch = pairs([1, 2], 32)
    batch["image"] = torch.randn(2, 3, 32, 48)
    outputs = Explainer(model, mode=mode, layer=2 if mode == "itm" else 1).eval()(batch)
    assert outputs["heatmaps"].shape == (3, 4, 6)


@pytest.mark.parametrize("fails", [False, True])
def test_a_recorder_always_lets_go_of_the_attention(fails):
    attention = tiny_model(momentum=False).visual_encoder.blocks[0].attn
    attention.fused_attn = True
    try:
        with AttentionRecorder(attention):
            assert not attention.fused_attn
            if fails:
                raise OSError("in the middle of a forward pass")
            attention(torch.randn(1, 17, 32))
    except OSError:
        assert fails
    assert attention.fused_attn
    assert not attention.attn_drop._forward_pre_hooks


def test_a_recorder_whose_layer_did_not_run_says_so():
    attention = tiny_model(momentum=False).visual_encoder.blocks[0].attn
    with AttentionRecorder(attention) as recorder, pytest.raises(RuntimeError, match="did not run"):
        _ = recorder.probabilities


phrase_counts = st.lists(st.integers(0, 9), min_size=1, max_size=7).filter(any)


@given(phrase_counts)
def test_the_rounds_cover_every_phrase_once_and_with_its_own_image(counts):
    owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    covered = []
    for image_index, rows, real in phrase_rounds(owner, len(counts)):
        per_image = rows.reshape(len(image_index), -1)
        assert (owner[per_image] == image_index[:, None]).all()
        covered += rows[real].tolist()
    assert sorted(covered) == list(range(len(owner)))


@given(phrase_counts)
def test_places_count_the_phrases_of_each_image(counts):
    owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    assert place_in_image(owner).tolist() == [place for count in counts for place in range(count)]


def pairs(counts: list[int], side: int = 32) -> dict:
    """Images with so many phrases each."""
    draw = torch.Generator().manual_seed(len(counts))
    ids, mask = texts(sum(counts), draw)
    return {
        "image": torch.randn(len(counts), 3, side, side, generator=draw),
        "text_ids": ids,
        "text_mask": mask,
        "phrase_image": torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
    }


@pytest.mark.parametrize("mode", ["itm", "itc"])
def test_a_phrase_has_the_same_map_alone_with_others_and_among_other_images(mode):
    model = tiny_model(momentum=False)
    explainer = Explainer(model, mode=mode, layer=2 if mode == "itm" else 1).eval()
    counts = [1, 5, 0, 2]
    batch = pairs(counts)
    together = explainer(batch)
    for row, image in enumerate(batch["phrase_image"].tolist()):
        alone = explainer(phrase_alone(batch, row, image))
        torch.testing.assert_close(alone["heatmaps"][0], together["heatmaps"][row])
        torch.testing.assert_close(alone["score"][0], together["score"][row])
    rows = batch["phrase_image"] == 1
    of_image = explainer({
        "image": batch["image"][1:2],
        "text_ids": batch["text_ids"][rows],
        "text_mask": batch["text_mask"][rows],
        "phrase_image": torch.zeros(5, dtype=torch.long),
    })  # fmt: skip
    torch.testing.assert_close(of_image["heatmaps"], together["heatmaps"][rows])


def test_a_layer_without_cross_attention_cannot_be_explained():
    with pytest.raises(ValueError, match=rf"choose one of 2\.\.{TEXT.num_hidden_layers - 1}"):
        Explainer(tiny_model(momentum=False), layer=1)


def hybrid(name: str, strides: tuple[int, ...]):
    """What makes an image encoder of that backbone, with random weights."""
    return lambda: {
        "stem": "backbone",
        "backbone": TimmConfig(name=name, strides=strides, train=True).build("clip", joined=True),
    }


STEMS = {
    **{f"{stem} {patch}": (patch, lambda stem=stem: {"stem": stem})
       for stem in ("linear", "convolutions") for patch in (4, 8, 16)},
    # Padding on both sides, and at the end: such cells would lie left and right of their patches.
    "ResNet": (16, hybrid("resnet18", (16, 32))),
    "EfficientNet of TensorFlow": (16, hybrid("tf_mobilenetv3_small_minimal_100", (16, 32))),
}  # fmt: skip


@pytest.mark.parametrize(("patch", "options"), STEMS.values(), ids=STEMS)
def test_a_cell_responds_to_pixels_around_the_middle_of_its_patch(patch, options):
    grid, row, column = 12, 5, 6
    pull = torch.zeros(2)
    for seed in range(20):
        torch.manual_seed(seed)
        encoder = vision_transformer(
            image_size=grid * patch, patch_size=patch, width=32, depth=1, heads=2, **options()
        )
        image = torch.randn(2, 3, grid * patch, grid * patch, requires_grad=True)
        cell = encoder.patch_embed.eval()(image).unflatten(1, (grid, grid))[:, row, column]
        (cell * torch.randn_like(cell)).sum().backward()
        energy = image.grad.square().sum((0, 1))
        places = (torch.arange(grid * patch) + 0.5) / patch
        centre = torch.stack([energy.sum(1) @ places, energy.sum(0) @ places]) / energy.sum()
        pull += (centre - torch.tensor([row + 0.5, column + 0.5])) / 20
    assert pull.abs().max() < 0.1, pull

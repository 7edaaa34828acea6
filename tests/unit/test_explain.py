"""Explanations: maps where they are known by hand, from inside and from outside of a model."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from groundwork import metrics
from groundwork.geometry import Grounding, heatmap_to_mask, mask_to_box
from groundwork.models.albef.config import AlbefModelConfig, ExplanationConfig
from groundwork.models.albef.explainer import Explainer, Matching
from groundwork.models.albef.postprocess import heatmaps_to_groundings
from groundwork.models.common.explain import METHODS, Attended, Trace
from groundwork.models.common.explain.perturbation import (
    CELLS,
    BoxFit,
    Perturbation,
    deletion_and_insertion,
    hidden,
    perturbation_maps,
)
from groundwork.models.common.heatmap import enlarge
from groundwork.models.common.system import Parts
from tests.helpers.tiny_albef import MODEL, phrase_alone, texts, tiny_model

GRID = (2, 3)
PATCHES = 6
TOKENS = 4


def looking_at(cell: int, layers: int = 2, seed: int = 0) -> Trace:
    """Every token of two texts looks at one cell, with one head; tokens and patches at themselves.
    All gradients are positive."""
    draw = torch.Generator().manual_seed(seed)

    def attended(probabilities: torch.Tensor) -> Attended:
        return Attended(probabilities, torch.rand(probabilities.shape, generator=draw) + 0.1)

    cross = torch.zeros(2, 1, TOKENS, 1 + PATCHES)
    cross[..., 1 + cell] = 1
    own = torch.eye(TOKENS).expand(2, 1, TOKENS, TOKENS)
    image = torch.eye(1 + PATCHES).expand(2, 1, 1 + PATCHES, 1 + PATCHES)
    return Trace(
        cross=[attended(cross) for _ in range(layers)],
        text_mask=torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]),
        grid=GRID,
        text=[attended(own) for _ in range(layers + 1)],
        image=[attended(image)],
    )


def of_layers(method: str, trace: Trace) -> Trace:
    return replace(trace, cross=trace.cross[:1]) if METHODS[method].layers == "explained" else trace


@pytest.mark.parametrize("method", [name for name in METHODS if name != "legrad"])
@pytest.mark.parametrize("cell", [0, 4])
def test_attention_to_one_cell_is_a_map_at_that_cell(method, cell):
    maps = METHODS[method].heatmaps(of_layers(method, looking_at(cell)))
    assert maps.shape == (2, *GRID)
    assert (maps > 0).sum(dim=(1, 2)).tolist() == [1, 1]
    assert maps.flatten(1).argmax(dim=1).tolist() == [cell, cell]


def test_legrad_sees_where_a_score_would_rise_whatever_is_looked_at():
    trace, slope = looking_at(0), -torch.ones(2, 1, TOKENS, 1 + PATCHES)
    slope[..., 1 + 3] = torch.tensor([1.0, 2.0, 3.0, 40.0])  # the first text has no fourth token
    cross = [Attended(layer.probabilities, slope) for layer in trace.cross]
    maps = METHODS["legrad"].heatmaps(replace(trace, cross=cross))
    expected = torch.zeros(2, *GRID)
    expected[:, 1, 0] = torch.tensor([2 * 6 / 3, 2 * 46 / 4])
    torch.testing.assert_close(maps, expected)


def test_the_rollout_of_identities_leaves_everything_where_it_is():
    trace = looking_at(0, layers=1)
    eye = torch.eye(TOKENS, 1 + PATCHES).expand(2, 1, -1, -1)
    maps = METHODS["rollout"].heatmaps(replace(trace, cross=[Attended(eye)]))
    assert maps.abs().max() == 0, "the first token looks at [CLS], and nothing moves on from there"
    swapped = torch.eye(TOKENS)[[1, 0, 2, 3]].expand(2, 1, -1, -1)
    text = [Attended(torch.eye(TOKENS).expand(2, 1, -1, -1)), Attended(swapped)]
    maps = METHODS["rollout"].heatmaps(replace(trace, cross=[Attended(eye)] * 2, text=text))
    # Layer 1: a token has seen half of its cell. Layer 2: [CLS] takes a half from token 1, of
    # which the residual leaves a half.
    assert maps[0].flatten().tolist() == [0.125, 0, 0, 0, 0, 0]


def test_relevance_is_what_the_equations_give_for_one_layer():
    draw = torch.Generator().manual_seed(1)

    def drawn(rows: int, columns: int) -> Attended:
        shape = (1, 2, rows, columns)
        return Attended(torch.rand(shape, generator=draw), torch.randn(shape, generator=draw))

    own, cross, image = drawn(3, 3), drawn(3, 7), drawn(7, 7)
    trace = Trace([cross], torch.ones(1, 3), GRID, [own], [image])
    a, b, c = (
        np.maximum((part.probabilities * part.gradient).numpy()[0], 0).mean(axis=0)
        for part in (own, cross, image)
    )
    # R = I + A, of which the added part is A itself; its rows are brought to the sum 1.
    text = np.eye(3) + a / a.sum(axis=1, keepdims=True)
    patches = np.eye(7) + c / c.sum(axis=1, keepdims=True)
    expected = (text.T @ b @ patches)[0, 1:].reshape(GRID)
    maps = METHODS["relevance"].heatmaps(trace)[0].numpy()
    np.testing.assert_allclose(maps, expected, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_texts_of_padding_alone_and_flat_gradients_give_finite_maps(method):
    trace = looking_at(1)
    flat = [Attended(layer.probabilities, 0 * layer.slope) for layer in trace.cross]
    for one in (replace(trace, text_mask=torch.zeros(2, TOKENS)), replace(trace, cross=flat)):
        maps = METHODS[method].heatmaps(of_layers(method, one))
        assert maps.isfinite().all() and (maps >= 0).all()


def test_a_method_that_was_not_given_its_gradient_says_so():
    trace = looking_at(0, layers=1)
    bare = [Attended(layer.probabilities) for layer in trace.cross]
    with pytest.raises(RuntimeError, match="gradient"):
        METHODS["gradcam"].heatmaps(replace(trace, cross=bare))


# --- ALBEF ----------------------------------------------------------------------------------------


def batch_of(counts: list[int], side: int = 32) -> dict:
    draw = torch.Generator().manual_seed(3)
    ids, mask = texts(sum(counts), draw)
    return {
        "image": torch.randn(len(counts), 3, side, side, generator=draw),
        "text_ids": ids,
        "text_mask": mask,
        "phrase_image": torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
        "phrase": [str(row) for row in range(sum(counts))],
        "size": [(40, 60)] * len(counts),
    }


@pytest.mark.parametrize("method", METHODS)
def test_every_method_explains_a_phrase_alone_as_among_others(method):
    explainer = Explainer(tiny_model(momentum=False), method=method).eval()
    batch = batch_of([1, 3, 0, 2])
    together = explainer(batch)
    maps = together["heatmaps"]
    assert maps.shape == (6, 4, 4) and maps.isfinite().all()
    assert (maps >= 0).all() and (maps.amax(dim=(1, 2)) > 0).all()
    assert len({tuple(one.flatten().tolist()) for one in maps}) == 6
    for row, image in enumerate(batch["phrase_image"].tolist()):
        alone = explainer(phrase_alone(batch, row, image))
        torch.testing.assert_close(alone["heatmaps"][0], maps[row], rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(alone["score"][0], together["score"][row])


def test_relevance_takes_its_gradients_from_the_whole_model():
    """Also those that pass through the image encoder: with its lower block cut off, maps differ."""
    model = tiny_model(momentum=False)
    batch = batch_of([2])
    before = Explainer(model, method="relevance").eval()(batch)["heatmaps"]
    with torch.no_grad():
        model.visual_encoder.blocks[0].attn.proj.weight.zero_()
        model.visual_encoder.blocks[0].attn.proj.bias.zero_()
    after = Explainer(model, method="relevance").eval()(batch)["heatmaps"]
    assert not torch.allclose(before, after)


@pytest.mark.parametrize("method", METHODS)
def test_an_explanation_leaves_no_trace_in_the_model(method):
    model = tiny_model(momentum=False)
    Explainer(model, method=method).eval()(batch_of([1, 2]))
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    fused = [m.fused_attn for m in model.modules() if hasattr(m, "fused_attn")]
    assert all(fused) and fused


def test_only_the_published_method_explains_by_similarity():
    with pytest.raises(ValueError, match="set mode to itm"):
        ExplanationConfig(mode="itc", method="rollout")
    with pytest.raises(ValueError, match="legal: gradcam, attention"):
        ExplanationConfig(method="grad-cam")


def test_rows_say_which_map_was_evaluated():
    def note(**of: Any) -> str:
        return AlbefModelConfig(explanation=ExplanationConfig(**of)).note

    assert note() == "itm map of block 8"
    assert note(method="rollout") == "rollout map"
    assert note(method="attention", region="otsu") == "attention map of block 8, otsu region"
    assert note(method="rollout", fraction=0.1) == "rollout map, region above 0.1"
    with pytest.raises(ValueError, match="fraction 0 is not above 0"):
        ExplanationConfig(fraction=0)


# --- perturbation ---------------------------------------------------------------------------------


def squares(size: int = 48) -> dict:
    """Two images: a bright square in the upper left, and in the lower right."""
    image = torch.zeros(2, 3, size, size)
    image[0, :, 6:18, 6:18] = 1
    image[1, :, 30:42, 28:40] = 1
    return {"image": image, "phrase_image": torch.tensor([0, 0, 1])}


def brightness(batch: dict) -> torch.Tensor:
    """A "system" that finds phrases fitting the more, the more of the brightest there is."""
    return (batch["image"] > 0.9).float().mean(dim=(1, 2, 3))[batch["phrase_image"]]


def test_hiding_superpixels_finds_what_an_answer_hangs_on():
    batch = squares()
    maps = perturbation_maps(brightness, batch)
    assert maps.shape == (3, CELLS, CELLS)
    for heat, box in zip(maps, [(6, 6, 18, 18)] * 2 + [(28, 30, 40, 42)], strict=True):
        large = torch.nn.functional.interpolate(heat[None, None], (48, 48))[0, 0].numpy()
        assert metrics.energy_inside(large, box) > 0.9
    assert torch.equal(maps[0], maps[1])


def test_an_answer_that_hangs_on_nothing_has_an_empty_map():
    maps = perturbation_maps(lambda _: torch.ones(3), squares())
    assert maps.abs().max() == 0


def test_maps_are_of_the_image_without_the_canvas_around_it():
    batch = squares() | {"resized": [(24, 48), (24, 48)], "offset": [(0, 0), (0, 24)]}
    first, _, second = perturbation_maps(brightness, batch)
    # The square of image 0 ends at 3/4 of its height, that of image 1 begins at a quarter.
    assert first[:6].sum() < first[6:18].sum() and first[19:].sum() < 0.05 * first.sum()
    assert second[:5].sum() < 0.05 * second.sum()


def test_hidden_parts_have_the_mean_colour_of_their_image():
    batch = squares()
    where = torch.zeros(2, 48, 48, dtype=torch.bool)
    where[0, :10] = True
    changed = hidden(batch, where)["image"]
    assert torch.equal(changed[1], batch["image"][1])
    assert torch.allclose(changed[0, :, :10], batch["image"][0].mean())
    assert torch.equal(changed[0, :, 10:], batch["image"][0, :, 10:])


def test_a_right_map_deletes_fast_and_inserts_fast():
    batch = squares()
    right = torch.zeros(3, 8, 8)
    right[:2, 1:3, 1:3] = right[2, 5:7, 5:7] = 1
    wrong = right.flip(2)

    def areas(maps: torch.Tensor) -> list[np.ndarray]:
        return list(map(metrics.area_under, deletion_and_insertion(brightness, batch, maps)))

    (gone, given), (gone_wrong, given_wrong) = areas(right), areas(wrong)
    assert (gone < gone_wrong).all() and (given > given_wrong).all()
    deleted, inserted = deletion_and_insertion(brightness, batch, right, steps=4)
    assert deleted.shape == inserted.shape == (3, 5)
    whole = brightness(batch).numpy()
    np.testing.assert_array_equal(deleted[:, 0], whole)
    np.testing.assert_array_equal(inserted[:, -1], whole)
    assert (deleted[:, -1] == 0).all() and (inserted[:, 0] == 0).all()


def test_several_phrases_of_one_sentence_cannot_be_deleted_one_by_one():
    batch = squares() | {"phrase_text_ids": torch.zeros(2, 2, 3)}
    with pytest.raises(ValueError, match="multi_phrase"):
        deletion_and_insertion(brightness, batch, torch.zeros(3, 2, 2))


def grounding(box: tuple | None, score: float = 1.0) -> Grounding:
    boxes = np.zeros((0, 4)) if box is None else np.array([box], dtype=float)
    return Grounding(
        phrase="", point=(0, 0), boxes=boxes, scores=np.full(len(boxes), score), mask=None,
        heatmap=None, size=(48, 48),
    )  # fmt: skip


def test_boxes_fit_by_how_far_they_stay_and_how_sure_they_are():
    answers = {
        "before": [grounding((0, 0, 10, 10)), grounding((0, 0, 4, 4)), grounding(None)],
        "after": [grounding((5, 0, 15, 10), 0.6), grounding(None), grounding((0, 0, 4, 4))],
    }
    fit = BoxFit(lambda batch: batch, lambda outputs, _: answers[outputs], "before")
    torch.testing.assert_close(fit("after"), torch.tensor([0.6 / 3, 0.0, 0.0]))
    assert fit("before").tolist() == [1.0, 1.0, 0.0]


def test_perturbation_points_for_albef_and_stands_beside_the_boxes_of_others():
    model = tiny_model(momentum=False).eval()
    albef = Parts(model, [], Explainer(model), heatmaps_to_groundings, match=Matching(model))
    perturbed, batch = Perturbation(albef), batch_of([1, 2])
    outputs = perturbed(batch)
    for found, heat in zip(perturbed.postprocess(outputs, batch), outputs[1], strict=True):
        assert found.heatmap.shape == (CELLS, CELLS)
        np.testing.assert_array_equal(found.heatmap, heat.numpy())
        box = mask_to_box(heatmap_to_mask(large := enlarged(found)))
        assert found.boxes.tolist() == ([] if box is None else [list(box)])
        assert large[int(found.point[1]), int(found.point[0])] == large.max()

    def boxes(outputs: torch.Tensor, batch: dict) -> list[Grounding]:
        return [grounding(tuple(row)) for row in outputs[batch["phrase_image"]].tolist()]

    class Brightest(torch.nn.Module):
        def forward(self, batch: dict) -> torch.Tensor:
            bright = batch["image"].amax(1) > 0.9
            found = [mask_to_box(one.numpy()) or (0, 0, 1, 1) for one in bright]
            return torch.tensor(found)

    perturbed, batch = Perturbation(Parts(torch.nn.Identity(), [], Brightest(), boxes)), squares()
    found = perturbed.postprocess(perturbed(batch), batch)
    assert found[0].boxes.tolist() == [[6, 6, 18, 18]]
    rows, columns = np.nonzero(found[2].heatmap)
    assert rows.min() >= 12 and columns.min() >= 11, "the lower right of the second image"


def enlarged(found: Grounding) -> np.ndarray:
    return enlarge(torch.from_numpy(found.heatmap)[None], found.size)[0].numpy()


def test_match_odds_are_those_of_the_explainer():
    model, batch = tiny_model(momentum=False).eval(), batch_of([2, 1])
    odds = Matching(model)(batch)
    with torch.no_grad():
        bert = model.text_encoder.bert
        images = bert.image_keys_values(model.visual_encoder(batch["image"]))
        views = [layer.select(batch["phrase_image"]) for layer in images]
        fused = bert(batch["text_ids"], batch["text_mask"], views)
        logits = model.match_logits(fused)
    torch.testing.assert_close(odds, logits[:, 1] - logits[:, 0])
    torch.testing.assert_close(Explainer(model)(batch)["score"], logits[:, 1])
    torch.testing.assert_close(Explainer(model)(batch)["evidence"], odds)


def test_a_method_of_another_image_size_has_its_grid():
    model = tiny_model(replace(MODEL, image_size=48), momentum=False)
    for method in METHODS:
        maps = Explainer(model, method=method).eval()(batch_of([1], side=48))["heatmaps"]
        assert maps.shape == (1, 6, 6)

"""The losses of every system have the gradients that differences of their values have, in double
precision, and finite ones at the edges of what a batch can hold."""

from types import SimpleNamespace

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from groundwork.models.albef.objectives import AttentionMaskConsistency, SelfConsistency
from groundwork.models.albef.objectives.itc_itm_mlm import ImageTextLosses
from groundwork.models.albef.passes import Words
from groundwork.models.alvg.criterion import ALVGCriterion
from groundwork.models.common.heatmap import explanation, min_max
from groundwork.models.common.losses import dice_loss, focal_loss, giou_loss_of_pairs, l1_of_pairs
from groundwork.models.refclip.criterion import RefCLIPCriterion
from groundwork.models.refclip.detection_loss import DetectionCriterion, HeadOutput
from groundwork.models.refclip.yolov3 import YoloV3
from groundwork.models.reftr.criterion import RefTRCriterion
from groundwork.models.simrec.criterion import STRIDE, SimRECCriterion

DOUBLE = torch.float64


def random(*shape: int, seed: int = 0, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return (low + (high - low) * torch.rand(*shape, generator=draw, dtype=DOUBLE)).requires_grad_()


def boxes(*shape: int, seed: int = 0) -> torch.Tensor:
    """cxcywh in [0, 1], every one inside the image."""
    sides = random(*shape, 2, seed=seed, low=0.2, high=0.5)
    centres = sides / 2 + (1 - sides) * random(*shape, 2, seed=seed + 1)
    return torch.cat([centres, sides], dim=-1).detach().requires_grad_()


# --- boxes and masks ------------------------------------------------------------------------------


def test_losses_of_boxes_have_the_gradient_of_their_differences():
    predicted, target = boxes(5, seed=1), boxes(5, seed=2).detach()
    assert gradcheck(lambda one: l1_of_pairs(one, target), predicted)
    assert gradcheck(lambda one: giou_loss_of_pairs(one, target), predicted)
    assert gradcheck(lambda one: giou_loss_of_pairs(one, target, epsilon=1e-6), predicted)


@pytest.mark.parametrize("loss", [focal_loss, dice_loss])
def test_losses_of_masks_have_the_gradient_of_their_differences(loss):
    target = (random(2, 4, 5) > 0.5).to(DOUBLE)
    assert gradcheck(lambda one: loss(one, target), random(2, 4, 5, seed=3, low=-3, high=3))


@pytest.mark.parametrize("loss", [focal_loss, dice_loss])
@pytest.mark.parametrize("logit", [-1e4, -100.0, 0.0, 100.0, 1e4])
@pytest.mark.parametrize("inside", [0.0, 1.0])
def test_losses_of_flat_masks_are_finite_however_sure(loss, logit, inside):
    logits = torch.full((1, 4, 4), logit, requires_grad=True)
    value = loss(logits, torch.full((1, 4, 4), inside))
    value.sum().backward()
    assert value.isfinite().all() and logits.grad.isfinite().all()


@pytest.mark.parametrize("side", [1 / 640, 1e-6])
def test_a_box_of_one_pixel_has_finite_losses_of_a_finite_gradient(side):
    target = torch.tensor([[0.5, 0.5, side, side]])
    for place in (0.5, 0.0, 1.0):
        predicted = torch.tensor([[place, place, side, side]], requires_grad=True)
        loss = giou_loss_of_pairs(predicted, target) + l1_of_pairs(predicted, target)
        loss.sum().backward()
        assert loss.isfinite().all() and predicted.grad.isfinite().all()


# --- ALBEF, AMC, SelfEQ ---------------------------------------------------------------------------


def test_alignment_matching_and_hidden_words_have_the_gradient_of_their_differences():
    losses = ImageTextLosses(masker=lambda ids: (ids, ids > 0), alpha=0.4)
    soft = random(3, 7, seed=5).detach()
    assert gradcheck(
        lambda one, other: losses.alignment(((one, soft), (other, soft))),
        (random(3, 7, seed=1, low=-2, high=2), random(3, 7, seed=2, low=-2, high=2)),
    )
    assert gradcheck(
        lambda true, wrong: losses.matching(true, wrong)[0],
        (random(3, 2, seed=3, low=-2, high=2), random(6, 2, seed=4, low=-2, high=2)),
    )

    def words(scores):
        ids, teacher = torch.tensor([1, 0, 4]), random(3, 5, seed=6).detach().softmax(-1)
        return losses.masked_language(Words(ids, scores, scores.log_softmax(-1), teacher))

    assert gradcheck(words, random(3, 5, seed=7, low=-2, high=2))


def amc_loss(maps: torch.Tensor, mean_over: str = "sample") -> torch.Tensor:
    masks = torch.zeros(len(maps), 12, 12, dtype=maps.dtype)
    masks[:, 2:8, 3:9] = 1
    passes = SimpleNamespace(phrase=SimpleNamespace(heatmaps=maps))
    batch = {"region_index": torch.arange(len(maps)), "region_mask": masks}
    return sum(AttentionMaskConsistency(mean_over=mean_over)(passes, batch).values())


def selfeq_loss(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    objective = SelfConsistency(image_text=torch.nn.Identity(), threshold=0.8)
    similar = torch.nn.functional.smooth_l1_loss(first, second)
    return objective.consistency(first, second) + similar


@pytest.mark.parametrize("mean_over", ["sample", "batch"])
def test_losses_of_maps_have_the_gradient_of_their_differences(mean_over):
    assert gradcheck(lambda maps: amc_loss(maps, mean_over), random(2, 4, 4, seed=1))
    assert gradcheck(selfeq_loss, (random(2, 4, 4, seed=1), random(2, 4, 4, seed=2)))


def explained(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The scaled map (1, 2, 3) of an attention of two heads to [CLS] and six cells by the gradient
    of a score: the explanation that AMC and SelfEQ differentiate once more."""
    attention = (query @ keys.transpose(-1, -2)).softmax(-1)
    score = (attention @ values).tanh().sum()
    (gradient,) = torch.autograd.grad(score, attention, create_graph=True)
    words = torch.ones(1, query.shape[1])
    return min_max(explanation(attention[None], gradient[None], words, (2, 3)))


def parts() -> tuple[torch.Tensor, ...]:
    return (
        random(2, 3, 4, seed=11, low=-1, high=1),
        random(2, 7, 4, seed=12, low=-1, high=1),
        random(2, 7, 4, seed=13, low=-1, high=1),
    )


def test_an_explanation_has_the_second_order_gradient_of_its_differences():
    assert gradcheck(explained, parts())
    assert gradcheck(lambda *inputs: amc_loss(explained(*inputs)), parts())

    def consistent(query, keys, values):
        return selfeq_loss(explained(query, keys, values), explained(2 * query, keys, values))

    assert gradcheck(consistent, parts())


def test_the_gradient_of_an_explanation_has_a_gradient_of_its_own():
    def smooth(query, keys, values):
        attention = (query @ keys.transpose(-1, -2)).softmax(-1)
        score = (attention @ values).tanh().sum()
        (gradient,) = torch.autograd.grad(score, attention, create_graph=True)
        return attention * gradient

    assert gradgradcheck(smooth, parts())


def test_flat_maps_have_finite_losses_of_a_finite_gradient():
    for value in (0.0, 0.5, 1.0):
        first, second = (torch.full((2, 4, 4), value, requires_grad=True) for _ in range(2))
        loss = amc_loss(min_max(first)) + selfeq_loss(min_max(first), min_max(second))
        loss.backward()
        assert loss.isfinite() and first.grad.isfinite().all() and second.grad.isfinite().all()


# --- RefTR ----------------------------------------------------------------------------------------


def reftr_losses(predicted, masks, attention):
    outputs = {
        "pred_boxes": predicted[None],
        "phrase_mask": torch.ones(1, len(predicted), dtype=torch.bool),
        "pred_masks": masks,
        "attention": attention,
        "cell_padding": torch.zeros(1, 3, 4, dtype=torch.bool),
    }
    target = torch.zeros(1, 8, 8, dtype=torch.bool)
    target[:, 2:6, 1:5] = True
    batch = {"target_boxes": [boxes(len(predicted), seed=9).detach()], "target_mask": target}
    return tuple(RefTRCriterion({})(outputs, batch).values())


def test_the_losses_of_reftr_have_the_gradient_of_their_differences():
    inputs = (
        boxes(2, seed=1),
        random(1, 4, 4, seed=2, low=-2, high=2),
        random(2, 1, 2, 3, 4, seed=3, low=0.1, high=1),
    )
    assert gradcheck(reftr_losses, inputs)


# --- RefCLIP, SimREC, the detector ----------------------------------------------------------------


def test_the_loss_of_refclip_has_the_gradient_of_its_differences():
    def contrastive(cells, text):
        outputs = {"cell_features": cells, "text_features": text}
        return RefCLIPCriterion({"loss_contrastive": 1.0})(outputs, {})["loss_contrastive"]

    assert gradcheck(contrastive, (random(3, 4, 5, seed=1), random(3, 5, seed=2)))


def test_the_losses_of_simrec_have_the_gradient_of_their_differences():
    side = 4 * STRIDE
    target = boxes(2, seed=3).detach() * side
    places = boxes(2, 4, 4, seed=1) * side
    logits = random(2, 4, 4, 1, seed=2, low=-2, high=2)
    cells = torch.cat([places, logits], dim=-1).detach().requires_grad_()
    criterion = SimRECCriterion({})
    assert gradcheck(lambda one: tuple(criterion.losses(one, target).values()), cells, eps=1e-5)


def test_the_losses_of_the_detector_have_the_gradient_of_their_differences():
    torch.manual_seed(0)
    detector = YoloV3(width=2, classes=3, blocks=(1, 1, 1, 1, 1), deformable=False)
    criterion = DetectionCriterion(detector.double(), {})
    batch = {
        "image": torch.zeros(1, 3, 64, 64),
        "object_boxes": [torch.tensor([[20.0, 30.0, 24.0, 18.0], [40.0, 40.0, 30.0, 30.0]])],
        "object_labels": [torch.tensor([1, 2])],
    }

    def losses(shapes, predictions, places):
        return criterion({32: HeadOutput(shapes, predictions, places)}, batch)

    shapes = random(1, 4, 4, 2, seed=1, low=-1, high=1)
    predictions = random(1, 4, 4, 8, seed=2, low=-1, high=1)
    places = (boxes(1, 4, 4, seed=3) * 64).detach().requires_grad_()
    fixed = shapes.detach()
    rest = (predictions, places)
    assert gradcheck(lambda *inputs: tuple(losses(fixed, *inputs).values()), rest, eps=1e-5)
    # The other losses take the guided shapes as they are.
    assert gradcheck(lambda one: losses(one, *rest)["loss_shape"], shapes)


# --- ALVG -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("queries", [1, 3])
def test_the_losses_of_alvg_have_the_gradient_of_their_differences(queries):
    criterion = ALVGCriterion({"loss_score_attention": 1.0, "loss_decoder_attention": 1.0}).double()
    targets = [boxes(1, seed=7).detach(), boxes(min(queries, 2), seed=8).detach()]
    masks = torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[:, 4:20, 8:24] = True
    batch = {
        "image": torch.zeros(2, 3, 32, 32),
        "target_boxes": targets,
        "target_mask": masks,
        "target_masks": [masks[:1], masks[:1].expand(len(targets[1]), -1, -1)],
    }

    def losses(logits, places, pixels, score, attention):
        outputs = {
            "layer_logits": logits,
            "layer_boxes": places,
            "pred_boxes": places[-1],
            "pred_masks": pixels,
            "score": score,
            "attention": attention,
        }
        return tuple(criterion(outputs, batch).values())

    inputs = (
        random(2, 2, queries, 2, seed=1, low=-1, high=1),
        boxes(2, 2, queries, seed=2),
        random(2, 8, 8, seed=3, low=-2, high=2),
        random(2, 4, 4, seed=4, low=0, high=2),
        random(2, 2, queries, 4, 4, seed=5, low=0.1, high=1),
    )
    assert gradcheck(losses, inputs)

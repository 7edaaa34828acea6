"""Changes of the input of which it is known what they do to the answers of every system: the order
of phrases and images, padding, what else is asked, sizes, mirrored images, input at its edges; and
training twice, in other processes."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import train
from groundwork import Grounder, engine, geometry
from groundwork.engine.snapshot import Position
from groundwork.engine.training import TrainingStep, seed_step
from groundwork.geometry import Grounding
from groundwork.jobs.forms import FORMS
from groundwork.jobs.recognition import Loaded, load_system
from groundwork.jobs.tokenizers import load_texts
from groundwork.models import SYSTEMS
from groundwork.models.albef.vision import ConvolutionalPatchEmbed
from groundwork.models.alvg.stem import ConvolutionalStem
from groundwork.models.refclip.yolov3 import YoloV3
from groundwork.models.reftr.backbone import ResNetBody
from groundwork.models.simrec.backbone import CSPDarkNet
from groundwork.settings import load_config
from tests.helpers.own_checkpoints import KINDS, SINGLE
from tests.helpers.script_runs import CONFIGS, arguments

CPU = torch.device("cpu")
PHRASES = ["the red circle", "a small blue square on the left", "triangle", "the star below"]
pytestmark = pytest.mark.usefixtures("embedded")


@dataclass(frozen=True)
class Subject:
    """A system with random weights, and samples of a split that it sees at one size, so that none
    is padded for the sake of another."""

    kind: str
    loaded: Loaded
    samples: Sequence[Any]
    collate: Callable[[list[Any]], Any]

    def batch(self, *numbers: int) -> Any:
        return self.collate([self.samples[number] for number in numbers])

    def answers(self, batch: Any) -> list[list[Grounding]]:
        """Those of each image of a batch."""
        parts = self.loaded.parts
        ((_, found),) = engine.evaluate(parts.evaluated, parts.postprocess, [batch], device=CPU)
        owner = batch["phrase_image"].tolist()
        return [
            [one for one, mine in zip(found, owner, strict=True) if mine == image]
            for image in range(len(batch["size"]))
        ]


@pytest.fixture(scope="module")
def subject_of(checkpoints) -> Callable[[str], Subject]:
    @cache
    def of(kind: str) -> Subject:
        _, name, settings = KINDS[kind]
        loaded = load_system(
            checkpoints[kind],
            device=CPU,
            config=CONFIGS / f"{name}.yaml",
            overrides=["data.workers=0", SINGLE, *settings],
        )
        form = FORMS[SYSTEMS[loaded.config.system].samples]
        loader = form.evaluation(loaded.config, ("val",), loaded.tokenizer).loader
        samples = [loader.dataset[number] for number in range(len(loader.dataset))]
        shapes = [sample.image.shape for sample in samples]
        usual = max(shapes, key=shapes.count)
        alike = [sample for sample in samples if sample.image.shape == usual]
        return Subject(kind, loaded, alike, loader.collate_fn)

    return of


@pytest.fixture(params=KINDS)
def subject(request, subject_of, embedded) -> Subject:  # noqa: ARG001 (its folder is the one)
    return subject_of(request.param)


def assert_same(found: Grounding, expected: Grounding) -> None:
    """Boxes within a hundredth of a pixel, numbers within 1e-4 of their size."""
    close = {"rtol": 1e-4, "atol": 1e-5}
    assert (found.phrase, found.size) == (expected.phrase, expected.size)
    np.testing.assert_allclose(found.point, expected.point, atol=0.01)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01)
    np.testing.assert_allclose(found.scores, expected.scores, **close)
    assert numbers_of(found) == pytest.approx(numbers_of(expected), rel=1e-4, abs=1e-5)
    for one, other in zip(maps_of(found), maps_of(expected), strict=True):
        np.testing.assert_allclose(one, other, **close)
    if found.mask is not None:  # a probability of one half may fall on either side
        assert (found.mask != expected.mask).mean() < 1e-3


def numbers_of(found: Grounding) -> list[float]:
    return [one for one in (found.score, found.evidence) if one is not None]


def maps_of(found: Grounding) -> list[np.ndarray]:
    """As shares of their sum: the released divisor of ALBEF's counts the padding of the batch."""
    given = [one for one in (found.heatmap, found.attention) if one is not None]
    return [one / max(np.abs(one).sum(), 1e-12) for one in given]


def assert_all_same(found: list[list[Grounding]], expected: list[list[Grounding]]) -> None:
    for some, others in zip(found, expected, strict=True):
        for one, other in zip(some, others, strict=True):
            assert_same(one, other)


# --- what is asked together -----------------------------------------------------------------------


def test_phrases_in_another_order_and_twice_have_the_same_answers(subject, embedded):
    grounder = Grounder(subject.loaded)
    image = next((embedded / "images").glob("*/*.jpg"))
    once = grounder.ground(image, PHRASES)
    assert len({(one.point, *numbers_of(one)) for one in once}) == len(PHRASES)
    order = [2, 0, 3, 1, 2, 2]
    found = grounder.ground(image, [PHRASES[number] for number in order])
    assert_all_same([found], [[once[number] for number in order]])


def test_images_in_another_order_have_the_same_answers(subject):
    first, second = subject.answers(subject.batch(0, 1)), subject.answers(subject.batch(1, 0))
    assert_all_same(second, first[::-1])


def test_the_other_samples_of_a_batch_change_no_answer(subject):
    alone = [found for n in range(2) for found in subject.answers(subject.batch(n))]
    assert_all_same(subject.answers(subject.batch(0, 1)), alone)


def test_more_padding_behind_the_texts_changes_no_answer(subject):
    batch = subject.batch(0, 1)
    fill = {"text_ids": subject.loaded.tokenizer.pad_token_id, "text_mask": 0}
    padded = {key: F.pad(batch[key], (0, 3), value=value) for key, value in fill.items()}
    assert_all_same(subject.answers(batch | padded), subject.answers(batch))


# --- sizes and mirrors ----------------------------------------------------------------------------


def test_boxes_and_points_scale_with_an_image_that_is_seen_as_before(subject):
    # What is read off a heat map is read off at a pixel of the image.
    pixels = 4 if subject.kind == "albef" else 1e-6
    batch = subject.batch(0, 1)
    large = batch | {"size": [(2 * height, 2 * width) for height, width in batch["size"]]}
    for some, others in zip(subject.answers(large), subject.answers(batch), strict=True):
        for one, other in zip(some, others, strict=True):
            np.testing.assert_allclose(one.boxes, 2 * other.boxes, atol=pixels)
            np.testing.assert_allclose(one.point, 2 * np.array(other.point), atol=pixels)


def mirrored_boxes(boxes: Tensor, width: float) -> Tensor:
    """(..., 4 or more), cx first."""
    return torch.cat([width - boxes[..., :1], boxes[..., 1:]], dim=-1)


def mirrored_outputs(outputs: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    """What a system that sees the mirror of an image, `width` pixels wide, would give: boxes of
    the image are in shares of it, those of cells in pixels."""
    found = dict(outputs)
    for key in ("heatmaps", "pred_masks", "score", "attention"):
        if key in outputs and outputs[key].ndim > 2:
            found[key] = outputs[key].flip(-1)
    for key in ("pred_boxes", "cell_boxes", "likeliest_box"):
        if key in outputs:
            found[key] = mirrored_boxes(outputs[key], 1 if key == "pred_boxes" else width)
    if "cells" in outputs:
        found["cells"] = mirrored_boxes(outputs["cells"], width).flip(2)
    return found


def test_mirrored_outputs_are_read_as_mirrored_answers(subject):
    parts, batch = subject.loaded.parts, subject.batch(0)
    with torch.no_grad():
        outputs = parts.evaluated(batch)
    mirrored = mirrored_outputs(outputs, batch["image"].shape[-1])
    expected, found = (parts.postprocess(given, batch) for given in (outputs, mirrored))
    for one, other in zip(found, expected, strict=True):
        height, width = other.size
        # A point that is read off a map is the index of a pixel.
        last = width - 1 if "box" in other.derived else width
        assert one.point == pytest.approx((last - other.point[0], other.point[1]), abs=1e-3)
        flipped = geometry.flip_boxes(other.boxes, width)
        np.testing.assert_allclose(one.boxes, flipped, atol=1e-3)
        for map_, before in zip(maps_of(one), maps_of(other), strict=True):
            np.testing.assert_allclose(map_, before[:, ::-1], rtol=1e-6)
        if other.resized_mask is not None:
            assert (one.resized_mask != other.resized_mask[:, ::-1]).mean() < 1e-3
        if other.mask is not None:  # RefTR's nearest pixel lies left of the middle
            assert (one.mask != other.mask[:, ::-1]).mean() < 0.03


def albef_stem() -> nn.Module:
    return ConvolutionalPatchEmbed(img_size=64, patch_size=8, embed_dim=32, flatten=False)


def yolo_backbone() -> nn.Module:
    return YoloV3(width=2, classes=3, blocks=(1, 1, 1, 1, 1)).module_list[:11]


# A network, and a side that all of its strides divide into cells which lie alike from both ends:
# convolutions of 3 pixels take every second pixel of an odd number, those of 4 and 6 of an even.
NETWORKS = {
    "ALBEF's stem": (albef_stem, 64),
    "RefTR's ResNet": (lambda: ResNetBody("resnet10", width=8, norm="batch", output_stride=32), 65),
    "RefCLIP's DarkNet": (lambda: nn.Sequential(*yolo_backbone()), 65),
    "SimREC's DarkNet": (lambda: CSPDarkNet(width=4, repeats=(1, 1, 1, 1)), 66),
    "ALVG's stem": (lambda: ConvolutionalStem(width=32, patch=8, first=8), 65),
}


@pytest.mark.parametrize(("build", "side"), NETWORKS.values(), ids=NETWORKS)
def test_convolutions_with_mirrored_kernels_see_the_mirror_of_a_mirrored_image(build, side):
    torch.manual_seed(0)
    network, image = build().eval(), torch.randn(2, 3, side, side)
    with torch.no_grad():
        before = network(image)
        for part in network.modules():
            if isinstance(part, nn.Conv2d):
                part.weight.copy_(part.weight.flip(-1))
        after = network(image.flip(-1))
    for one, other in zip(listed(after), listed(before), strict=True):
        assert other.std() > 0
        difference = (one - other.flip(-1)).abs().max() / other.std()
        assert difference < 1e-4 < (one - other).abs().max() / other.std()


def listed(maps: Any) -> list[Tensor]:
    return [maps] if isinstance(maps, Tensor) else list(maps)


# --- input at its edges ---------------------------------------------------------------------------

EDGES = {
    "one pixel": np.zeros((1, 1, 3), np.uint8),
    "black": np.zeros((40, 60, 3), np.uint8),
    "white": np.full((60, 40, 3), 255, np.uint8),
}


@pytest.mark.parametrize("edge", EDGES)
def test_answers_about_flat_and_tiny_images_are_finite(subject, edge):
    phrases = ["x", "?a", "red " * 2000]
    for found in Grounder(subject.loaded).ground(EDGES[edge], phrases):
        assert np.isfinite(found.point).all() and np.isfinite(found.boxes).all()
        assert np.isfinite(found.scores).all() and np.isfinite(numbers_of(found)).all()
        assert all(np.isfinite(one).all() for one in maps_of(found))


# Of every system: its recipe, and settings with which two steps draw random numbers.
_STEPS = ("batch_size=4", "log_every=1", SINGLE)
_BOXES = (*_STEPS, "data.jitter=true", "select=null", "epochs=1", "steps=2")
TRAINED = {
    "ALBEF": (
        "tiny/Pretrain_vg_amc_selfeq",
        (*_STEPS, "data.augment=true", "stages.0.epochs=1", "stages.0.steps=2"),
    ),
    "RefTR": ("tiny/reftr/refcoco+_res", (*_BOXES, "model.dropout=0.1")),
    "RefCLIP": (
        "tiny/refclip/refcoco+",
        (*_BOXES, "model.text.dropout=0.1", "model.init.detector=null", "model.cache=null"),
    ),
    "SimREC": ("tiny/simrec/refcoco+", (*_BOXES, "model.text.dropout=0.1")),
    "ALVG": ("tiny/alvg/refcoco+_res", (*_BOXES, "model.dropout=0.1", "stages=[{}]")),
}


def edge_of(batch: Any, side: float) -> dict[str, Any]:
    """The batch with a flat image, texts without any token but the first, empty regions and masks,
    boxes of this side."""
    # Not all of them: each batch norm of maps without any deviation makes the gradient 300 times as
    # large, until it overflows. A run ends there and saves nothing.
    image = torch.cat([torch.zeros_like(batch["image"][:1]), batch["image"][1:]])
    found = {**batch, "image": image}
    for key in ("region_mask", "target_mask"):
        if key in batch:
            found[key] = torch.zeros_like(batch[key])
    for key in ("text_mask", "paraphrase_mask"):
        if key in batch:
            found[key] = batch[key].clone()
            found[key][:, 1:] = 0
    if "target_boxes" in batch:
        box = torch.tensor([0.5, 0.5, side, side])
        found["target_boxes"] = [box.expand_as(boxes) for boxes in batch["target_boxes"]]
    return found


@pytest.mark.parametrize("side", [1 / 640, 1e-7])
@pytest.mark.parametrize("name", TRAINED)
def test_a_step_on_input_at_its_edges_has_finite_losses_of_a_finite_gradient(name, side):
    file, settings = TRAINED[name]
    config = load_config(CONFIGS / f"{file}.yaml", ["data.workers=0", *settings])
    system, texts = SYSTEMS[config.system], load_texts(config)
    torch.manual_seed(0)
    parts = system.build(config.model, texts, [stage.objective for stage in config.stages])
    batch = next(iter(FORMS[system.samples].train_loader(config.of_stages[0], texts)))
    seed_step(0, Position())
    total, losses = TrainingStep(parts.model.train(), parts.criteria[0])(edge_of(batch, side))
    total.backward()
    assert total.isfinite() and all(loss.isfinite() for loss in losses.values())
    reached = [one for one in parts.model.parameters() if one.grad is not None]
    assert reached and all(one.grad.isfinite().all() for one in reached)


# --- training twice -------------------------------------------------------------------------------


def trained(name: str, workers: int, out: Path) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """The weights after two steps, and the lines of the log without its speed."""
    config, settings = TRAINED[name]
    train.main(arguments(config, out, overrides=[*settings, f"data.workers={workers}"]))
    (file,) = out.glob("checkpoint_*.pth")
    lines = [json.loads(line) for line in (out / "log.txt").read_text().splitlines()]
    timed = ("samples_per_second", "seconds")
    kept = [{key: line[key] for key in line if key not in timed} for line in lines]
    return torch.load(file, weights_only=True)["model"], kept


@pytest.fixture(scope="module")
def first_run(tmp_path_factory) -> Callable[[str], tuple[dict[str, Tensor], list[dict[str, Any]]]]:
    return cache(lambda name: trained(name, 0, tmp_path_factory.mktemp(name)))


@pytest.mark.parametrize("workers", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1))])
@pytest.mark.parametrize("name", TRAINED)
def test_a_seed_gives_the_same_weights_and_losses_with_any_number_of_loading_processes(
    name, workers, first_run, tmp_path
):
    (weights, log), (again, lines) = first_run(name), trained(name, workers, tmp_path)
    assert [line["kind"] for line in log].count("step") == 2
    assert lines == log
    assert again.keys() == weights.keys()
    for key, value in weights.items():
        assert torch.equal(value, again[key]), key

"""RefCLIP: detector, sentence encoder, selection, loss and boxes; several processes as one."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from groundwork import utils
from groundwork.engine.average import WeightAverage
from groundwork.engine.training import TrainingStep, distribute
from groundwork.models.common.distributed import BatchNorm2d
from groundwork.models.common.frozen_cache import CacheConfig
from groundwork.models.common.word_language import UnbiasedLayerNorm, WordLanguageEncoder
from groundwork.models.refclip.build import build_detector
from groundwork.models.refclip.config import RefclipDetectorConfig
from groundwork.models.refclip.criterion import RefCLIPCriterion, anchor_logits
from groundwork.models.refclip.detection_loss import (
    DetectionCriterion,
    DetectorTraining,
    best_boxes,
    start_objectness_low,
)
from groundwork.models.refclip.detector import boxes_of_cells
from groundwork.models.refclip.model import select_cells
from groundwork.models.refclip.postprocess import outputs_to_groundings
from groundwork.models.refclip.yolov3 import FeatureAdaption, YoloV3
from tests.helpers.tiny_refclip import (
    MODEL,
    SIDE,
    each_by_itself,
    rows_of,
    tiny_batch,
    tiny_criterion,
    tiny_refclip,
)
from tests.helpers.tiny_runs import start_group

LOSS = "loss_contrastive"


def loss_of(cells: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    outputs = {"cell_features": cells, "text_features": text}
    return RefCLIPCriterion({LOSS: 1.0})(outputs, {})[LOSS]


# --- loss -----------------------------------------------------------------------------------------


def test_a_single_image_has_nothing_to_be_told_from():
    assert loss_of(torch.randn(1, 5, 4), torch.randn(1, 4)).item() == 0


def test_logits_are_the_best_cell_of_all_and_the_second_of_others():
    similarity = torch.tensor(
        [[[1.0, 5.0, 3.0], [2.0, 0.0, 4.0]], [[9.0, 7.0, 8.0], [6.0, 6.5, 1.0]]]
    )
    logits = anchor_logits(similarity, torch.arange(2))
    assert logits.tolist() == [[5.0, 4.0, 2.0], [9.0, 6.5, 8.0]]
    wanted = [math.log(sum(math.exp(v) for v in row)) for row in logits.tolist()]
    loss = nn.functional.cross_entropy(logits, torch.arange(2))
    assert loss.item() == pytest.approx((wanted[0] - 5 + wanted[1] - 6.5) / 2, rel=1e-5)


def test_the_order_of_the_cells_does_not_matter():
    cells, text = torch.randn(4, 5, 6), torch.randn(4, 6)
    shuffled = torch.stack([one[torch.randperm(5)] for one in cells])
    torch.testing.assert_close(loss_of(shuffled, text), loss_of(cells, text))


def test_a_single_cell_per_image_leaves_the_best_ones():
    assert anchor_logits(torch.randn(3, 3, 1), torch.arange(3)).shape == (3, 3)


def test_the_gradient_reaches_texts_and_fusion_and_never_the_detector():
    model = tiny_refclip().train()
    tiny_criterion()(model(tiny_batch()), {})[LOSS].backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    frozen = ("visual_encoder.", "multi_scale_manner.mid_proj", "multi_scale_manner.bot_proj")
    assert without == {n for n, _ in model.named_parameters() if n.startswith(frozen)}
    assert not any(p.requires_grad for n, p in model.named_parameters() if n.startswith(frozen))


# --- detector -------------------------------------------------------------------------------------


def test_deformable_convolution_without_offsets_is_a_plain_one():
    deformable = FeatureAdaption(8)
    nn.init.zeros_(deformable.conv_offset.weight)
    nn.init.zeros_(deformable.conv_offset.bias)
    maps, shapes = torch.randn(2, 8, 5, 5), torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(deformable(maps, shapes), deformable.dconv(maps))


def test_boxes_are_in_pixels_of_the_input_and_cells_in_rows():
    model = tiny_refclip().eval()
    seen = model.detect(tiny_batch()["image"])
    grid = SIDE // 32
    assert seen.boxes.shape == (3, grid * grid, 4, 5)
    column = seen.boxes[..., 0] / 32 - torch.arange(grid).repeat(grid)[:, None]
    assert ((column > 0) & (column < 1)).all()
    assert seen.s8.shape[1:] == (16, SIDE // 8, SIDE // 8)


@pytest.mark.parametrize(("bn", "moves"), [("eval", False), ("train", True)])
def test_statistics_of_the_frozen_detector_move_only_on_request(bn, moves):
    model = tiny_refclip(replace(MODEL, detector=replace(MODEL.detector, batch_norm=bn)))
    before = {name: value.clone() for name, value in model.named_buffers()}
    model.train()(tiny_batch())
    changed = {n for n, v in model.named_buffers() if not torch.equal(v, before[n])}
    assert any(name.startswith("visual_encoder.") for name in changed) == moves
    assert any(name.startswith("multi_scale_manner.top_proj") for name in changed)


def test_cells_with_the_highest_mean_objectness_are_kept_in_their_order():
    boxes = torch.zeros(1, 5, 2, 5)
    boxes[0, :, :, 4] = torch.tensor([[0.9, 0.0], [0.5, 0.6], [0.1, 0.1], [0.7, 0.7], [0.0, 0.0]])
    assert select_cells(boxes, 3).tolist() == [[0, 1, 3]]
    assert select_cells(boxes, 9).shape == (1, 5)


def test_detections_go_to_the_cells_of_their_centres_best_first():
    boxes = torch.tensor([[0.0, 0.0, 20.0, 20.0], [40.0, 40.0, 60.0, 60.0], [2.0, 2.0, 30.0, 30.0]])
    table = boxes_of_cells(boxes, torch.tensor([0.2, 0.9, 0.7]), (2, 2), 2)
    assert table.shape == (4, 2, 5)
    torch.testing.assert_close(table[0, :, 4], torch.tensor([0.7, 0.2]))
    torch.testing.assert_close(table[3, 0], torch.tensor([50.0, 50.0, 20.0, 20.0, 0.9]))
    torch.testing.assert_close(table[1, 0], torch.tensor([48.0, 16.0, 32.0, 32.0, 0.0]))
    crowded = boxes_of_cells(boxes[:1].repeat(5, 1), torch.rand(5), (2, 2), 2)
    assert (crowded[0, :, 4] > 0).all() and not crowded[1:, :, 4].any()


@pytest.mark.parametrize("name", ["fcos_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn"])
def test_detectors_of_torchvision_need_the_three_strides(name):
    config = RefclipDetectorConfig(name=name, classes=4, boxes_per_cell=3)
    if "mobilenet" in name:
        with pytest.raises(ValueError, match="maps of strides .*, RefCLIP needs 8, 16, 32"):
            build_detector(config)
        return
    detector = build_detector(config).eval()
    with torch.no_grad():
        seen = detector(torch.randn(1, 3, 64, 64))
    assert seen.boxes.shape == (1, 4, 3, 5)
    assert [one.shape[1] for one in seen[:3]] == list(detector.widths) == [256] * 3
    assert [one.shape[-1] for one in seen[:3]] == [8, 4, 2]


def test_an_unknown_detector_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="legal: yolov3, fasterrcnn"):
        build_detector(RefclipDetectorConfig(name="yolov9"))


def test_the_detector_learns_its_images():
    torch.manual_seed(0)
    model = DetectorTraining(YoloV3(width=4, classes=2, blocks=(1, 1, 1, 1, 1), deformable=False))
    start_objectness_low(model.detector)
    names = ("shape", "size", "box", "object", "class")
    criterion = DetectionCriterion(model.detector, {f"loss_{name}": 1.0 for name in names})
    image = torch.zeros(2, 3, 64, 64)
    image[0, :, 8:40, 8:40], image[1, 0, 30:60, 24:60] = 1, 1
    boxes = [torch.tensor([[24.0, 24, 32, 32]]), torch.tensor([[42.0, 45, 36, 30]])]
    labels = [torch.tensor([0]), torch.tensor([1])]
    batch = {"image": image, "object_boxes": boxes, "object_labels": labels}
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(160):
        losses = criterion(model(batch), batch)
        total = sum(criterion.weights[name] * value for name, value in losses.items())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    with torch.no_grad():
        found = best_boxes(model(batch)[32], 3)
    for one, truth in zip(found, boxes, strict=True):
        centre = (one[0, :2] + one[0, 2:4]) / 2
        assert (centre - truth[0, :2]).abs().max() < 8 and one[0, 4] > 0.5


@pytest.mark.parametrize("every_head", [True, False])
def test_images_without_objects_only_teach_that_there_are_none(every_head):
    model = DetectorTraining(YoloV3(width=2, classes=2, blocks=(1, 1, 1, 1, 1), deformable=False))
    criterion = DetectionCriterion(model.detector, {}, every_head=every_head)
    empty = {"object_boxes": [torch.zeros(0, 4)] * 2, "object_labels": [torch.zeros(0).long()] * 2}
    batch = {"image": torch.randn(2, 3, 64, 64), **empty}
    losses = criterion(model(batch), batch)
    assert losses["loss_object"] > 0 and losses["loss_box"] == losses["loss_class"] == 0


# --- words ----------------------------------------------------------------------------------------


def test_the_layer_norm_divides_by_the_unbiased_deviation_and_eps():
    norm, values = UnbiasedLayerNorm(4, eps=0.5), torch.tensor([[1.0, 2.0, 3.0, 6.0]])
    wanted = (values - 3) / (np.std([1, 2, 3, 6], ddof=1) + 0.5)
    torch.testing.assert_close(norm(values), wanted.float())


def test_more_padding_does_not_change_a_sentence_and_none_is_no_word():
    encoder = WordLanguageEncoder(
        vocabulary=9, word_width=6, width=8, layers=2, heads=2, ffn=10, dropout=0.1
    ).eval()
    ids = torch.tensor([[3, 4, 5]])
    longer = torch.tensor([[3, 4, 5, 0, 0, 0, 0]])
    torch.testing.assert_close(encoder(longer).vector, encoder(ids).vector)
    assert encoder(torch.zeros(2, 4, dtype=torch.long)).vector.isfinite().all()


# --- boxes ----------------------------------------------------------------------------------------


def test_the_box_is_the_likeliest_of_the_best_cell_in_pixels_of_the_image():
    batch = tiny_batch(1)
    boxes = torch.tensor([[24.0 + 10, 20, 10, 20, 0.3], [24 + 24.0, 48, 48, 96, 0.9]])
    outputs = {
        "similarity": torch.tensor([[0.1, 2.0, 1.5]]),
        "cell_boxes": torch.stack([torch.zeros(2, 5), boxes, boxes + 5])[None],
        "likeliest_box": torch.tensor([[48.0, 48, 24, 24]]),
    }
    (found,) = outputs_to_groundings(outputs, batch)
    # An image of 192 x 96 on a square of 96: half its size, 24 pixels of grey on the left.
    assert found.boxes.tolist() == [[0, 0, 96, 192]] and found.scores[0] == pytest.approx(0.9)
    assert found.confidence["margin"] == pytest.approx(0.5)
    assert found.candidates["best of the chosen cell"].shape == (2, 4)
    assert found.candidates["best of the selected cells"].shape == (6, 4)
    assert found.candidates["likeliest object"].tolist() == [[24, 72, 72, 120]]


# --- what the detector saw ------------------------------------------------------------------------


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.npz"))


def cached(folder: Path, **changes) -> object:
    return tiny_refclip(replace(MODEL, cache=CacheConfig(folder=str(folder), **changes)))


def test_the_detector_looks_once_at_an_image(tmp_path):
    plain, model, batch = tiny_refclip().eval(), cached(tmp_path).train(), tiny_batch()
    with torch.no_grad():
        wanted = plain.detect(batch["image"])
    for hits in (0, 3):
        seen = model.detect(batch["image"])
        assert model.cache.hits == hits
        for ours, theirs in zip(seen, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    mixed = torch.cat([batch["image"][1:2], tiny_batch(1, seed=9)["image"]])
    torch.testing.assert_close(model.detect(mixed).boxes[0], wanted.boxes[1])
    assert len(files_in(tmp_path)) == 4


def test_an_image_with_several_expressions_is_looked_at_once(tmp_path):
    model, image = cached(tmp_path), tiny_batch(2)["image"]
    seen = model.detect(image[[0, 1, 0, 0]])
    assert (model.cache.hits, model.cache.misses) == (2, 2) and len(files_in(tmp_path)) == 2
    for part in seen:
        assert torch.equal(part[0], part[2]) and torch.equal(part[0], part[3])
        assert not torch.equal(part[0], part[1])


def test_another_detector_finds_nothing_of_the_first(tmp_path):
    model, image = cached(tmp_path), tiny_batch(1)["image"]
    before = model.detect(image)
    with torch.no_grad():
        model.visual_encoder.module_list[0].conv.weight.mul_(1.5)
    assert not torch.equal(model.detect(image).s8, before.s8) and len(files_in(tmp_path)) == 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.detect(image).s8.dtype == torch.float32
    assert len(files_in(tmp_path)) == 3


def test_the_cache_keeps_its_size(tmp_path):
    image = tiny_batch(3)["image"]
    one = sum(part[0].numel() * 4 for part in tiny_refclip().eval().detect(image))
    model = cached(tmp_path, gigabytes=2.5 * (one + 2000) / 1e9)
    model.detect(image)
    assert len(files_in(tmp_path)) == 2
    again = cached(tmp_path, gigabytes=2.5 * (one + 2000) / 1e9)
    again.detect(image)
    assert (again.cache.hits, again.cache.misses) == (2, 1) and len(files_in(tmp_path)) == 2


def test_half_precision_is_the_same_before_and_after(tmp_path):
    model, image = cached(tmp_path, half=True), tiny_batch(2)["image"]
    first, second = model.detect(image), model.detect(image)
    for ours, theirs in zip(first, second, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_cache_needs_a_detector_that_stays_as_it_is(tmp_path):
    moving = replace(MODEL.detector, batch_norm="train")
    with pytest.raises(ValueError, match=r"cache needs detector\.batch_norm: eval"):
        replace(MODEL, detector=moving, cache=CacheConfig(folder=str(tmp_path)))


# --- running mean ---------------------------------------------------------------------------------


def test_the_running_mean_starts_fast_and_is_put_in_and_taken_out():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), BatchNorm2d(1))
    average = WeightAverage(model, 0.9997)
    values = [model[0].weight.item()]
    for step, decay in enumerate((1 / 10, 2 / 11, 3 / 12)):
        with torch.no_grad():
            model[0].weight.fill_(step)
            model[1].num_batches_tracked += 1
        average.update(model)
        values.append(decay * values[-1] + (1 - decay) * step)
    assert average.mean["0.weight"].item() == pytest.approx(values[-1])
    assert average.mean["1.num_batches_tracked"].dtype == torch.int64
    with average.applied(model):
        assert model[0].weight.item() == pytest.approx(values[-1])
    assert model[0].weight.item() == 2


def test_the_running_mean_leaves_tables_of_positions_alone():
    model = nn.Linear(1, 1)
    model.register_buffer("position_ids", torch.arange(512), persistent=False)
    average = WeightAverage(model, 0.98)
    for _ in range(20):
        average.update(model)
    with average.applied(model):
        assert torch.equal(model.position_ids, torch.arange(512))


# --- several processes ----------------------------------------------------------------------------


def step_of(model: nn.Module, criterion: nn.Module, batch: dict) -> dict:
    module = distribute(TrainingStep(model, criterion), torch.device("cpu"), unused=False)
    total, _ = module(batch)
    total.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    buffers = {n: b.clone() for n, b in model.named_buffers() if "running" in n}
    return {"loss": total.detach(), "gradients": gradients, "buffers": buffers}


def one_of_two(folder: Path) -> None:
    torch.manual_seed(0)
    mine = slice(8 * utils.rank(), 8 * (utils.rank() + 1))
    found = {}
    for name, config in (("together", MODEL), ("by itself", each_by_itself())):
        model = tiny_refclip(config, seed=utils.rank()).train()  # made equal by the wrapper
        found[name] = step_of(model, tiny_criterion(config), rows_of(tiny_batch(16), mine))
    torch.save(found, folder / f"rank{utils.rank()}.pt")


def test_two_processes_with_8_samples_learn_as_one_with_16(tmp_path):
    start_group(one_of_two, tmp_path)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    one = step_of(tiny_refclip().train(), tiny_criterion(), tiny_batch(16))
    both = [rank["together"] for rank in ranks]
    torch.testing.assert_close((both[0]["loss"] + both[1]["loss"]) / 2, one["loss"])
    for rank in both:
        assert rank["gradients"].keys() == one["gradients"].keys()
        for kind in ("gradients", "buffers"):
            for name, value in one[kind].items():
                torch.testing.assert_close(rank[kind][name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_each_by_itself_is_the_mean_of_two_batches_of_8(tmp_path):
    start_group(one_of_two, tmp_path)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt")["by itself"] for rank in range(2)]
    halves = [
        step_of(tiny_refclip().train(), tiny_criterion(), rows_of(tiny_batch(16), slice(n, n + 8)))
        for n in (0, 8)
    ]
    for rank, half in zip(ranks, halves, strict=True):
        torch.testing.assert_close(rank["loss"], half["loss"])
        for name, gradient in rank["gradients"].items():
            mean = (halves[0]["gradients"][name] + halves[1]["gradients"][name]) / 2
            torch.testing.assert_close(gradient, mean, rtol=1e-3, atol=1e-5, msg=name)

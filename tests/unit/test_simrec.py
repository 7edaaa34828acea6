"""SimREC: network, assignment, loss, boxes, checkpoints, recipes; several processes as one."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.ops import box_convert, box_iou

from groundwork import utils
from groundwork.engine.snapshot import Position
from groundwork.engine.training import TrainingStep, distribute, seed_step
from groundwork.models.common import distributed
from groundwork.models.common.checkpoint import CheckpointError
from groundwork.models.common.word_system import load
from groundwork.models.simrec.build import SIMREC, build_criterion, build_model
from groundwork.models.simrec.config import (
    SimrecBackboneConfig,
    SimrecInitConfig,
    SimrecModelConfig,
    SimrecTextConfig,
)
from groundwork.models.simrec.criterion import SimRECCriterion, assign, canvas_shares, overlaps
from groundwork.models.simrec.fusion import CollectDiffuseAttention
from groundwork.models.simrec.model import SimREC
from groundwork.models.simrec.postprocess import choose, outputs_to_groundings
from tests.golden.golden_simrec import config_of
from tests.helpers.tiny_refclip import SIDE, VOCABULARY, rows_of, tiny_batch, tiny_refclip
from tests.helpers.tiny_runs import start_group

GOLDEN = Path(__file__).parents[1] / "golden"
MODEL = SimrecModelConfig(
    backbone=SimrecBackboneConfig(width=4, repeats=(1, 1, 1, 1), train_from=0),
    text=SimrecTextConfig(word_width=8, layers=1, heads=2, ffn=12, dropout=0.0, train_words=True),
    width=16, head_width=8,
)  # fmt: skip


def initialised(model, init) -> list:
    """What was loaded of the files that `init` names."""
    return SIMREC.initialise(model, SimpleNamespace(init=init), None)


def tiny_simrec(config: SimrecModelConfig = MODEL, *, seed: int = 0) -> SimREC:
    torch.manual_seed(seed)
    return build_model(config, VOCABULARY)


def batch_of(count: int = 3) -> dict:
    """As RefCLIP's, with a box in every image."""
    draw = torch.Generator().manual_seed(1)
    size = 0.3 + 0.3 * torch.rand(count, 2, generator=draw)
    centre = size / 2 + (1 - size) * torch.rand(count, 2, generator=draw)
    boxes = torch.cat([centre, size], dim=1)[:, None]
    return tiny_batch(count) | {"target_boxes": list(boxes)}


def cells_of(boxes: torch.Tensor, logit: float = 0.0) -> torch.Tensor:
    """(h, w, 4) -> a batch of one as the model gives it."""
    return torch.cat([boxes, torch.full_like(boxes[..., :1], logit)], dim=-1)[None]


# --- network --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["tiny", "base"])
def test_a_saved_file_has_the_published_keys_and_shapes_in_their_order(size):
    golden = json.loads((GOLDEN / f"simrec_keys_{size}.json").read_text())
    with torch.device("meta"):
        model = build_model(config_of(golden, text_heads=4, bn="train"), 26)
    written = {name: list(value.shape) for name, value in SIMREC.published_state(model).items()}
    assert list(written.items()) == list(golden.items())


def test_training_batches_are_resized_and_evaluated_ones_are_not():
    model, batch = tiny_simrec(replace(MODEL, train_sides=(64, 128))), batch_of()
    seen = {model.train()(batch)["cells"].shape[1:3] for _ in range(12)}
    assert seen == {(2, 2), (4, 4)}
    assert model.eval()(batch)["cells"].shape == (3, SIDE // 32, SIDE // 32, 5)


def test_all_processes_of_a_step_use_the_same_side_and_other_random_numbers(monkeypatch):
    model = tiny_simrec(replace(MODEL, train_sides=tuple(range(32, 320, 32)))).train()
    sides, others = [], []
    for rank in (0, 1):
        monkeypatch.setattr(utils, "rank", lambda rank=rank: rank)
        for step in range(16):
            seed_step(1, Position(epoch=2, step=step, global_step=100 + step))
            sides.append(model._resized(torch.zeros(1, 1, 32, 32)).shape[-1])
            others.append(torch.rand(()).item())
    assert sides[:16] == sides[16:] and len(set(sides)) > 4
    assert not set(others[:16]) & set(others[16:])


@pytest.mark.parametrize(("bn", "moves"), [("eval", False), ("train", True)])
def test_frozen_layers_keep_weights_and_unless_asked_their_statistics(bn, moves):
    backbone = replace(MODEL.backbone, train_from=8, batch_norm=bn)
    model = tiny_simrec(replace(MODEL, backbone=backbone)).train()
    criterion = build_criterion(MODEL)
    before = {name: b.clone() for name, b in model.visual_encoder.named_buffers()}
    sum(criterion(model(batch_of()), batch_of()).values()).backward()
    trained = {
        n.split(".")[1] for n, p in model.visual_encoder.named_parameters() if p.grad is not None
    }  # noqa: E501
    assert trained == {"8", "9"}
    for name, value in model.visual_encoder.named_buffers():
        still = torch.equal(value, before[name])
        assert still != (moves or name.startswith(("model.8", "model.9"))), name


def test_the_released_attention_exchanges_rows_and_columns():
    torch.manual_seed(0)
    ours = CollectDiffuseAttention(8, 2, 0.0).eval()
    theirs = CollectDiffuseAttention(8, 2, 0.0, transposed=True).eval()
    theirs.load_state_dict(ours.state_dict())
    maps, sentence = torch.randn(2, 8, 3, 3), torch.randn(2, 8)
    given = ours.w_o(ours.diffused(maps, sentence)) / math.sqrt(1 + ours.layer_norm.eps)
    slope = torch.nn.functional.leaky_relu
    torch.testing.assert_close(ours(maps, sentence), slope(maps + given, 0.1))
    torch.testing.assert_close(theirs(maps, sentence), slope(maps + given.mT, 0.1))


def test_dropout_of_the_attention_takes_a_cell_from_a_head_with_all_its_channels():
    torch.manual_seed(0)
    attention = CollectDiffuseAttention(12, 2, 0.5).train()
    given = attention.diffused(torch.randn(3, 12, 4, 4), torch.randn(3, 12))
    left_out = (given == 0).unflatten(1, (2, 6))  # (3, heads, channels of a head, 4, 4)
    assert torch.equal(left_out.any(dim=2), left_out.all(dim=2))
    assert 0.2 < left_out.float().mean() < 0.8


def test_every_cell_starts_with_the_objectness_that_is_configured():
    with torch.no_grad():
        usual, released = (
            tiny_simrec(replace(MODEL, objectness_prior=prior)).eval()(batch_of())["cells"]
            for prior in (0.01, None)
        )
    assert usual[..., 4].sigmoid().median().item() == pytest.approx(0.01, abs=0.01)
    assert released[..., 4].sigmoid().median().item() == pytest.approx(0.5, abs=0.2)


# --- assignment and loss --------------------------------------------------------------------------


def test_overlap_is_the_iou():
    boxes = torch.tensor([[[5.0, 5, 10, 10], [10, 5, 10, 10], [50, 50, 4, 4]]])[None]
    found = overlaps(boxes, torch.tensor([[5.0, 5, 10, 10]]))
    torch.testing.assert_close(found[0, 0], torch.tensor([1.0, 1 / 3, 0.0]))


def test_one_cell_at_least_finds_the_box_and_better_ones_come_first():
    grid = torch.zeros(6, 6, 4)
    grid[..., 2:] = 1.0  # far from every box
    target = torch.tensor([[80.0, 80.0, 40.0, 40.0]])
    positive = assign(grid[None], target)
    assert positive.sum() == 1 and positive[0, 2, 2]  # the only cell whose centre is inside
    grid[1:4, 1:4] = target[0]  # nine perfect cells near the centre
    assert assign(grid[None], target)[0, 1:4, 1:4].sum() == 9
    grid[:, :] = target[0]
    everywhere = assign(grid[None], target)
    assert everywhere.sum() == 10 and everywhere[0, 2, 2]
    assert not everywhere[0, 5].any()  # too far from the centre to be candidates


def test_of_equal_cells_the_first_ones_find_the_box():
    target = torch.tensor([[80.0, 80.0, 160.0, 160.0]])
    boxes = torch.tensor([80.0, 80.0, 80.0, 40.0]).repeat(1, 5, 5, 1)  # each overlaps by an eighth
    positive = assign(boxes, target).flatten()
    assert positive.nonzero().flatten().tolist() == [0]
    boxes[..., 2:] = torch.tensor([80.0, 80.0])  # by a quarter: ten of them make two
    assert assign(boxes, target).flatten().nonzero().flatten().tolist() == [0, 1]


def test_an_image_without_object_teaches_that_no_cell_has_one():
    criterion = SimRECCriterion({"loss_iou": 5.0, "loss_obj": 1.0})
    cells = cells_of(torch.full((2, 2, 4), 10.0))
    batch = {"image": torch.zeros(1, 3, 64, 64), "target_boxes": [torch.zeros(0, 4)],
             "resized": [(64, 64)], "offset": [(0, 0)]}  # fmt: skip
    losses = criterion({"cells": cells}, batch)
    assert losses["loss_iou"] == 0
    assert losses["loss_obj"].item() == pytest.approx(4 * math.log(2))


def test_targets_are_shares_of_the_square_and_follow_its_size():
    whole = torch.tensor([[0.5, 0.5, 1.0, 1.0]])
    batch = {"image": torch.zeros(1, 3, 128, 128), "target_boxes": [whole],
             "resized": [(128, 64)], "offset": [(32, 0)]}  # fmt: skip
    (share,) = canvas_shares(batch)
    assert share.tolist() == [[0.5, 0.5, 0.5, 1.0]]
    for side in (64, 128):
        whole = torch.tensor([side / 2, side / 2, side / 2, side])
        cells = cells_of(whole.repeat(side // 32, side // 32, 1), 20.0)
        weights = {"loss_iou": 5.0, "loss_obj": 1.0}
        assert SimRECCriterion(weights)({"cells": cells}, batch)["loss_iou"] < 1e-6
        cut = SimRECCriterion(weights, clip_targets=True)({"cells": cells}, batch)["loss_iou"]
        assert cut.item() == pytest.approx(1 - 0.99**2, abs=1e-3)


def test_it_learns_a_few_images():
    model, batch = tiny_simrec().train(), batch_of(4)
    criterion, optimizer = build_criterion(MODEL), torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        outputs = model(batch)
        losses = criterion(outputs, batch)
        optimizer.zero_grad()
        sum(criterion.weights[name] * loss for name, loss in losses.items()).backward()
        optimizer.step()
    _, boxes, _ = choose({"cells": outputs["cells"].detach()})
    target = torch.cat(canvas_shares(batch)).double() * SIDE
    assert box_iou(boxes, box_convert(target, "cxcywh", "xyxy")).diagonal().min() > 0.5


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision_gives_nearly_the_same_losses(precision):
    model, batch, criterion = tiny_simrec().eval(), batch_of(), build_criterion(MODEL)
    whole = criterion(model(batch), batch)
    with torch.autocast("cpu", dtype=precision):
        half = criterion(model(batch), batch)
    for name, loss in whole.items():
        assert half[name].item() == pytest.approx(loss.item(), rel=0.05)


# --- boxes ----------------------------------------------------------------------------------------


def test_the_box_of_the_likeliest_cell_comes_back_in_pixels_of_the_image():
    cells = cells_of(torch.zeros(3, 3, 4), -9.0)
    cells[0, 1, 2] = torch.tensor([48.0, 48.0, 24.0, 96.0, 2.0])
    cells[0, 0, 0, 4] = 1.0
    (found,) = outputs_to_groundings({"cells": cells}, rows_of(tiny_batch(1), slice(0, 1)))
    # 192 x 96 pixels lie as 96 x 48 in the middle of the square.
    np.testing.assert_allclose(found.boxes, [[24.0, 0.0, 72.0, 192.0]])
    assert found.scores[0] == pytest.approx(torch.tensor(2.0).sigmoid().item())
    assert found.confidence["margin"] == pytest.approx(0.8808 - 0.7311, abs=1e-4)
    assert found.mask is None and found.derived == {"point"}


def test_the_first_of_the_cells_that_are_certain_in_single_precision_is_taken():
    cells = cells_of(torch.ones(2, 2, 4), 0.0)
    cells[0, 0, 1, 4], cells[0, 1, 0, 4] = 18.0, 25.0
    cell, _, score = choose({"cells": cells})
    assert (cell.item(), score.item()) == (1, 1.0)


# --- checkpoints ----------------------------------------------------------------------------------


@pytest.fixture
def save(tmp_path):
    def write(content: object, name: str = "checkpoint.pth") -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return write


def test_a_released_file_comes_back_whole_from_one_or_several_gpus(save):
    state = SIMREC.published_state(tiny_simrec(seed=1))
    for prefix in ("", "module."):
        file = {
            "epoch": 25, "state_dict": {prefix + key: value for key, value in state.items()},
            "optimizer": {}, "scheduler": {}, "lr": 1e-6,
        }  # fmt: skip
        model = tiny_simrec()
        assert "Written after epoch 25" in str(load(model, save(file)))
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_backbone_comes_from_files_of_its_own_and_of_others(save):
    state = SIMREC.published_state(tiny_simrec(seed=1))
    inside = {k: v for k, v in state.items() if k.startswith("visual_encoder.")}
    flat = {k.removeprefix("visual_encoder."): v for k, v in inside.items()}
    uncounted = {k: v for k, v in flat.items() if not k.endswith("num_batches_tracked")}
    detector = flat | {"model.10.conv.weight": torch.zeros(2), "model.24.m.0.bias": torch.zeros(3)}
    for number, file in enumerate((state, inside, flat, uncounted, {"model": detector})):
        model = tiny_simrec()
        head = model.head.stems[0].conv.weight.clone()
        init = SimrecInitConfig(backbone=str(save(file, f"{number}.pth")))
        (report,) = initialised(model, init)
        ours = model.visual_encoder.model[8].cv1.conv.weight
        assert torch.equal(ours, flat["model.8.cv1.conv.weight"])
        assert torch.equal(model.head.stems[0].conv.weight, head)
        assert "validation and test images" in str(report)


def test_files_that_do_not_fit_are_named(save):
    model, other = tiny_simrec(), replace(MODEL, head_width=4)
    state = SIMREC.published_state(model)
    words = {**state, "lang_encoder.embedding.weight": torch.zeros(VOCABULARY + 1, 8)}
    missing = {key: value for key, value in state.items() if not key.startswith("head.")}
    for file, message in (
        (SIMREC.published_state(tiny_simrec(other)), "other shapes: head.reg_convs"),
        (words, f"its vocabulary has {VOCABULARY + 1} words"),
        (missing, "missing: head.reg_convs"),
        (dict(tiny_refclip().state_dict()), "It looks like a checkpoint of RefCLIP."),
    ):
        with pytest.raises(CheckpointError) as error:
            load(model, save(file))
        assert message in str(error.value)
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        load(model, save({"state_dict": state, "config": Path("x")}))
    with pytest.raises(CheckpointError, match="missing: model.0.conv"):
        initialised(model, SimrecInitConfig(backbone=str(save({"a": torch.zeros(1)}))))


# --- several processes ----------------------------------------------------------------------------


def step_of(model: SimREC, batch: dict) -> dict:
    step = TrainingStep(model, build_criterion(MODEL).train())
    module = distribute(step, torch.device("cpu"), unused=False)
    total, _ = module(batch)
    total.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None} | {
        "loss": total.detach()
    }


def test_found_cells_are_counted_over_all_processes_unless_each_is_by_itself(monkeypatch):
    monkeypatch.setattr(distributed, "sum_over_processes", lambda count: count + 6)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    positive = torch.ones(2, 2, dtype=torch.bool)
    for across, training, count in ((True, True, 5), (False, True, 4), (True, False, 4)):
        criterion = build_criterion(replace(MODEL, across_processes=across)).train(training)
        assert criterion._count(positive) == count


def one_of_two(folder: Path) -> None:
    mine = slice(4 * utils.rank(), 4 * (utils.rank() + 1))
    found = step_of(tiny_simrec(seed=utils.rank()).train(), rows_of(batch_of(8), mine))
    torch.save(found, folder / f"rank{utils.rank()}.pt")


def test_two_processes_with_4_samples_learn_as_one_with_8(tmp_path):
    start_group(one_of_two, tmp_path)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    one = step_of(tiny_simrec().train(), batch_of(8))
    torch.testing.assert_close((first.pop("loss") + second["loss"]) / 2, one.pop("loss"))
    assert first.keys() == one.keys()
    for name, gradient in one.items():
        torch.testing.assert_close(first[name], gradient, rtol=1e-3, atol=1e-4, msg=name)


def test_a_box_without_area_is_found_by_a_cell_and_no_object_by_none():
    boxes = torch.tensor([[[[16.0, 16.0, 20.0, 20.0]] * 6] * 6] * 2)
    found = assign(boxes, torch.tensor([[80.0, 80.0, 0.0, 12.0], [0.0, 0.0, 0.0, 0.0]]))
    assert found[0].sum() == 1 and not found[1].any()

"""Eight optimiser steps of three RefTR trainings, in float64, beside the published code's.

`trajectories_reftr.md` describes the recording.
"""

import json
import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from groundwork.models.common.checkpoint import LoadReport
from groundwork.models.reftr.build import build_criterion, build_model
from groundwork.models.reftr.checkpoint import fill
from groundwork.optim import create_optimizer
from groundwork.scheduler import apply_learning_rate, learning_rate
from groundwork.settings.optimisation import OptimizerConfig, ScheduleConfig
from tests.golden.golden_reftr import POSITION_IDS, GoldenRefTR
from tests.golden.named_weights import fill_state_dict

HERE = Path(__file__).parent
TRAININGS = ("rec", "res", "multi")
SCHEDULES = {"StepLR": "step", "MultiStepWarmupLR": "multistep", "CosineWarmupLR": "cosine"}
PARTS = ("img_backbone.0", "lang_backbone")
OF_MASKS = ("bbox_attention", "mask_head")
# A gradient below this share of the whole is zero in theory, and its direction float noise.
NOISE = 1e-12


class Trained(NamedTuple):
    """What a training left: per step its losses, the gradient norm and the rates of the groups."""

    model: nn.Module
    before: dict[str, torch.Tensor]
    first_norms: dict[str, float]
    losses: list[dict[str, float]]
    total: list[float]
    norms: list[float]
    rates: list[list[float]]


@cache
def golden() -> GoldenRefTR:
    with np.load(HERE / "reftr_tiny_trajectory.npz") as file:
        arrays = dict(file)
    keys = json.loads((HERE / "reftr_keys_tiny.json").read_text())
    return GoldenRefTR(arrays, json.loads(str(arrays["meta"])), keys)


def arrays_of(name: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(f"{name}/"): v for k, v in golden().arrays.items() if k.startswith(name)}


def draw_batch(name: str, step: int) -> dict:
    """The inputs of a step, drawn in the recorded order."""
    meta = golden().meta
    stream = np.random.RandomState(meta["seed"][name] + meta["offset"][name] + step)
    sizes = [tuple(size) for size in meta["image_sizes_hw"]]
    canvas = tuple(max(side) for side in zip(*sizes, strict=True))
    image = torch.zeros(len(sizes), 3, *canvas)
    padding = torch.ones(len(sizes), *canvas, dtype=torch.bool)
    for row, (height, width) in enumerate(sizes):
        drawn = stream.standard_normal((3, height, width)).astype(np.float32)
        image[row, :, :height, :width] = torch.from_numpy(drawn)
        padding[row, :height, :width] = False
    words = draw_words(stream, meta["sentence_length"][name], len(sizes))
    counts = stream.randint(1, 5, len(sizes)).tolist() if name == "multi" else [1] * len(sizes)
    batch = {"image": image.double(), "image_mask": padding, "resized": sizes, "size": sizes}
    batch |= words | {"phrase": ["one"] * sum(counts)}
    if name == "multi":
        batch |= draw_phrases(stream, words, counts)
    boxes = [
        np.concatenate([stream.uniform(0.3, 0.7, (n, 2)), stream.uniform(0.1, 0.5, (n, 2))], axis=1)
        for n in counts
    ]
    batch["target_boxes"] = [torch.from_numpy(b.astype(np.float32)).double() for b in boxes]
    if name == "res":
        batch["target_mask"] = ellipses(batch["target_boxes"], sizes, canvas)
    return batch


def draw_words(stream: np.random.RandomState, longest: int, rows: int) -> dict:
    lengths = stream.randint(longest // 2, longest + 1, rows)
    ids = torch.zeros(rows, longest, dtype=torch.long)
    for row, length in enumerate(lengths):
        ids[row, 1 : length - 1] = torch.from_numpy(stream.randint(5, 200, length - 2))
        ids[row, 0], ids[row, length - 1] = 2, 3
    mask = torch.arange(longest) < torch.from_numpy(lengths)[:, None]
    return {"text_ids": ids, "text_mask": mask.long()}


def draw_phrases(stream: np.random.RandomState, words: dict, counts: list[int]) -> dict:
    slots, longest = golden().meta["phrase_slots"], golden().meta["phrase_length"]
    shape = (len(counts), slots)
    ids = torch.zeros(*shape, longest, dtype=torch.long)
    ids[..., 0], ids[..., 1] = 2, 3
    lengths = torch.full(shape, 2)
    start, stop = torch.zeros(shape, dtype=torch.long), torch.ones(shape, dtype=torch.long)
    for row, count in enumerate(counts):
        length = int(words["text_mask"][row].sum())
        for slot in range(count):
            size = stream.randint(1, 5)
            first = stream.randint(1, length - 1 - size)
            ids[row, slot, 1 : size + 1] = words["text_ids"][row, first : first + size]
            ids[row, slot, size + 1] = 3
            lengths[row, slot] = size + 2
            start[row, slot], stop[row, slot] = first, first + size
    return {
        "phrase_text_ids": ids,
        "phrase_text_mask": (torch.arange(longest) < lengths[..., None]).long(),
        "phrase_start": start,
        "phrase_stop": stop,
        "phrase_valid": torch.arange(slots) < torch.tensor(counts)[:, None],
    }


def ellipses(boxes: list[torch.Tensor], sizes: list, canvas: tuple) -> torch.Tensor:
    """Target masks: the pixels of every box's ellipse, zero in the padding."""
    masks = torch.zeros(len(boxes), *canvas, dtype=torch.double)
    for row, (height, width) in enumerate(sizes):
        cx, cy, w, h = boxes[row][0].numpy() * [width, height, width, height]
        y, x = np.mgrid[:height, :width] + 0.5
        inside = ((x - cx) / (w / 2)) ** 2 + ((y - cy) / (h / 2)) ** 2 <= 1
        masks[row, :height, :width] = torch.from_numpy(inside)
    return masks


def settings_of(name: str) -> tuple[OptimizerConfig, ScheduleConfig]:
    given = golden().meta["trainings"][name]
    kind = SCHEDULES[given["lr_schedule"]]
    drops = given.get("lr_drop_epochs", [given["lr_drop"]] if "lr_drop" in given else [])
    factor = given["mask_factor"]
    optimizer = OptimizerConfig(
        lr=given["lr"],
        weight_decay=given["weight_decay"],
        rates=dict.fromkeys(PARTS, given["lr_backbone"]),
        factors=dict.fromkeys(OF_MASKS, factor) if name == "res" else {},
    )
    warmup = given.get("warm_up_epoch", 0)
    return optimizer, ScheduleConfig(
        name=kind, warmup_epochs=warmup, drop_epochs=tuple(drops), epochs=golden().meta["epochs"]
    )


def build(name: str) -> tuple[nn.Module, nn.Module]:
    """Model and criterion in training mode, float64, no dropout."""
    config = golden().config(name)
    config = replace(config, dropout=0.0, text=replace(config.text, dropout=0.0))
    model = build_model(config)
    shapes = {k: v for k, v in golden().layout(name).items() if k != POSITION_IDS}
    fill(model, fill_state_dict(shapes, salt=golden().meta["salt"]), LoadReport("golden"))
    return model.double().train(), build_criterion(config).train()


@cache
def train(name: str) -> Trained:
    meta, (model, criterion) = golden().meta, build(name)
    settings, schedule = settings_of(name)
    optimizer = create_optimizer(settings, model)
    parameters = dict(model.named_parameters())
    out = Trained(model, {k: p.detach().clone() for k, p in parameters.items()}, {}, [], [], [], [])
    for step in range(meta["epochs"] * meta["steps_per_epoch"]):
        per_epoch = meta["steps_per_epoch"]
        rate = learning_rate(schedule, settings, *divmod(step, per_epoch), per_epoch)
        apply_learning_rate(optimizer, rate)
        batch = draw_batch(name, step)
        losses = criterion(model(batch), batch)
        total = sum(criterion.weights[key] * losses[key] for key in criterion.weights)
        optimizer.zero_grad()
        total.backward()
        if not step:
            found = {k: p.grad for k, p in parameters.items() if p.grad is not None}
            out.first_norms.update({k: g.norm().item() for k, g in found.items()})
        out.norms.append(nn.utils.clip_grad_norm_(model.parameters(), meta["clip"]).item())
        optimizer.step()
        out.losses.append({key: loss.item() for key, loss in losses.items()})
        out.total.append(total.item())
        out.rates.append([group["lr"] for group in optimizer.param_groups])
    return out


@pytest.mark.parametrize("name", TRAININGS)
def test_losses_and_gradient_norms_of_every_step_are_the_published_ones(name):
    recorded, ours = arrays_of(name), train(name)
    losses = [[row[key] for key in recorded["loss_names"]] for row in ours.losses]
    np.testing.assert_allclose(losses, recorded["losses"], rtol=1e-6)
    np.testing.assert_allclose(ours.total, recorded["total"], rtol=1e-6)
    np.testing.assert_allclose(ours.norms, recorded["grad_norm"], rtol=1e-6)
    assert all(set(row) == set(recorded["loss_names"]) for row in ours.losses)


@pytest.mark.parametrize("name", TRAININGS)
def test_every_group_has_the_published_rate_in_every_step(name):
    recorded, ours = arrays_of(name)["rates"], np.array(train(name).rates)
    # Mask attention and mask head are groups of their own here, with one rate.
    columns = [0, 1, 2, 3, 3] if name == "res" else [0, 1, 2]
    np.testing.assert_allclose(ours, recorded[:, columns], rtol=1e-9)


@pytest.mark.parametrize("name", TRAININGS)
def test_what_is_trained_and_its_first_gradients_are_the_published_ones(name):
    recorded, ours = arrays_of(name), train(name)
    trained = [k for k, p in ours.model.named_parameters() if p.requires_grad]
    assert sorted(trained) == sorted(recorded["parameters"].tolist())
    frozen = ours.before.keys() - set(trained)
    assert sorted(frozen) == sorted(recorded["frozen"].tolist())
    norms = [ours.first_norms[key] for key in recorded["parameters"]]
    noise = NOISE * recorded["grad_norm"][0]
    np.testing.assert_allclose(norms, recorded["gradnorm_first"], rtol=1e-5, atol=noise)


@pytest.mark.parametrize("name", TRAININGS)
def test_eight_steps_move_every_parameter_as_published(name):
    recorded, ours = arrays_of(name), train(name)
    after = dict(ours.model.named_parameters())
    rows = zip(*(recorded[k] for k in ("parameters", "update_norm", "update_along")), strict=True)
    for key, norm, along in rows:
        update = (after[key] - ours.before[key]).detach().numpy()
        stream = np.random.RandomState(zlib.crc32(("direction" + key).encode()))
        mine = (update * stream.standard_normal(update.size).reshape(update.shape)).sum()
        assert np.linalg.norm(update) == pytest.approx(norm, rel=1e-5), key
        assert abs(mine - along) <= 1e-5 * max(abs(along), norm), key
    for key in recorded:
        if key.startswith("w/"):
            steps = tuple(slice(None, None, s) for s in golden().meta["strides"][key[2:]])
            weights = after[key[2:]].detach().float()[steps].numpy()
            np.testing.assert_allclose(weights, recorded[key], rtol=1e-5, atol=1e-7)

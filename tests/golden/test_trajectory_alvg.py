"""Eight steps of ALVG's training are the published ones, in double precision."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from configs.alvg import AlvgModelConfig, Beit3Config
from configs.referring import ReferringOptimizerConfig, ReferringScheduleConfig
from engine.training import Settings, Trainer, TrainingStep
from geometry import xyxy_to_cxcywh01
from models.alvg.build import build_criterion, build_model
from models.alvg.checkpoint import fill
from models.common.checkpoint import LoadReport
from optim import create_rated_optimizer
from scheduler import apply_learning_rate, stepwise_rate
from tests.golden import trajectory_inputs_alvg as inputs
from tests.golden.named_weights import fill_state_dict

GOLDEN = Path(__file__).parent
CONSTANT = "head.criterion.empty_weight"
TOLERANCE = 1e-5
# The mean is of the first task only; the rows name what the losses of a step add up to.
MEANS = {"rec": inputs.EMA, "grec": None}
PARTS = (
    ("loss_class", "loss_bbox", "loss_giou"),
    ("loss_mask", "loss_dice"),
    ("loss_decoder_attention",),
    ("loss_score_attention",),
)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / "alvg_tiny_trajectory.npz"))


def config_of(task: str) -> AlvgModelConfig:
    """The tiny network of the golden files without dropout and stochastic depth."""
    return AlvgModelConfig(
        encoder=Beit3Config(
            image_size=inputs.SIDE, patch_size=32, layers=3, width=64, heads=4, ffn=256,
            vocab_size=inputs.VOCABULARY, text_positions=1022, drop_path=0.0,
        ),
        compat="released", width=64, heads=8, ffn=128, query_ffn=96, mask_channels=32, dropout=0.0,
        queries=inputs.QUERIES[task], several_targets=task == "grec", masks=True,
        max_text_tokens=inputs.LENGTH,
    )  # fmt: skip


def model_of(config: AlvgModelConfig) -> nn.Module:
    keys = json.loads((GOLDEN / "alvg_keys_tiny.json").read_text())
    keys["head.query_embed.weight"][0] = config.queries
    counted = (CONSTANT, "num_batches_tracked")
    shapes = {key: shape for key, shape in keys.items() if not key.endswith(counted)}
    model = build_model(config)
    fill(model, fill_state_dict(shapes, salt=inputs.SALT), LoadReport("golden"))
    return model.double()


def batch_of(step: int, task: str) -> dict:
    image, ids, padding, boxes, masks = inputs.step_inputs(step, task)
    side = (inputs.SIDE, inputs.SIDE)
    targets = [torch.from_numpy(xyxy_to_cxcywh01(one.numpy(), side)) for one in boxes]
    return {
        "image": image.double(),
        "text_ids": ids,
        "text_mask": 1 - padding,
        "target_boxes": targets,
        "target_mask": torch.stack([one.any(dim=0) for one in masks]),
        "target_masks": masks,
    }


@dataclass
class Trajectory:
    """What a run leaves: the rows of its steps as recorded; states before the first and after the
    last step, and the running mean's after it."""

    rows: list[list[float]] = field(default_factory=list)
    first: dict[str, Tensor] = field(default_factory=dict)
    last: dict[str, Tensor] = field(default_factory=dict)
    mean: dict[str, Tensor] = field(default_factory=dict)

    def moved(self, name: str) -> list[float]:
        """Norms of last - first, mean - first, last, last - mean."""
        first, last, mean = self.first[name], self.last[name], self.mean[name]
        return [float(one.norm()) for one in (last - first, mean - first, last, last - mean)]


def run(task: str) -> Trajectory:
    """Train as `engine` does."""
    config = config_of(task)
    model, criterion = model_of(config), build_criterion(config)
    found, norms, device = Trajectory(first=copy_of(model)), [], torch.device("cpu")
    rates = ReferringOptimizerConfig(
        lr=inputs.LR, weight_decay=0, betas=inputs.BETAS, eps=inputs.EPS, amsgrad=True,
        rates={"vis_enc": inputs.LR_VIS_ENC},
    )  # fmt: skip
    schedule = ReferringScheduleConfig(
        name="epochs", warmup_epochs=inputs.WARMUP_EPOCHS, drop_epochs=inputs.DROPS
    )
    optimizer = create_rated_optimizer(rates, model)
    settings = Settings(seed=0, clip_norm=inputs.CLIP, ema=MEANS[task])
    trainer = Trainer(model, {}, settings, snapshots=None, log=None, device=device)  # type: ignore[arg-type]
    module = TrainingStep(model.train(), criterion.train())
    with norms_into(norms):
        for step in range(inputs.STEPS):
            rate = stepwise_rate(schedule, rates, step, inputs.STEPS_PER_EPOCH, inputs.EPOCHS)
            apply_learning_rate(optimizer, rate)
            losses = trainer.train_step(module, optimizer, [batch_of(step, task)])
            parts = [weighted(losses, criterion.weights, names) for names in PARTS]
            encoder_rate = rate * inputs.LR_VIS_ENC / inputs.LR
            found.rows.append([float(losses["loss"]), *parts, norms[-1], encoder_rate, rate])
    found.last = found.mean = copy_of(model)
    if trainer.average is not None:
        with trainer.average.applied(model):
            found.mean = copy_of(model)
    return found


def weighted(losses: dict[str, Tensor], weights: dict[str, float], names: tuple[str, ...]) -> float:
    """The part of the total that these losses are, of all decoder layers."""
    return sum(float(losses[key]) * weights[key] for key in weights if key.startswith(names))


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@contextlib.contextmanager
def norms_into(norms: list[float]) -> Iterator[None]:
    """Every gradient norm before clipping is appended."""
    clip = nn.utils.clip_grad_norm_

    def noting(*arguments, **options) -> Tensor:
        norms.append(float(norm := clip(*arguments, **options)))
        return norm

    with mock.patch.object(nn.utils, "clip_grad_norm_", noting):
        yield


def close(ours, theirs: np.ndarray, what: str) -> None:
    largest = float(np.abs(theirs).max())
    np.testing.assert_allclose(
        ours, theirs, rtol=TOLERANCE, atol=TOLERANCE * largest, err_msg=what
    )


@pytest.mark.parametrize("task", MEANS)
def test_eight_steps_are_the_published_ones(arrays, task):
    found = run(task)
    own = {k.removeprefix(f"{task}/"): v for k, v in arrays.items() if k.startswith(task)}
    close(np.array(found.rows), own["rows"], "rows")
    for prefix, state in (("w/", found.last), ("ema/", found.mean)):
        for name in (name for name in own if name.startswith(prefix)):
            close(state[name.removeprefix(prefix)].numpy(), own[name], name)
    for name, theirs in zip(own["names"].tolist(), own["moved"], strict=True):
        # A share of what it moved, and no less than rounding leaves of a weight that stands still.
        np.testing.assert_allclose(
            found.moved(name), theirs, rtol=TOLERANCE, atol=1e-8, err_msg=name
        )
    still = set(own["trainable"].tolist()) - set(own["names"].tolist())
    assert still and all(name.startswith(inputs.UNUSED) for name in still)

"""Eight steps of ALVG's training are the published ones, in double precision."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from groundwork.geometry import xyxy_to_cxcywh01
from groundwork.models.alvg.build import build_criterion, build_model
from groundwork.models.alvg.checkpoint import fill
from groundwork.models.alvg.config import AlvgModelConfig, Beit3Config
from groundwork.models.common.checkpoint import LoadReport
from groundwork.settings.optimisation import OptimizerConfig, ScheduleConfig
from tests.golden import trajectory_inputs_alvg as inputs
from tests.golden.named_weights import fill_state_dict
from tests.golden.trajectories import check_weights, close, run

GOLDEN = Path(__file__).parent
CONSTANT = "head.criterion.empty_weight"
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


def weighted(losses: dict[str, float], weights: dict[str, float], names: tuple[str, ...]) -> float:
    """The part of the total that these losses are, of all decoder layers."""
    return sum(losses[key] * weights[key] for key in weights if key.startswith(names))


@pytest.mark.parametrize("task", MEANS)
def test_eight_steps_are_the_published_ones(arrays, task):
    config = config_of(task)
    criterion = build_criterion(config)
    rates = OptimizerConfig(
        lr=inputs.LR, weight_decay=0, betas=inputs.BETAS, eps=inputs.EPS, amsgrad=True,
        rates={"vis_enc": inputs.LR_VIS_ENC},
    )  # fmt: skip
    schedule = ScheduleConfig(
        name="epochs",
        warmup_epochs=inputs.WARMUP_EPOCHS,
        drop_epochs=inputs.DROPS,
        epochs=inputs.EPOCHS,
    )
    batches = (batch_of(step, task) for step in range(inputs.STEPS))
    found = run(
        model_of(config), criterion, batches, inputs,
        rates=rates, schedule=schedule, ema=MEANS[task],
    )  # fmt: skip
    totals = [losses["loss"] for losses in found.losses]
    parts = [[weighted(row, criterion.weights, names) for row in found.losses] for names in PARTS]
    encoder = [rate * inputs.LR_VIS_ENC / inputs.LR for rate in found.rates]
    rows = np.array([totals, *parts, found.norms, encoder, found.rates]).T
    own = {k.removeprefix(f"{task}/"): v for k, v in arrays.items() if k.startswith(task)}
    close(rows, own["rows"], "rows")
    check_weights(found, own, inputs.UNUSED)

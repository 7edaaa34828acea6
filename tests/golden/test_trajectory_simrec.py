"""Eight steps of SimREC's training are the published ones, in double precision."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from groundwork.models.common.checkpoint import LoadReport
from groundwork.models.common.word_system import fill
from groundwork.models.simrec.build import build_criterion, build_model
from groundwork.models.simrec.model import SimREC
from tests.golden import trajectory_inputs_simrec as inputs
from tests.golden.golden_simrec import config_of
from tests.golden.trajectories import check_weights, close
from tests.golden.trajectory_word_systems import keys_of, run, weights_of


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return dict(np.load(Path(__file__).parent / "simrec_tiny_trajectory.npz"))


def batches(model: SimREC) -> Iterator[dict]:
    """Before each the model is told the side of its step."""
    for step in range(inputs.STEPS):
        image, ids, boxes = inputs.step_inputs(step)
        model.train_sides = (inputs.SIDES[step % len(inputs.SIDES)],)
        yield {
            "image": image.double(),
            "text_ids": ids,
            "target_boxes": [box if box.any() else torch.zeros(0, 4) for box in boxes],
            "resized": [(inputs.SIDE, inputs.SIDE)] * inputs.BATCH,
            "offset": [(0, 0)] * inputs.BATCH,
        }


def test_eight_steps_are_the_published_ones(arrays):
    keys = keys_of("simrec", inputs.VOCABULARY)
    config = config_of(keys, text_heads=4, bn="train")
    model, criterion = build_model(config, inputs.VOCABULARY), build_criterion(config)
    fill(model, weights_of(keys, inputs.SALT), LoadReport("golden"))
    counts, count = [], criterion._count
    criterion._count = lambda positive: counts.append(int(positive.sum())) or count(positive)
    found = run(model.double(), criterion, batches(model), inputs)
    losses = [[row[name] for row in found.losses] for name in ("loss", "loss_iou", "loss_obj")]
    columns = (*losses, counts, found.norms, found.rates, found.decays)
    for ours, theirs in zip(columns, arrays["rows"].T, strict=True):
        close(ours, theirs, "rows")
    check_weights(found, arrays, inputs.UNUSED)

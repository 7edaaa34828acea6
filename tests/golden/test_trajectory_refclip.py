"""Eight steps of RefCLIP's training are the published ones, in double precision."""

from pathlib import Path

import numpy as np
import pytest

from groundwork.models.common.checkpoint import LoadReport
from groundwork.models.common.word_system import fill
from groundwork.models.refclip.build import build_criterion, build_model
from tests.golden import trajectory_inputs_refclip as inputs
from tests.golden.golden_refclip import config_of
from tests.golden.trajectories import check_weights, close
from tests.golden.trajectory_word_systems import keys_of, run, weights_of


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return dict(np.load(Path(__file__).parent / "refclip_tiny_trajectory.npz"))


def batches():
    for step in range(inputs.STEPS):
        image, ids = inputs.step_inputs(step)
        yield {"image": image.double(), "text_ids": ids}


@pytest.mark.parametrize("variant", inputs.VARIANTS)
def test_eight_steps_are_the_published_ones(arrays, variant):
    keys = keys_of("refclip", inputs.VOCABULARY)
    config = config_of(keys, heads=4, cells=inputs.CELLS, bn=variant)
    model = build_model(config, inputs.VOCABULARY)
    fill(model, weights_of(keys, inputs.SALT), LoadReport("golden"))
    found = run(model.double(), build_criterion(config), batches(), inputs)
    losses = [row["loss"] for row in found.losses]
    columns = (losses, found.norms, found.rates, found.decays)
    for ours, theirs in zip(columns, arrays[f"{variant}/rows"].T, strict=True):
        close(ours, theirs, "rows")
    own = {k.removeprefix(f"{variant}/"): v for k, v in arrays.items()}
    check_weights(found, own, inputs.UNUSED)

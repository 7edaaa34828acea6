"""The benchmark of step costs measures every system that it names, and says what it measured."""

import json

import pytest

from groundwork.experiments import base_step
from tests.helpers.script_runs import CONFIGS


@pytest.mark.parametrize("config", ["tiny/alvg/refcoco+", "tiny/Pretrain_vg_amc"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_recipe_is_measured_forwards_and_in_training(config, precision, embedded, tmp_path):
    call = ["--config", str(CONFIGS / f"{config}.yaml"), "--batch", "2", "--steps", "1"]
    call += ["--precision", precision, "--out", str(tmp_path)]
    row = base_step.main([*call, "--set", f"roots.embedded={embedded}"])
    (written,) = tmp_path.glob("*.json")
    assert json.loads(written.read_text()) == row
    assert row["pixels"] == 64 and row["precision"] == precision
    assert 0 < row["forward_seconds"] and 0 < row["step_seconds"]
    assert row["loss"] == row["loss"], "not a number"

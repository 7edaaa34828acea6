"""RefTR's recipes have the published groups, learning rates, epochs and batches.

The numbers are those of `golden/trajectories_reftr.md`: published parameter groups and schedulers,
100 iterations per epoch.
"""

import pytest
import torch

from groundwork.models.reftr.build import build_model
from groundwork.optim import create_optimizer
from groundwork.scheduler import apply_learning_rate, learning_rate
from groundwork.settings import load_config
from tests.helpers.script_runs import CONFIGS

STEPS = 100
COSINE = {
    0: 1e-6, 1: 1e-6, 50: 1.02e-5, 99: 2e-5, 300: 6.02e-5, 499: 1e-4, 500: 1e-4, 1000: 9.79746e-5,
    3000: 5.71157e-5, 3250: 5e-5, 4000: 2.92292e-5, 5500: 2.02535e-6, 5800: 1e-6, 5999: 1e-6,
}  # fmt: skip
WARM = {
    0: 1e-6, 1: 1e-6, 50: 1.7e-5, 99: 3.33333e-5, 100: 3.36667e-5, 199: 6.66667e-5, 299: 1e-4,
    300: 1e-4, 599: 1e-4, 600: 1e-5, 1499: 1e-5,
}  # fmt: skip


def drop(at: int, end: int, rate: float = 1e-4) -> dict[int, float]:
    """A tenth of the rate from an iteration on."""
    return {0: rate, at - 1: rate, at: rate / 10, end - 1: rate / 10}


LONG = (90, 8, drop(6000, 9000))
MASKS = (40, 8, drop(3000, 4000, 1e-5))
RECIPES = {  # recipe -> epochs, batch per process, iteration -> rate of the main group
    "flickr30k": (60, 16, COSINE),
    "flickr30k_roberta": (60, 16, drop(4000, 6000)),
    "flickr30k_pt": (40, 8, drop(3000, 4000)),
    "refcoco": LONG,
    "refcoco+": LONG,
    "refcocog_umd": LONG,
    "refcocog_google": LONG,
    "referit": LONG,
    "referit_pt": LONG,
    "refcoco_res": MASKS,
    "refcoco+_res": MASKS,
    "refcocog_umd_res": MASKS,
    "refcocog_google_res": MASKS,
    "vg": (15, 32, WARM),
}


def settings_of(name: str, *overrides: str):
    return load_config(CONFIGS / "reftr" / f"{name}.yaml", overrides)


def groups_of(config) -> torch.optim.Optimizer:
    """The optimiser of a model that takes no memory."""
    with torch.device("meta"):
        return create_optimizer(config.optimizer, build_model(config.model))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_as_published(name):
    config, (epochs, batch, rates) = settings_of(name), RECIPES[name]
    optimizer = groups_of(config)
    assert (config.epochs, config.batch_size, config.accumulate) == (epochs, batch, 1)
    assert (config.clip_norm, config.ema, config.precision) == (0.1, None, "fp32")
    for group in optimizer.param_groups:
        assert (group["betas"], group["eps"]) == ((0.9, 0.999), 1e-8)
        assert (group["weight_decay"], group["amsgrad"]) == (1e-4, False)
    # The networks' rate is a tenth of the main one, and in a stage of masks the same.
    shares = [1, 1, 1, 10, 10] if config.model.masks else [1, 0.1, 0.1]
    for step, rate in rates.items():
        main = learning_rate(config.schedule, config.optimizer, *divmod(step, STEPS), STEPS)
        apply_learning_rate(optimizer, main)
        expected = [share * rate for share in shares]
        # The table has six digits.
        assert [g["lr"] for g in optimizer.param_groups] == pytest.approx(expected, rel=1e-5), step


@pytest.mark.parametrize(
    ("name", "overrides", "tensors"),
    [
        ("refcoco", (), [230, 42, 199]),
        ("refcoco", ("model.backbone.name=resnet101",), [230, 93, 199]),
        ("refcoco_res", (), [230, 42, 199, 32]),
        ("refcoco_res", ("model.backbone.name=resnet101",), [230, 93, 199, 32]),
        ("referit", (), [176, 42, 199]),
    ],
)
def test_the_groups_hold_the_published_tensors(name, overrides, tensors):
    config = settings_of(name, *overrides)
    found = [len(group["params"]) for group in groups_of(config).param_groups]
    # Mask attention and mask head are groups of their own here.
    assert [*found[:3], *[sum(found[3:])] * (len(found) > 3)] == tensors


def test_the_main_rate_moves_the_mask_branch_alone():
    config = settings_of("refcoco_res", "optimizer.lr=2e-5")
    rates = [group["lr"] for group in groups_of(config).param_groups]
    assert rates == pytest.approx([2e-5, 1e-5, 1e-5, 2e-4, 2e-4])

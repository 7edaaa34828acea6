"""Several optimiser steps of AMC and of SelfEQ, beside those of the published training loops."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from groundwork.models.albef.criterion import ObjectiveList
from groundwork.models.albef.model import MomentumALBEF
from groundwork.models.albef.objectives import (
    AttentionMaskConsistency,
    ImageTextLosses,
    SelfConsistency,
)
from groundwork.optim import create_optimizer
from groundwork.scheduler import apply_learning_rate, learning_rate
from groundwork.settings.optimisation import OptimizerConfig, ScheduleConfig
from tests.conftest import load_golden
from tests.golden import trajectory_inputs as inputs
from tests.golden.golden_albef import WEIGHTS, GoldenALBEF

HERE = Path(__file__).parent
IMAGE_TEXT = ("loss_mlm", "loss_ita", "loss_itm")
AMC = (*IMAGE_TEXT, "loss_amc_mean", "loss_amc_max")
SELFEQ = ("loss_syn_mlm", "loss_syn_ita", "loss_syn_itm", "loss_sim_syn", "loss_cst_syn")
adamw = partial(OptimizerConfig, decay="matrices")
cosine = partial(ScheduleConfig, name="cosine_epochs")


def objectives(*names: str) -> ObjectiveList:
    image_text = ImageTextLosses(inputs.hide, alpha=inputs.ALPHA, mlm_distill_over="tokens")
    known = {
        "itc_itm_mlm": image_text,
        "amc": AttentionMaskConsistency(mean_over="batch"),
        "selfeq": SelfConsistency(image_text),
    }
    return ObjectiveList({name: known[name] for name in names}, WEIGHTS)


def batch_of_regions(step: int, base: int) -> dict:
    image, ids, mask, region = inputs.step_inputs(step, base)
    nothing = torch.zeros(0, 1, dtype=torch.long)
    return {
        "image": image, "text_ids": ids, "text_mask": mask,
        "paraphrase_index": torch.zeros(0, dtype=torch.long),
        "paraphrase_ids": nothing, "paraphrase_mask": nothing,
        "region_index": torch.arange(2), "region_mask": region,
    }  # fmt: skip


def batch_of_paraphrases(step: int, base: int) -> dict:
    image, ids, mask, other_ids, other_mask = inputs.relation_inputs(step, base + 4000)
    return {
        "image": image, "text_ids": ids, "text_mask": mask,
        "paraphrase_index": torch.tensor([0, 2]),
        "paraphrase_ids": other_ids, "paraphrase_mask": other_mask,
        "region_index": torch.zeros(0, dtype=torch.long), "region_mask": torch.zeros(0, 256, 256),
    }  # fmt: skip


def plan(objective: str) -> list[SimpleNamespace]:
    """An entry per epoch: criterion, names of its losses, batches, steps, optimiser."""
    run = (adamw(**inputs.LR), cosine(**inputs.SCHED))
    if objective == "amc":
        both = objectives("itc_itm_mlm", "amc")
        return [
            SimpleNamespace(criterion=both, losses=AMC, batch=batch_of_regions, steps=n, of=run)
            for n in inputs.EPOCHS
        ]
    own = (adamw(**inputs.SYN_LR), cosine(**inputs.SYN_SCHED))
    first, *later = inputs.SYN_EPOCHS
    plain = objectives("itc_itm_mlm")
    return [
        SimpleNamespace(
            criterion=objectives("selfeq"), losses=SELFEQ, batch=batch_of_paraphrases,
            steps=first, of=own,
        ),
        *(
            SimpleNamespace(
                criterion=plain, losses=IMAGE_TEXT, batch=batch_of_regions, steps=n, of=run
            )
            for n in later
        ),
    ]  # fmt: skip


def trained(arrays: dict[str, np.ndarray], meta: dict) -> tuple[np.ndarray, MomentumALBEF]:
    """The rows of the golden file and the model after the last step."""
    golden, golden_meta = load_golden(HERE / "amc_tiny.npz")
    layout = json.loads((HERE / "amc_tiny_keys.json").read_text())
    model = GoldenALBEF(golden, golden_meta | {"salt": meta["salt"]}, layout).training_model()
    epochs, rows, total_steps = plan(meta["objective"]), [], 0
    optimizers = {id(epoch.of): create_optimizer(epoch.of[0], model) for epoch in epochs}
    for number, epoch in enumerate(epochs):
        settings, schedule = epoch.of
        optimizer = optimizers[id(epoch.of)]
        for step in range(epoch.steps):
            rate = learning_rate(schedule, settings, number, step, epoch.steps)
            apply_learning_rate(optimizer, rate)
            epoch.criterion.start_step(number, step, epoch.steps)
            batch = epoch.batch(total_steps, meta["base"])
            losses = epoch.criterion(model(batch), batch)
            total = sum(WEIGHTS[name] * losses[name] for name in epoch.losses)
            total.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            values = [losses[name].item() for name in epoch.losses]
            rows.append([*values, *[0.0] * (5 - len(values)), total.item(), rate])
            total_steps += 1
    assert set(arrays) == {"meta", "rows", "ptr", *(f"w/{n}" for n in weights_of(arrays))}
    return np.array(rows), model


def weights_of(arrays: dict[str, np.ndarray]) -> list[str]:
    return [name.removeprefix("w/") for name in arrays if name.startswith("w/")]


@pytest.mark.parametrize("file", ["amc_tiny_trajectory", "selfeq_tiny_trajectory"])
def test_losses_rates_and_weights_follow_the_published_ones(file):
    arrays, meta = load_golden(HERE / f"{file}.npz")
    rows, model = trained(arrays, meta)
    np.testing.assert_allclose(rows, arrays["rows"], rtol=1e-5, atol=1e-6)
    state = model.state_dict()
    for name in weights_of(arrays):
        golden = arrays[f"w/{name}"]
        np.testing.assert_allclose(
            state[name].numpy(), golden, rtol=0, atol=1e-4 * np.abs(golden).max(), err_msg=name
        )
    assert int(model.queue_ptr_img) == int(model.queue_ptr_txt) == int(arrays["ptr"][0])

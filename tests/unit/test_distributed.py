"""Two processes on the CPU (gloo) train one model: equal losses, gradients, weights, queues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import yaml
from torch import nn

from groundwork import utils
from groundwork.engine.distribution import distribute
from groundwork.engine.log import RunLog
from groundwork.engine.preemption import Preemption
from groundwork.engine.snapshot import Snapshots
from groundwork.engine.training import (
    Settings,
    Stage,
    Trainer,
    TrainingStep,
    Validation,
)
from tests.helpers.fork_server import addresses
from tests.helpers.tiny_albef import ALL, rows_of, tiny_batch, tiny_criterion, tiny_model
from tests.helpers.tiny_runs import start, start_group, train, write_config

BATCH = 6


def global_batches() -> list[dict]:
    return [tiny_batch([True] * 2 * BATCH, seed=seed) for seed in (1, 2)]


def half(batch: dict, rank: int) -> dict:
    return rows_of(batch, slice(rank * BATCH, (rank + 1) * BATCH))


def state_after_step(model, losses: torch.Tensor) -> dict:
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    queues = {"image": model.image_queue.clone(), "text": model.text_queue.clone()}
    return {"losses": losses, "gradients": gradients, "queues": queues}


def itc_of_one_rank(folder: Path) -> None:
    model = tiny_model(seed=utils.rank())  # scripts seed every process differently
    criterion = tiny_criterion("itc_itm_mlm")
    criterion.weights = dict.fromkeys(criterion.weights, 0.0) | {"loss_ita": 1.0}
    module = distribute(TrainingStep(model, criterion), torch.device("cpu"))
    found = []
    for batch in global_batches():
        model.zero_grad()
        total, _ = module(half(batch, utils.rank()))
        total.backward()
        found.append(state_after_step(model, total.detach()))
    torch.save(found, folder / f"rank{utils.rank()}.pt")


def itc_of_one_process() -> list[dict]:
    """The same steps in one process, which sees both halves of each global batch.

    As in the released rule, the candidates of a rank are its own batch and the queue: the gradient
    is the mean over the halves, and the queue moves once by the whole global batch.
    """
    model = tiny_model()
    criterion, enqueue = tiny_criterion("itc_itm_mlm"), model.enqueue
    found, features = [], []
    model.enqueue = lambda *of_half: features.append(of_half)
    for batch in global_batches():
        model.zero_grad()
        losses = []
        for rank, momentum in enumerate((0.995, 1.0)):
            model.momentum = momentum  # the twin moves once per step, not per half
            losses.append(criterion(model(half(batch, rank)), batch)["loss_ita"])
            (losses[rank] / 2).backward()
        enqueue(*map(torch.cat, zip(*features, strict=True)))
        features.clear()
        found.append(state_after_step(model, torch.stack(losses).detach()))
    return found


def test_itc_of_two_processes_is_that_of_one_on_the_same_global_batch(tmp_path):
    start_group(itc_of_one_rank, tmp_path)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    for step, one in enumerate(itc_of_one_process()):
        both = [rank[step] for rank in ranks]
        torch.testing.assert_close(torch.stack([rank["losses"] for rank in both]), one["losses"])
        for rank in both:
            torch.testing.assert_close(rank["queues"], one["queues"])
            assert rank["gradients"].keys() >= one["gradients"].keys()
            for name, gradient in one["gradients"].items():
                torch.testing.assert_close(
                    rank["gradients"][name], gradient, rtol=1e-4, atol=1e-6, msg=name
                )


def uneven_batch(step: int, rank: int) -> dict:
    """Over the steps: both ranks, one of them, or none has paraphrases, and likewise regions."""
    paraphrased = bool((step >> rank) & 1)
    regions = bool((step >> (rank + 2)) & 1)
    return tiny_batch(
        [paraphrased, False, paraphrased],
        regions=[False, regions, False],
        seed=100 * step + rank,
    )


def train_on_uneven_batches(folder: Path, objectives: tuple[str, ...]) -> None:
    model = tiny_model(seed=utils.rank()).train()  # scripts seed every process differently
    model.momentum = 0.5
    trainer = Trainer(
        model,
        optimizers := {"run": torch.optim.AdamW(model.parameters(), lr=1e-2)},
        Settings(seed=0, clip_norm=1.0),
        snapshots=Snapshots(folder, {}, export=dict, restore_model=dict),
        log=RunLog(folder, 1, 1),
        device=torch.device("cpu"),
    )
    module = distribute(TrainingStep(model, tiny_criterion(*objectives)), torch.device("cpu"))
    for step in range(20):
        torch.manual_seed(10 * step + utils.rank())
        batch = uneven_batch(step, utils.rank())
        trainer.train_step(module, optimizers["run"], [batch])
    torch.save(model.state_dict(), folder / f"rank{utils.rank()}.pt")


@pytest.mark.parametrize("objectives", [ALL, ("selfeq",), ("amc",)], ids="+".join)
def test_ranks_stay_equal_when_only_one_has_paraphrases_or_regions(tmp_path, objectives):
    start_group(train_on_uneven_batches, tmp_path, objectives)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    for name, value in first.items():
        assert torch.equal(second[name], value), f"{name} differs between the ranks"
    assert not torch.equal(first["itm_head.weight"], tiny_model(seed=0).itm_head.weight)


class Batches(list):
    """Two batches as a loader with its sampler."""

    steps_per_epoch = 2

    @property
    def sampler(self) -> Batches:
        return self

    def set_epoch(self, epoch: int, start_batch: int) -> None:
        """There is one epoch."""


class Spread(nn.Module):
    weights: ClassVar = {"loss": 1.0}

    def start_step(self, epoch: int, step: int, steps: int) -> None:
        """Nothing depends on it."""

    def forward(self, outputs: torch.Tensor, _batch: dict) -> dict:
        return {"loss": outputs.square().mean()}


class Normalised(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))

    def forward(self, batch: dict) -> torch.Tensor:
        return self.layer(batch["image"])


def validate_a_model_with_batch_norm(folder: Path) -> None:
    seen = {}

    def run(_epochs: int, _preemption: Preemption) -> dict[str, float]:
        seen["mean"] = model.layer[1].running_mean.clone()
        return {"metric": 1.0}

    torch.manual_seed(utils.rank())
    images = [torch.randn(8, 3) + utils.rank() for _ in range(2)]
    batches = Batches([{"image": image, "corrupt": 0, "faults": []} for image in images])
    model = Normalised()
    module = distribute(TrainingStep(model, Spread()), torch.device("cpu"))
    trainer = Trainer(
        model,
        {"run": torch.optim.SGD(model.parameters(), lr=0.1)},
        Settings(seed=0, ema=0.5),
        snapshots=Snapshots(folder, {}, export=lambda m: m.state_dict(), restore_model=dict),
        log=RunLog(folder, 1, 1),
        device=torch.device("cpu"),
        validation=Validation(run=run, best={"checkpoint_best.pth": "metric"}),
    )
    stage = Stage(
        name="one",
        criterion=Spread(),
        loader=batches,
        optimizer_name="run",
        learning_rate=lambda *_: 0.1,
        epochs=1,
    )
    trainer.train_epoch(stage, module)
    torch.save(seen["mean"], folder / f"rank{utils.rank()}.pt")


def test_ranks_validate_with_the_statistics_that_are_saved(tmp_path):
    start_group(validate_a_model_with_batch_norm, tmp_path)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    saved = torch.load(tmp_path / "checkpoint_best.pth")["model"]["layer.1.running_mean"]
    assert torch.equal(first, second) and torch.equal(first, saved)


def test_a_run_of_two_processes_is_resumed_by_one(tmp_path, tiny_data):
    stages = [{"objective": ["itc_itm_mlm", "amc"], "epochs": 2, "steps": 3}]
    config = write_config(tmp_path / "run.yaml", tiny_data, stages=stages)
    argv, run = ["--config", str(config)], tmp_path / "run"
    ranks = [start(train, argv, run, address) for address in addresses(2)]
    for process in ranks:
        process.join(100)
    assert [process.exitcode for process in ranks] == [0, 0], (tmp_path / "run.err").read_text()
    assert json.loads((tmp_path / "run/manifest.json").read_text())["world_size"] == 2
    lines = (tmp_path / "run/log.txt").read_text().splitlines()
    (tmp_path / "run/checkpoint_01.pth").unlink()
    size = yaml.safe_load(config.read_text())["batch_size"]
    command = [*argv, "--resume", "--set"]
    process = start(train, [*command, f"batch_size={4 * size}"], run)
    process.join(100)
    told = (tmp_path / "run.err").read_text()
    assert process.exitcode and f"batch_size was {size}, now {4 * size}" in told
    process = start(train, [*command, f"batch_size={2 * size}"], run)
    process.join(100)
    told = (tmp_path / "run.err").read_text()
    assert process.exitcode == 0, told
    assert "written by 2 processes and is resumed by 1" in told
    assert f"as many samples in a step ({2 * size})" in told
    again = (tmp_path / "run/log.txt").read_text().splitlines()
    assert len(again) == len(lines) == 4
    assert again[:2] == lines[:2] and "loss_amc_max" in again[2]
    assert torch.load(tmp_path / "run/checkpoint_01.pth")["run"]["position"]["global_step"] == 6

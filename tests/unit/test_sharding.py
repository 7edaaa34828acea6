"""A sharded training is the one in whole models, and its checkpoints are the same files."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import train
from groundwork import utils
from groundwork.engine.average import WeightAverage
from groundwork.engine.distribution import gathered, is_sharded, local, shard, whole
from groundwork.engine.weights import require_finite
from groundwork.models.common.checkpoint import read_checkpoint
from groundwork.settings import load_detector
from tests.helpers.script_runs import CONFIGS, error_of
from tests.helpers.tiny_runs import start_group

CPU = torch.device("cpu")


class Block(nn.Module):
    """Seven rows, which no number of processes divides."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 7)
        self.back = nn.Linear(7, 5, bias=False)
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x):
        return self.norm(x + self.back(self.linear(x).relu()))


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.blocks[0].requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x * self.scale


def toy(seed: int = 0):
    """Model, optimiser with states, running mean, all whole."""
    torch.manual_seed(seed)
    model = Toy()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.1)
    average = WeightAverage(model, 0.9)
    for number in range(2):
        model(torch.randn(4, 5, generator=torch.Generator().manual_seed(number))).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update(model)
    return model, optimizer, average


def content(model, optimizer, average):
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "mean": average.mean}


def flat(value, prefix=""):
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {name: v for k, below in items for name, v in flat(below, f"{prefix}/{k}").items()}
    return {prefix: value}


def assert_same(ours, theirs, **tolerance):
    ours, theirs = flat(ours), flat(theirs)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if torch.is_tensor(value):
            assert type(ours[name]) is type(value), name
            torch.testing.assert_close(ours[name], value, **tolerance, msg=lambda m, n=name: n + m)
        else:
            assert ours[name] == value, name


def _parts_are_those_of_the_whole(_folder: Path) -> None:
    expected = content(*toy())
    model, optimizer, average = toy()
    shard(model, model.blocks, {"run": optimizer}, average, CPU)
    assert is_sharded(model) and not is_sharded(Toy())
    mine = sum(local(parameter).numel() for parameter in model.parameters())
    everything = sum(parameter.numel() for parameter in Toy().parameters())
    shares = utils.all_gather_objects(mine)
    assert sum(shares) == everything and max(shares) <= 0.6 * everything
    found = gathered(content(model, optimizer, average))
    if utils.is_main():
        assert_same(found, expected, rtol=0, atol=0)

    with average.applied(model), whole(model):
        inside = {name: value.detach().clone() for name, value in model.named_parameters()}
        # As many batches as a process has.
        for _ in range(utils.rank()):
            model(torch.randn(4, 5))
    for name, value in inside.items():
        torch.testing.assert_close(value.data, expected["mean"].get(name, value.data))
    after = gathered(content(model, optimizer, average)["optimizer"])
    if utils.is_main():
        assert_same(after, expected["optimizer"], rtol=0, atol=0)


@pytest.mark.parametrize("processes", [2, 4])
def test_parts_are_those_of_the_whole(tmp_path, processes):
    start_group(_parts_are_those_of_the_whole, tmp_path, processes=processes)


def _steps_are_those_of_the_whole(_folder: Path) -> None:
    single, optimizer, average = toy()
    model, own, mean = toy()
    shard(model, model.blocks, {"run": own}, mean, CPU)
    for network in (single, model):
        network.eval()  # a norm of the whole batch is not one of its parts
    for number in range(3):
        batch = torch.randn(4, 5, generator=torch.Generator().manual_seed(10 + number))
        mine = batch[utils.rank() :: 2]
        for network, optimiser, part in ((single, optimizer, batch), (model, own, mine)):
            network(part).square().mean().backward()
            nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            optimiser.step()
            optimiser.zero_grad()
        average.update(single)
        mean.update(model)
    found = gathered(content(model, own, mean))
    if utils.is_main():
        assert_same(found, content(single, optimizer, average), rtol=1e-5, atol=1e-6)


def test_steps_are_those_of_the_whole(tmp_path):
    start_group(_steps_are_those_of_the_whole, tmp_path)


def _what_one_process_has_stops_all(_folder: Path) -> None:
    model, optimizer, average = toy()
    shard(model, model.blocks, {"run": optimizer}, average, CPU)
    require_finite(model)
    if utils.rank() == 1:
        local(model.blocks[1].linear.weight.data)[-1] = float("nan")
    with pytest.raises(FloatingPointError, match=r"blocks\.1\.linear\.weight"):
        require_finite(model)


def test_what_one_process_has_stops_all(tmp_path):
    start_group(_what_one_process_has_stops_all, tmp_path)


# --- ALVG, by the script --------------------------------------------------------------------------

ALVG = CONFIGS / "tiny/alvg/refcoco+.yaml"


def _train(out: Path, sharded: bool, epochs: int, batch: int, *more: str) -> None:
    train.main(
        ["--config", str(ALVG), "--output_dir", str(out), "--device", "cpu", *more, "--set",
         f"sharded={sharded}", f"batch_size={batch}", f"stages.0.epochs={epochs}",
         f"stages.1.epochs={epochs}", "stages.0.steps=2", "stages.1.steps=2", "precision=fp32",
         "data.workers=0", "log_every=1", "ema=0.5", "eval_batch_size=3", "optimizer.eps=0.1"]
    )  # fmt: skip


def rows(out: Path, kind: str) -> list[dict]:
    found = map(json.loads, (out / "log.txt").read_text().splitlines())
    clock = {"samples_per_second", "seconds"}
    rows = ({key: row[key] for key in row.keys() - clock} for row in found)
    return [row for row in rows if row["kind"] == kind]


@pytest.mark.usefixtures("embedded")
@pytest.mark.slow
def test_a_sharded_training_of_alvg_is_that_of_whole_models_and_goes_on_in_any_group(tmp_path):
    for name, sharded in (("whole", False), ("sharded", True)):
        start_group(_train, tmp_path / name, sharded, 1, 4)
    for kind in ("step", "validation"):
        ours, theirs = rows(tmp_path / "sharded", kind), rows(tmp_path / "whole", kind)
        assert len(ours) == len(theirs) > 0
        for our, their in zip(ours, theirs, strict=True):
            assert our.keys() == their.keys()
            for key, value in their.items():
                number = isinstance(value, float)
                assert our[key] == (pytest.approx(value, rel=1e-3, abs=1e-4) if number else value)
    names = sorted(path.name for path in (tmp_path / "whole").glob("checkpoint*.pth"))
    for name in names:
        ours, theirs = (read_checkpoint(tmp_path / run / name) for run in ("sharded", "whole"))
        assert ours["config"] == {**theirs["config"], "sharded": True}
        assert ours["run"].keys() == theirs["run"].keys()
        for key in ("model", "optimizer"):
            assert_same(ours[key], theirs[key], rtol=1e-4, atol=1e-6)
    (tmp_path / "sharded" / names[-2]).unlink()
    start_group(_train, tmp_path / "sharded", True, 1, 2, "--resume", processes=4)
    assert read_checkpoint(tmp_path / "sharded" / names[-2])["epoch"] == 1
    (tmp_path / "sharded" / names[-2]).unlink()
    _train(tmp_path / "sharded", False, 1, 8, "--resume")
    assert read_checkpoint(tmp_path / "sharded" / names[-2])["epoch"] == 1


@pytest.mark.usefixtures("embedded")
def test_what_cannot_be_sharded_says_so(tmp_path):
    call = ["--output_dir", str(tmp_path / "run"), "--device", "cpu", "--set", "sharded=true"]
    other = ["--config", str(CONFIGS / "tiny/reftr/refcoco+.yaml"), *call]
    assert "RefTR cannot be; ALVG can" in error_of(lambda: train.main(other))
    half = ["--config", str(ALVG), *call, "precision=fp16"]
    assert "trains in fp32 or bf16" in error_of(lambda: train.main(half))
    with pytest.raises(ValueError, match="a detector cannot be; ALVG can"):
        load_detector(CONFIGS / "tiny/detector.yaml", ["sharded=true"])

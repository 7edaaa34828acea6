"""A run that a scheduler tells to end has saved the step it was at, and is resumed exactly."""

import multiprocessing
import os
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from groundwork import utils
from groundwork.dataset.loader import eval_loader
from groundwork.engine import Preemption, Settings, Snapshots, Stage, Validation, fit
from groundwork.engine.preemption import PREEMPTED
from tests.helpers.tiny_runs import start_group

STEPS, EPOCHS = 3, 2


class Batches:
    """A loader with its sampler: batches that follow from epoch and step."""

    steps_per_epoch = STEPS

    def __init__(self) -> None:
        self.sampler = self

    def set_epoch(self, epoch: int, start_batch: int) -> None:
        self.epoch, self.first = epoch, start_batch

    @classmethod
    def of_validation(cls) -> "Batches":
        """Other ones, all of them."""
        batches = cls()
        batches.set_epoch(EPOCHS, 0)
        return batches

    def __iter__(self):
        for step in range(self.first, STEPS):
            draw = torch.Generator().manual_seed(10 * self.epoch + step)
            yield {"image": torch.randn(4, 3, generator=draw), "corrupt": 0, "faults": []}


class Linear(nn.Linear):
    def forward(self, batch: dict) -> torch.Tensor:
        return super().forward(batch["image"])


class Loss(nn.Module):
    """Its forward pass number `at` is signalled in."""

    weights: ClassVar = {"loss": 1.0}

    def __init__(self, at: int | None, number: int):
        super().__init__()
        self.left, self.number = at, number

    def start_step(self, epoch: int, step: int, steps: int) -> None:
        """Nothing depends on it."""

    def forward(self, outputs: torch.Tensor, _batch: dict) -> dict:
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.number)
        # What is drawn differs from step to step.
        return {"loss": (outputs * torch.rand_like(outputs)).square().mean()}


def run(
    folder: Path, at: int | None = None, number: int = signal.SIGUSR1, validated: int | None = None
) -> nn.Module:
    """Begin a run, or go on with it.

    Args:
        at: the training step that is signalled in. validated: after how many batches of a
            validation it is.
    """
    torch.manual_seed(0)
    model = Linear(3, 3)
    snapshots = Snapshots(
        folder, {}, export=lambda m: m.state_dict(), restore_model=lambda m, s: m.load_state_dict(s)
    )
    loss, optimizer = Loss(at, number), torch.optim.AdamW(model.parameters(), lr=0.1)
    stage = Stage(name="one", criterion=loss, loader=Batches(), optimizer_name="run",
                  learning_rate=lambda *_: 0.1, epochs=EPOCHS)  # fmt: skip

    def validate(epochs: int, preemption: Preemption) -> dict[str, float]:
        seen = []
        for number_of_batch, batch in enumerate(preemption.until_told(Batches.of_validation())):
            seen.append(model(batch).square().mean().item())
            if number_of_batch + 1 == validated and epochs == EPOCHS - 1:
                os.kill(os.getpid(), number)
        assert len(seen) == STEPS
        return {"metric": sum(seen)}

    fit(model, [stage], {"run": optimizer}, Settings(seed=0, log_every=1), snapshots=snapshots,
        output_dir=folder, device=torch.device("cpu"),
        validation=Validation(run=validate, best={"checkpoint_best.pth": "metric"}),
        resume=snapshots.starting_point(None, None))  # fmt: skip
    return model


def log_of(folder: Path) -> str:
    text = (folder / "log.txt").read_text()
    return "".join(line.partition(', "samples')[0] + "\n" for line in text.splitlines())


def test_a_run_that_is_told_to_end_is_resumed_as_if_nothing_had_happened(tmp_path):
    expected = run(tmp_path / "whole").state_dict()
    before = [signal.getsignal(number) for number in utils.PREEMPTING]
    # In the middle of an epoch; at its end, before what an epoch's end does; in the last step.
    for at, number in ((2, signal.SIGUSR1), (1, signal.SIGTERM), (3, signal.SIGTERM)):
        with pytest.raises(SystemExit) as ended:
            run(tmp_path / "run", at, number)
        assert ended.value.code == PREEMPTED
        assert (tmp_path / "run" / "last.ckpt").is_file()
    found = run(tmp_path / "run").state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert log_of(tmp_path / "run") == log_of(tmp_path / "whole")
    assert [signal.getsignal(number) for number in utils.PREEMPTING] == before


@pytest.mark.parametrize("number", utils.PREEMPTING)
def test_a_run_that_is_told_to_end_while_it_is_validated_does_that_again(tmp_path, number):
    expected = run(tmp_path / "whole").state_dict()
    with pytest.raises(SystemExit) as ended:
        run(tmp_path / "run", number=number, validated=1)
    assert ended.value.code == PREEMPTED
    assert not (tmp_path / "run" / "checkpoint_best.pth").exists()
    found = run(tmp_path / "run").state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert log_of(tmp_path / "run") == log_of(tmp_path / "whole")
    best = [torch.load(tmp_path / name / "checkpoint_best.pth") for name in ("run", "whole")]
    assert best[0]["epoch"] == best[1]["epoch"]


def test_a_loading_process_outlives_the_signals_and_ends_with_its_parent():
    loader = eval_loader([torch.full((1,), n) for n in range(40)], torch.cat, 1, workers=1)
    batches = iter(loader)
    assert next(batches).item() == 0
    (worker,) = multiprocessing.active_children()
    for name in ("-TERM", "-USR1"):  # from another process, as a scheduler does it
        subprocess.run(["kill", name, str(worker.pid)], check=True)
    assert [batch.item() for batch in batches] == list(range(1, 40))
    assert worker.is_alive()
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == 0


def end_when_one_is_told(folder: Path, **when: int) -> None:
    with pytest.raises(SystemExit) as ended:
        run(folder, **(when if utils.rank() else {}))
    (folder / f"rank{utils.rank()}").write_text(str(ended.value.code))


@pytest.mark.slow
@pytest.mark.parametrize(("when", "steps"), [({"at": 2}, 2), ({"validated": 1}, STEPS)])
def test_all_processes_end_when_one_is_told(tmp_path, when, steps):
    start_group(partial(end_when_one_is_told, **when), tmp_path)
    assert [(tmp_path / f"rank{rank}").read_text() for rank in range(2)] == [str(PREEMPTED)] * 2
    position = torch.load(tmp_path / "last.ckpt")["run"]["position"]
    assert position["global_step"] == steps

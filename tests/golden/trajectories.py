"""Some optimiser steps of a system in double precision, by the project's own step."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from groundwork.settings.optimisation import OptimizerConfig, ScheduleConfig
from groundwork.engine.training import Settings, Trainer, TrainingStep
from groundwork.optim import create_optimizer
from groundwork.scheduler import apply_learning_rate, learning_rate

TOLERANCE = 1e-5


@dataclass
class Trajectory:
    """What a run leaves: of every step the losses, gradient norm before clipping, rate and decay of
    the mean; the states before the first and after the last step, and the mean's after it."""

    losses: list[dict[str, float]] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    decays: list[float] = field(default_factory=list)
    first: dict[str, Tensor] = field(default_factory=dict)
    last: dict[str, Tensor] = field(default_factory=dict)
    mean: dict[str, Tensor] = field(default_factory=dict)

    def moved(self, name: str) -> list[float]:
        """Norms of last - first, mean - first, last, last - mean."""
        first, last, mean = self.first[name], self.last[name], self.mean[name]
        return [float(one.norm()) for one in (last - first, mean - first, last, last - mean)]


def run(
    model: nn.Module,
    criterion: nn.Module,
    batches: Iterable[dict],
    inputs: ModuleType,
    *,
    rates: OptimizerConfig,
    schedule: ScheduleConfig,
    ema: float | None,
) -> Trajectory:
    """Train on the batches as `engine` does; EPOCHS, STEPS_PER_EPOCH and CLIP are those of `inputs`.

    Without a running mean it is what the model itself has.
    """
    found, device = Trajectory(first=copy_of(model)), torch.device("cpu")
    optimizer = create_optimizer(rates, model)
    settings = Settings(seed=0, clip_norm=inputs.CLIP, ema=ema)
    trainer = Trainer(model, {}, settings, snapshots=None, log=None, device=device)  # type: ignore[arg-type]
    module = TrainingStep(model.train(), criterion.train())
    with norms_into(found.norms):
        for step, batch in enumerate(batches):
            rate = learning_rate(schedule, rates, *divmod(step, inputs.STEPS_PER_EPOCH), inputs.STEPS_PER_EPOCH)
            apply_learning_rate(optimizer, rate)
            losses = trainer.train_step(module, optimizer, [batch])
            found.losses.append({name: float(value) for name, value in losses.items()})
            found.rates.append(rate)
            found.decays.append(min(ema or 0.0, (1 + step) / (10 + step)))
    found.last = found.mean = copy_of(model)
    if trainer.average is not None:
        with trainer.average.applied(model):
            found.mean = copy_of(model)
    return found


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


def check_weights(found: Trajectory, arrays: dict[str, np.ndarray], unused: tuple[str, ...]) -> None:
    """`w/`, `moved` and, where a mean is kept, `ema/` of the recording. Ours freezes or lacks the
    parameters that no loss reaches."""
    assert any(name.startswith("w/") for name in arrays)
    for prefix, state in (("w/", found.last), ("ema/", found.mean)):
        names = [name.removeprefix(prefix) for name in arrays if name.startswith(prefix)]
        for name in names:
            close(state[name].numpy(), arrays[prefix + name], prefix + name)
    moved = np.array([found.moved(name) for name in arrays["names"].tolist()])
    for name, ours, theirs in zip(arrays["names"], moved, arrays["moved"], strict=True):
        # A share of what it moved, and no less than rounding leaves of a weight that stands still.
        np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=1e-8, err_msg=str(name))
    assert all(any(part in name for part in unused) for name in still(found, arrays))


def still(found: Trajectory, arrays: dict[str, np.ndarray]) -> list[str]:
    """The tensors that move in the published training and not in ours, or that ours does not have.

    A gradient that is nothing but rounding moves a weight on some processors and not on others.
    """
    move = dict(zip(arrays["names"].tolist(), arrays["moved"][:, 0] > 0, strict=True))
    return [
        name
        for name in arrays["trainable"].tolist()
        if name not in found.first
        or (move.get(name, True) and torch.equal(found.first[name], found.last[name]))
    ]


def close(ours, theirs, what: str) -> None:
    """Within the tolerance of each value, or of the largest."""
    np.testing.assert_allclose(
        ours, theirs, rtol=TOLERANCE, atol=TOLERANCE * float(np.abs(theirs).max()), err_msg=what
    )

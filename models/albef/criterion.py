"""ALBEF's criterion: the objectives of a stage, over passes that they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from groundwork.models.albef.passes import Needs, Passes


class Objective(Protocol):
    """One way to train ALBEF: names what it needs of a forward, and gives losses of it."""

    def start_step(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        """Where training stands; called before every step."""

    def needs(self, batch: dict) -> dict[str, Needs]:
        """What it needs of the texts, "phrase" and "paraphrase", in the order in which they run."""

    def __call__(self, passes: Passes, batch: dict) -> dict[str, Tensor]:
        """Named scalars."""


class ObjectiveList(nn.Module):
    """Asks a forward for what the objectives of a stage need, and collects their named losses.

    Args:
        objectives: by name, in the order in which they run.
        weights: loss name -> its factor in the total. The engine sums exactly the losses named
            here, and logs all.
    """

    def __init__(self, objectives: dict[str, Objective], weights: dict[str, float]):
        super().__init__()
        self.objectives = objectives
        self.weights = weights

    def start_step(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        for objective in self.objectives.values():
            objective.start_step(epoch, step, steps_per_epoch)

    def forward(
        self, passes_of: Callable[[dict[str, Needs]], Passes], batch: dict
    ) -> dict[str, Tensor]:
        """Named scalars of all objectives; `passes_of` is the output of `MomentumALBEF`."""
        needs: dict[str, Needs] = {}
        for objective in self.objectives.values():
            for text, need in objective.needs(batch).items():
                needs[text] = needs.get(text, Needs()) | need
        passes, losses = passes_of(needs), {}
        for objective in self.objectives.values():
            losses |= objective(passes, batch)
        return losses

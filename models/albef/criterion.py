"""ALBEF's criterion: the objectives of a stage, over passes that they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from groundwork.models.albef.passes import Needs, Passes
from groundwork.models.common.criterion import Criterion

if TYPE_CHECKING:
    from groundwork.dataset.batches import ImageTextTrainBatch


class Objective(Protocol):
    """One way to train ALBEF: names what it needs of a forward, and gives losses of it."""

    def start_step(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        """Where training stands; called before every step."""

    def needs(self, batch: ImageTextTrainBatch) -> dict[str, Needs]:
        """What it needs of the texts, "phrase" and "paraphrase", in the order in which they run."""

    def __call__(self, passes: Passes, batch: ImageTextTrainBatch) -> dict[str, Tensor]:
        """Named scalars."""


class ObjectiveList(Criterion):
    """Asks a forward for what the objectives of a stage need, and collects their named losses.

    Args:
        objectives: by name, in the order in which they run.
        weights: as of any criterion.
    """

    def __init__(self, objectives: dict[str, Objective], weights: dict[str, float]):
        super().__init__(weights)
        self.objectives = objectives

    def start_step(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        for objective in self.objectives.values():
            objective.start_step(epoch, step, steps_per_epoch)

    def forward(
        self, passes_of: Callable[[dict[str, Needs]], Passes], batch: ImageTextTrainBatch
    ) -> dict[str, Tensor]:
        """Named scalars of all objectives; `passes_of` is the output of `MomentumALBEF`."""
        needs: dict[str, Needs] = {}
        for objective in self.objectives.values():
            for text, need in objective.needs(batch).items():
                needs[text] = needs.get(text, Needs()) | need
        passes = passes_of(needs)
        losses: dict[str, Tensor] = {}
        for objective in self.objectives.values():
            losses |= objective(passes, batch)
        return losses

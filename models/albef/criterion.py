"""ALBEF's criterion: the objectives of a stage, over the same lazy passes."""

from __future__ import annotations

from torch import Tensor, nn

from groundwork.models.albef.objectives import ImageTextLosses
from groundwork.models.albef.passes import TrainingPasses


class ObjectiveList(nn.Module):
    """Runs the objectives of a stage one after the other and collects their named losses.

    Args:
        objectives: name -> objective.
        weights: loss name -> its factor in the total. The engine sums exactly the losses named
            here, and logs all.
    """

    def __init__(self, objectives: dict[str, nn.Module], weights: dict[str, float]):
        super().__init__()
        self.objectives = nn.ModuleDict(objectives)
        self.weights = weights

    def start_step(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        """Tell the objectives where training stands: soft targets fade in over epoch 0."""
        ramp = min(1.0, step / steps_per_epoch) if epoch == 0 else 1.0
        for module in self.modules():
            if isinstance(module, ImageTextLosses):
                module.ramp = ramp

    def forward(self, passes: TrainingPasses, batch: dict) -> dict[str, Tensor]:
        """Named scalars of all objectives; fills the queues once all of them have been computed."""
        if any(objective.uses_heatmaps for objective in self.objectives.values()):
            passes.explain()
        losses: dict[str, Tensor] = {}
        for objective in self.objectives.values():
            losses |= objective(passes, batch)
        if any(objective.uses_queue for objective in self.objectives.values()):
            passes.enqueue()
        return losses

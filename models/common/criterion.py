"""What the engine knows of the losses of any system."""

from torch import nn


class Criterion(nn.Module):
    """Its forward takes the outputs of the model and the batch, and gives named scalars.

    Args:
        weights: loss name -> factor in the total, which the engine takes; all scalars are logged.
    """

    def __init__(self, weights: dict[str, float]):
        super().__init__()
        self.weights = weights

    def start_step(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        """Where training stands, told before every step; most criteria do not change with it."""

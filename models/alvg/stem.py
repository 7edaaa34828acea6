"""Convolutions in the place of BEiT-3's patch embedding, for small models without pretraining.

Not published. One linear map of 32 x 32 pixels finds colours and shapes only after very many
images; convolutions with batch norms find them on a few thousand.
"""

from itertools import pairwise

from torch import Tensor, nn


class Stage(nn.Module):
    """Halves the sides: two 3 x 3 convolutions with batch norms, and a shortcut."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride=2, bias=False), nn.BatchNorm2d(outputs)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / 2, W / 2)."""
        return (self.body(maps) + self.shortcut(maps)).relu()


class ConvolutionalStem(nn.Sequential):
    """(B, 3, S, S) -> (B, width, S / patch, S / patch); `patch` is a power of two.

    Args:
        first: channels of the first stage; every further one has twice as many, `width` at most.
    """

    def __init__(self, width: int, patch: int, first: int):
        count = patch.bit_length() - 1
        channels = [3, *(min(first * 2**stage, width) for stage in range(count))]
        stages = [Stage(*pair) for pair in pairwise(channels)]
        super().__init__(*stages, nn.Conv2d(channels[-1], width, 1))
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

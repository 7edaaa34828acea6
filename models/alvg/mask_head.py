"""Enhanced cells to one mask per sample, which unites all targets."""

from torch import Tensor, nn


class MaskHead(nn.Module):
    """A convolution, then three doublings of the sides; names as published.

    Args:
        width: of the cells. channels: after the first convolution, halved by every doubling.
    """

    def __init__(self, width: int, channels: int):
        super().__init__()
        refine = nn.Conv2d(width, channels, 3, padding=1, bias=False)
        nn.init.kaiming_uniform_(refine.weight, a=1)
        self.refine = nn.Sequential(refine, nn.BatchNorm2d(channels), nn.ReLU())
        self.upsample = nn.Sequential(
            _double(channels, channels // 2),
            nn.BatchNorm2d(channels // 2),
            nn.ReLU(),
            _double(channels // 2, channels // 4),
            nn.BatchNorm2d(channels // 4),
            nn.ReLU(),
            _double(channels // 4, 1),
        )

    def forward(self, cells: Tensor, position: Tensor) -> Tensor:
        """(B, D, h, w) twice -> logits (B, 8h, 8w)."""
        return self.upsample(self.refine(cells + position))[:, 0]


def _double(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, kernel_size=4, stride=2, padding=1)

"""SimREC's head: one box and one objectness per cell, without anchors or classes (YOLOX-like)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from groundwork.models.common.precision import at_least_single
from groundwork.models.common.torch_types import ModuleListOf, bias_of
from groundwork.models.simrec.backbone import ConvSiLU

STRIDE = 32


class BoxHead(nn.Module):
    """Parameter names are the published ones; each list holds the one scale that is used.

    Args:
        channels: of the map. width: inside the head.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        convs = nn.Sequential(ConvSiLU(width, width, 3), ConvSiLU(width, width, 3))
        self.reg_convs = nn.ModuleList([convs])
        self.reg_preds = ModuleListOf([nn.Conv2d(width, 4, 1)])
        self.obj_preds = ModuleListOf([nn.Conv2d(width, 1, 1)])
        self.stems = nn.ModuleList([ConvSiLU(channels, width, 1)])

    def expect(self, share: float) -> None:
        """Start with this objectness in every cell, so that the many empty ones do not rule the
        first steps, and with a box of two strides in its middle: the loss of a box that does not
        overlap its target has no gradient. Released: only the first, which is never called."""
        nn.init.constant_(bias_of(self.obj_preds[0]), -math.log((1 - share) / share))
        nn.init.normal_(self.reg_preds[0].weight, std=0.01)
        with torch.no_grad():
            bias_of(self.reg_preds[0]).copy_(torch.tensor([0.5, 0.5, math.log(2), math.log(2)]))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, h, w) -> (B, h, w, 5): centre x and y, width and height in pixels of the
        input, logit of the objectness."""
        features = self.reg_convs[0](self.stems[0](maps))
        raw = torch.cat([self.reg_preds[0](features), self.obj_preds[0](features)], dim=1)
        raw = at_least_single(raw).permute(0, 2, 3, 1)
        centre = (raw[..., :2] + corners(raw.shape[1:3], raw.device)) * STRIDE
        return torch.cat([centre, raw[..., 2:4].exp() * STRIDE, raw[..., 4:]], dim=-1)


def corners(grid: Sequence[int], device: torch.device) -> Tensor:
    """(h, w, 2): column and row of each cell of a grid (h, w)."""
    row, column = (torch.arange(length, device=device) for length in grid)
    return torch.stack(torch.meshgrid(column, row, indexing="xy"), dim=-1)

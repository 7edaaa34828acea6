"""Convolution blocks of DarkNet, and the fusion of three scales that RefCLIP and SimREC share.

Shapes: B images; maps are called by their stride (s8 has 8 pixels of the input per cell).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundwork.models.common.distributed import BatchNorm2d
from groundwork.models.common.normalised import normalised
from groundwork.models.common.torch_types import ModuleListOf


class ConvBlock(nn.Module):
    """Convolution without bias, batch norm, leaky ReLU; keeps the size at stride 1.

    Parameter names are the published ones: `conv`, `batch_norm`.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, bias=False
        )
        self.batch_norm = BatchNorm2d(outputs)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h / stride, w / stride)."""
        return F.leaky_relu(normalised(self.conv, self.batch_norm, maps), 0.1)


class Bottlenecks(nn.Module):
    """Pairs of 1x1 and 3x3 blocks through half the channels, each added to its input or not."""

    def __init__(self, channels: int, count: int, *, shortcut: bool = True):
        super().__init__()
        self.shortcut = shortcut
        half = channels // 2
        self.module_list = ModuleListOf(
            ModuleListOf([ConvBlock(channels, half, 1), ConvBlock(half, channels, 3)])
            for _ in range(count)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, h, w) -> the same shape."""
        for narrow, wide in self.module_list:
            found = wide(narrow(maps))
            maps = maps + found if self.shortcut else found
        return maps


class PyramidPooling(nn.Module):
    """The map beside its maxima over 5x5, 9x9 and 13x13 neighbourhoods (SPP); no parameters."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 4 C, h, w)."""
        pooled = (F.max_pool2d(maps, size, stride=1, padding=size // 2) for size in (5, 9, 13))
        return torch.cat([maps, *pooled], dim=1)


class MultiScaleFusion(nn.Module):
    """Three maps exchange what they know: once upwards from coarse to fine, once back.

    Only the coarse output is used by RefCLIP and SimREC. The blocks of the other two outputs are
    there because published checkpoints hold them; they never get a gradient and are frozen, so
    that several processes need not search for unused parameters.

    Args:
        widths: channels of the maps of stride 8, 16, 32.
        hidden: channels of the outputs; the exchange runs through half of them.
        upsample: how coarse maps are enlarged: "nearest" (RefCLIP) or "bilinear" with corners
            aligned (SimREC).
    """

    def __init__(self, widths: Sequence[int], hidden: int, *, upsample: str = "nearest"):
        super().__init__()
        large, middle, small = widths
        half, self.upsample = hidden // 2, upsample
        # Index 0 is the parameter-free change of size of the published sequences.
        self.up_modules = ModuleListOf([_exchange(half + middle, half), _exchange(small, half)])
        self.down_modules = ModuleListOf(
            [_exchange(half + large, half), _exchange(2 * half + middle, half)]
        )
        self.top_proj = ConvBlock(half + small, hidden, 1)
        self.mid_proj = ConvBlock(2 * half + middle, hidden, 1)
        self.bot_proj = ConvBlock(half + large, hidden, 1)
        for unused in (self.mid_proj, self.bot_proj):
            unused.requires_grad_(False)

    def forward(self, s8: Tensor, s16: Tensor, s32: Tensor) -> Tensor:
        """(B, widths[0], h, w), (B, widths[1], h/2, w/2), (B, widths[2], h/4, w/4) ->
        (B, hidden, h/4, w/4)."""
        _, _, coarse = self.exchanged(s8, s16, s32)
        return self.top_proj(coarse)

    def exchanged(self, s8: Tensor, s16: Tensor, s32: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The three maps before their projections, finest first."""
        middle = torch.cat([_run(self.up_modules[1], self._enlarge(s32)), s16], dim=1)
        fine = torch.cat([_run(self.up_modules[0], self._enlarge(middle)), s8], dim=1)
        middle = torch.cat([_run(self.down_modules[0], F.avg_pool2d(fine, 2)), middle], dim=1)
        coarse = torch.cat([_run(self.down_modules[1], F.avg_pool2d(middle, 2)), s32], dim=1)
        return fine, middle, coarse

    def _enlarge(self, maps: Tensor) -> Tensor:
        aligned = {"align_corners": True} if self.upsample == "bilinear" else {}
        return F.interpolate(maps, scale_factor=2, mode=self.upsample, **aligned)


def _exchange(inputs: int, outputs: int) -> nn.ModuleDict:
    return nn.ModuleDict({"1": ConvBlock(inputs, outputs, 1), "2": ConvBlock(outputs, outputs, 3)})


def _run(blocks: nn.ModuleDict, maps: Tensor) -> Tensor:
    return blocks["2"](blocks["1"](maps))

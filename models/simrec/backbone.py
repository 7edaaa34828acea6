"""CSPDarkNet in the layout of YOLOv5, the image network of SimREC.

Shapes: B images of side S. Parameter names are the published ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundwork.models.common.distributed import BatchNorm2d
from groundwork.models.common.normalised import normalised
from groundwork.models.common.precision import in_half_precision


class ConvSiLU(nn.Module):
    """Convolution without bias, batch norm, SiLU; keeps the size at stride 1."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int | None = None
    ):
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = BatchNorm2d(outputs)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h / stride, w / stride)."""
        return F.silu(normalised(self.conv, self.bn, maps))


class Bottleneck(nn.Module):
    """A 1x1 and a 3x3 convolution, added to their input."""

    def __init__(self, channels: int):
        super().__init__()
        self.cv1, self.cv2 = ConvSiLU(channels, channels, 1), ConvSiLU(channels, channels, 3)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, h, w) -> the same shape."""
        return maps + self.cv2(self.cv1(maps))


class CrossStage(nn.Module):
    """C3: half of the channels go through bottlenecks, half around them."""

    def __init__(self, channels: int, count: int):
        super().__init__()
        half = channels // 2
        self.cv1, self.cv2 = ConvSiLU(channels, half, 1), ConvSiLU(channels, half, 1)
        self.cv3 = ConvSiLU(channels, channels, 1)
        self.m = nn.Sequential(*(Bottleneck(half) for _ in range(count)))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, h, w) -> the same shape."""
        return self.cv3(torch.cat([self.m(self.cv1(maps)), self.cv2(maps)], dim=1))


class FastPyramidPooling(nn.Module):
    """SPPF: the map beside its maxima over 5x5, 9x9 and 13x13 neighbourhoods, one from the other.

    Unlike `models.common.darknet.PyramidPooling` it halves the channels before and mixes them
    after.
    """

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.cv1, self.cv2 = ConvSiLU(channels, half, 1), ConvSiLU(4 * half, channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, h, w) -> the same shape."""
        pooled = [self.cv1(maps)]
        for _ in range(3):
            pooled.append(F.max_pool2d(pooled[-1], 5, stride=1, padding=2))
        return self.cv2(torch.cat(pooled, dim=1))


class CSPDarkNet(nn.Module):
    """Ten layers; the maps of stride 8, 16 and 32 are seen.

    Args:
        width: channels after the first layer; 64 as published (YOLOv5-l), even.
        repeats: bottlenecks of the four cross stages.
        train_from: the first layer that is trained; published: 8, so that only the last cross stage
            and the pooling are.
        frozen_bn: "eval" keeps the statistics of the layers before it; "train" lets them follow the
            mode of the model, as released.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        repeats: Sequence[int] = (3, 6, 9, 3),
        train_from: int = 8,
        frozen_bn: str = "eval",
    ):
        super().__init__()
        c1, c2, c4, c8, c16 = (width * factor for factor in (1, 2, 4, 8, 16))
        self.channels = (c4, c8, c16)
        self.model = nn.Sequential(
            ConvSiLU(3, c1, 6, 2, padding=2),
            ConvSiLU(c1, c2, 3, 2), CrossStage(c2, repeats[0]),
            ConvSiLU(c2, c4, 3, 2), CrossStage(c4, repeats[1]),
            ConvSiLU(c4, c8, 3, 2), CrossStage(c8, repeats[2]),
            ConvSiLU(c8, c16, 3, 2), CrossStage(c16, repeats[3]),
            FastPyramidPooling(c16),
        )  # fmt: skip
        self.model[:train_from].requires_grad_(False)
        self.train_from, self.frozen_bn = train_from, frozen_bn

    def train(self, mode: bool = True) -> CSPDarkNet:
        """As torch's, but the mode of frozen layers is what `frozen_bn` says."""
        super().train(mode)
        self.model[: self.train_from].train(mode and self.frozen_bn == "train")
        return self

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image (B, 3, S, S), S a multiple of 32 -> (B, 4 width, S/8, S/8),
        (B, 8 width, S/16, S/16), (B, 16 width, S/32, S/32)."""
        if in_half_precision(image):
            # Faster on a CPU. The weights stay as they are, as do the optimisers' states of saved
            # runs.
            image = image.contiguous(memory_format=torch.channels_last)
        fine = self.model[:5](image)
        middle = self.model[5:7](fine)
        return fine, middle, self.model[7:](middle)

"""The published detector: DarkNet-53 with pyramid pooling and heads of guided anchors (YOLOv3).

Shapes: B images of side S; h x w cells of a head with a stride; 4 boxes per cell, of which three
start from anchors and one from a square; C classes.
"""

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from groundwork.models.common.darknet import Bottlenecks, ConvBlock, PyramidPooling
from groundwork.models.common.precision import at_least_single, in_half_precision
from groundwork.models.common.torch_types import grid_of, submodule
from groundwork.models.refclip.detector import Detection, Detector

BOXES = 4
# Width and height in pixels of the first three boxes by stride. The published (121, 240), not
# YOLOv3's usual (373, 326). The fourth box starts from a square of four strides.
ANCHORS = {
    32: ((116, 90), (156, 198), (121, 240)),
    16: ((30, 61), (62, 45), (42, 119)),
    8: ((10, 13), (16, 30), (33, 23)),
}
HEADS = {32: 19, 16: 28, 8: 37}


class FeatureAdaption(nn.Module):
    """A deformable convolution that looks where the guided shapes of the four boxes say.

    Args:
        deformable: False: a plain one, which is much faster on CPUs, for small runs.
    """

    def __init__(self, channels: int, *, deformable: bool = True):
        super().__init__()
        self.deformable = deformable
        taps = 3 * 3
        self.conv_offset = nn.Conv2d(2 * BOXES, 2 * taps * BOXES, 1, groups=BOXES)
        self.dconv = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_offset.requires_grad_(deformable)

    def forward(self, maps: Tensor, shapes: Tensor) -> Tensor:
        """Maps (B, channels, h, w), log shapes (B, 8, h, w) -> (B, channels, h, w)."""
        if not self.deformable:
            return self.dconv(maps)
        offsets = self.conv_offset(shapes.detach())
        return deform_conv2d(maps, offsets, self.dconv.weight, self.dconv.bias, padding=1)


class GuidedHead(nn.Module):
    """Guesses a shape for each box of a cell, adapts the features to it, and predicts the boxes."""

    priors: Tensor

    def __init__(self, channels: int, classes: int, stride: int, *, deformable: bool = True):
        super().__init__()
        self.guide_wh = nn.Conv2d(channels, 2 * BOXES, 1)
        self.Feature_adaption = FeatureAdaption(channels, deformable=deformable)
        self.conv = nn.Conv2d(channels, BOXES * (5 + classes), 1)
        self.stride = stride
        square = (4 * stride, 4 * stride)
        priors = torch.tensor([*ANCHORS[stride], square], dtype=torch.float32)
        self.register_buffer("priors", priors, persistent=False)

    def raw(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, channels, h, w) -> log shapes (B, h * w, 4, 2), predictions (B, h * w, 4, 5 + C)
        before any activation: centre x and y, width and height, objectness, classes."""
        # Offsets move by pixels of a map: half precision would move them.
        with torch.autocast(maps.device.type, enabled=False):
            maps = at_least_single(maps)
            shapes = self.guide_wh(maps)
            predictions = self.conv(self.Feature_adaption(maps, shapes))
        return _by_box(shapes), _by_box(predictions)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, channels, h, w) -> (B, h * w, 4, 5 + C): cxcywh in pixels of the input,
        objectness and classes in [0, 1]."""
        shapes, predictions = self.raw(maps)
        return self.decode(shapes, predictions, grid_of(maps))

    def decode(self, shapes: Tensor, predictions: Tensor, grid: tuple[int, int]) -> Tensor:
        """What `raw` gives -> boxes as `forward` gives them."""
        cell = torch.arange(grid[0] * grid[1], device=predictions.device)
        corner = torch.stack([cell % grid[1], cell // grid[1]], dim=1)[:, None]
        centre = (predictions[..., :2].sigmoid() + corner) * self.stride
        size = predictions[..., 2:4].exp() * (shapes.exp() * self.priors)
        return torch.cat([centre, size, predictions[..., 4:].sigmoid()], dim=-1)


def _by_box(maps: Tensor) -> Tensor:
    """(B, 4 * n, h, w) -> (B, h * w, 4, n)."""
    return maps.flatten(2).unflatten(1, (BOXES, -1)).permute(0, 3, 1, 2)


class YoloV3(Detector):
    """Backbone, neck and three heads; the numbers of `module_list` are those of published files.

    Heads of stride 16 and 8 are part of the files, and RefCLIP does not need them: `forward` leaves
    them out. Concatenated maps are always (enlarged coarse map, finer map).

    Args:
        width: channels of the stem; 32 as published.
        classes: C; 80 of COCO or 100 of Visual Genome in the published files.
        blocks: bottlenecks of the five stages; fewer for small runs.
        deformable: whether the heads adapt their features to the guided shapes, as published.
    """

    def __init__(
        self,
        *,
        width: int = 32,
        classes: int = 80,
        blocks: tuple[int, int, int, int, int] = (1, 2, 8, 8, 4),
        deformable: bool = True,
    ):
        super().__init__()
        n2, n4, n8, n16, n32 = blocks
        c1, c2, c4, c8, c16, c32 = (width * factor for factor in (1, 2, 4, 8, 16, 32))
        enlarge, no_drop_block = (lambda: nn.Upsample(scale_factor=2)), nn.Identity

        def head(channels: int, stride: int) -> GuidedHead:
            return GuidedHead(channels, classes, stride, deformable=deformable)

        self.widths = (c8, c16, c32)
        self.classes = classes
        self.module_list = nn.ModuleList([
            ConvBlock(3, c1, 3),
            ConvBlock(c1, c2, 3, 2), Bottlenecks(c2, n2),
            ConvBlock(c2, c4, 3, 2), Bottlenecks(c4, n4),
            ConvBlock(c4, c8, 3, 2), Bottlenecks(c8, n8),
            ConvBlock(c8, c16, 3, 2), Bottlenecks(c16, n16),
            ConvBlock(c16, c32, 3, 2), Bottlenecks(c32, n32),
            Bottlenecks(c32, 1, shortcut=False), ConvBlock(c32, c16, 1), PyramidPooling(),
            ConvBlock(4 * c16, c16, 1), ConvBlock(c16, c32, 3), no_drop_block(),
            ConvBlock(c32, c16, 1), ConvBlock(c16, c32, 3), head(c32, 32),
            ConvBlock(c16, c8, 1), enlarge(), ConvBlock(c8 + c16, c8, 1),
            ConvBlock(c8, c16, 3), no_drop_block(), Bottlenecks(c16, 1, shortcut=False),
            ConvBlock(c16, c8, 1), ConvBlock(c8, c16, 3), head(c16, 16),
            ConvBlock(c8, c4, 1), enlarge(), ConvBlock(c4 + c8, c4, 1),
            ConvBlock(c4, c8, 3), no_drop_block(), Bottlenecks(c8, 1, shortcut=False),
            ConvBlock(c8, c4, 1), ConvBlock(c4, c8, 3), head(c8, 8),
        ])  # fmt: skip

    def forward(self, image: Tensor) -> Detection:
        """Image (B, 3, S, S), S a multiple of 32."""
        s8, s16, s32 = self.maps(image)
        return Detection(s8, s16, s32, self.head(32)(s32)[..., :5])

    def maps(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the heads look at: (B, 8 width, S/8, S/8), (B, 16 width, S/16, S/16),
        (B, 32 width, S/32, S/32)."""
        if in_half_precision(image) and not self.training:
            # Faster on a CPU. Sums of a batch's statistics keep the order of the published numbers.
            image = image.contiguous(memory_format=torch.channels_last)
        fine = self._run(0, 7, image)
        middle = self._run(7, 9, fine)
        route = self._run(9, 18, middle)
        s32 = self.module_list[18](route)
        middle = torch.cat([self._run(20, 22, route), middle], dim=1)
        route = self._run(22, 27, middle)
        s16 = self.module_list[27](route)
        fine = torch.cat([self._run(29, 31, route), fine], dim=1)
        return self._run(31, 37, fine), s16, s32

    def _run(self, start: int, stop: int, maps: Tensor) -> Tensor:
        for layer in self.module_list[start:stop]:
            maps = layer(maps)
        return maps

    def head(self, stride: int) -> GuidedHead:
        """Of stride 32, 16 or 8."""
        return submodule(self.module_list, str(HEADS[stride]), GuidedHead)

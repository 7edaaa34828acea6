"""RefTR's image network: torchvision's ResNet without its classifier, and the sine position code.

Shapes: B images, (H, W) the padded canvas, (h, w) a feature map, C channels.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import FrozenBatchNorm2d

from groundwork.models.common.normalised import normalised
from groundwork.models.common.positions import cell_positions
from groundwork.models.common.timm_backbone import TimmBackbone
from groundwork.models.common.torch_types import submodule


class FoldedBasicBlock(BasicBlock):
    """torchvision's, with frozen norms in the weights of their convolutions."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h / stride, w / stride)."""
        state = self.relu(normalised(self.conv1, self.bn1, maps))
        state = normalised(self.conv2, self.bn2, state)
        return self.relu(state + _shortcut(self, maps))


class FoldedBottleneck(Bottleneck):
    """torchvision's, with frozen norms in the weights of their convolutions."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h / stride, w / stride)."""
        state = self.relu(normalised(self.conv1, self.bn1, maps))
        state = self.relu(normalised(self.conv2, self.bn2, state))
        state = normalised(self.conv3, self.bn3, state)
        return self.relu(state + _shortcut(self, maps))


def _shortcut(block: BasicBlock | Bottleneck, maps: Tensor) -> Tensor:
    if block.downsample is None:
        return maps
    return normalised(submodule(block.downsample, "0", nn.Conv2d), block.downsample[1], maps)


BLOCKS: dict[str, tuple[type[BasicBlock | Bottleneck], list[int]]] = {
    "resnet10": (FoldedBasicBlock, [1, 1, 1, 1]),
    "resnet18": (FoldedBasicBlock, [2, 2, 2, 2]),
    "resnet34": (FoldedBasicBlock, [3, 4, 6, 3]),
    "resnet50": (FoldedBottleneck, [3, 4, 6, 3]),
    "resnet101": (FoldedBottleneck, [3, 4, 23, 3]),
}
PARTS = ("stem", "layer1", "layer2", "layer3", "layer4")


class FeatureMap(NamedTuple):
    """features (B, C, h, w); padding (B, h, w) bool, True where the sampled pixel is padding."""

    features: Tensor
    padding: Tensor


NORMS: dict[str, Callable[..., nn.Module]] = {
    "frozen": FrozenBatchNorm2d,
    "batch": nn.BatchNorm2d,
    # As many groups as the channels allow.
    "group": lambda channels: nn.GroupNorm(math.gcd(32, channels), channels),
}


class ResNetBody(ResNet):
    """A ResNet's four stages, with narrower stages or a finer last map on request.

    Args:
        name: a key of `BLOCKS`.
        width: channels of the first stage before expansion; other than 64 for basic blocks only.
        norm: a key of `NORMS`.
        output_stride: 8, 16 or 32. Bottlenecks are dilated where a stride is left out;
            torchvision's basic blocks cannot be, and only lose the stride.
    """

    def __init__(self, name: str, *, width: int, norm: str, output_stride: int):
        block, counts = BLOCKS[name]
        self.name, self._scale = name, width / 64
        super().__init__(
            block,
            counts,
            norm_layer=NORMS[norm],
            replace_stride_with_dilation=[False, output_stride < 16, output_stride < 32],
        )
        del self.avgpool, self.fc
        if width != 64:
            self._narrow_stem(width, block, counts[0])
        # A tenth to a fifth faster on a CPU than channels first.
        self.to(memory_format=torch.channels_last)

    def _narrow_stem(self, width: int, block: type[BasicBlock | Bottleneck], blocks: int) -> None:
        """torchvision's stem always has 64 channels."""
        self.inplanes = width
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = self._norm_layer(width)
        self.layer1 = self._make_layer(block, 64, blocks)
        for part in (self.conv1, *self.layer1.modules()):
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def _make_layer(
        self,
        block: type[BasicBlock | Bottleneck],
        planes: int,
        blocks: int,
        stride: int = 1,
        dilate: bool = False,
    ) -> nn.Sequential:
        if dilate and issubclass(block, BasicBlock):
            stride, dilate = 1, False
        return super()._make_layer(block, int(planes * self._scale), blocks, stride, dilate)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (B, 3, H, W) -> the four stages' maps, strides 4, 8, 16, 32 by default."""
        state, maps = self.maxpool(self.relu(normalised(self.conv1, self.bn1, image))), []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            state = stage(state)
            maps.append(state)
        return maps

    @property
    def channels(self) -> list[int]:
        """Of the four maps."""
        expansion = BLOCKS[self.name][0].expansion
        return [int(planes * self._scale) * expansion for planes in (64, 128, 256, 512)]


class ImageNetwork(nn.Module):
    """Image (B, 3, H, W) and its padding (B, H, W) -> maps, finest first.

    channels: of the maps of the body.
    """

    def __init__(self, body: ResNetBody | TimmBackbone):
        super().__init__()
        self.body: nn.Module = body
        self.channels: list[int] = body.channels


class Backbone(ImageNetwork):
    """The body with padding masks for its maps.

    Args:
        train_from: the first of `PARTS` that is trained, or "nothing".
        all_maps: whether `forward` gives all four maps (for masks) or the last one only.
    """

    def __init__(self, body: ResNetBody, *, train_from: str = "layer2", all_maps: bool = False):
        super().__init__(body)
        self.all_maps = all_maps
        trained = () if train_from == "nothing" else PARTS[PARTS.index(train_from) :]
        for name, parameter in body.named_parameters():
            part = name.split(".")[0]
            parameter.requires_grad_((part if part in PARTS else "stem") in trained)

    def forward(self, image: Tensor, padding: Tensor) -> list[FeatureMap]:
        """Image (B, 3, H, W) and its padding (B, H, W) -> maps, finest first."""
        maps = self.body(image)
        return [
            FeatureMap(features, _shrink(padding, features.shape[-2:]))
            for features in (maps if self.all_maps else maps[-1:])
        ]


class TimmReftrBackbone(ImageNetwork):
    """A network of timm as RefTR's."""

    def forward(self, image: Tensor, padding: Tensor) -> list[FeatureMap]:
        """Image (B, 3, H, W) and its padding (B, H, W) -> the map."""
        return [
            FeatureMap(features, _shrink(padding, features.shape[-2:]))
            for features in self.body(image)
        ]


def _shrink(padding: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(padding[:, None].float(), size=size)[:, 0].bool()


class SinePosition(nn.Module):
    """`cell_positions` as a part of the model; has no parameters.

    The half cell that is subtracted belongs to the published weights.
    """

    def __init__(self, width: int, temperature: float = 10000.0):
        super().__init__()
        self.width, self.temperature = width, temperature

    def forward(self, padding: Tensor) -> Tensor:
        """Padding (B, h, w) bool -> (B, width, h, w) float32, rows in the first half."""
        return cell_positions(padding, self.width, shift=0.5, temperature=self.temperature)

"""Any backbone of timm, from a file of its weights, as image network of any system.

Shapes: B images of (H, W) pixels; a map of stride s has H / s rows and W / s columns, rounded up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers import AvgPool2dSame, Conv2dSame
from torch import Tensor, nn

from groundwork.files.packaged import packaged_file
from groundwork.geometry.pixels import NORMALISATIONS
from groundwork.models.common.checkpoint import (
    CheckpointError,
    LoadReport,
    load_strictly,
    read_checkpoint,
)
from groundwork.models.common.checks import require
from groundwork.models.common.frozen_cache import CacheConfig, FrozenCache

_STRIDED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True, kw_only=True, slots=True)
class TimmConfig:
    """A backbone of timm.

    name: timm's, such as tf_efficientnet_lite0. strides: pixels per cell of the maps that are seen,
        finest first.
    train: whether its weights are trained; the statistics of its norms never are.
    cache: of its maps while it is frozen; null: none.
    """

    name: str
    strides: tuple[int, ...] = (16, 32)
    train: bool = False
    cache: CacheConfig | None = None

    def __post_init__(self) -> None:
        require(
            bool(self.strides) and list(self.strides) == sorted(set(self.strides)),
            f"strides {list(self.strides)} must be numbers of pixels, finest first",
        )
        require(
            not (self.train and self.cache),
            "cache needs train: false; the maps of a network in training change with it",
        )

    def build(self, normalisation: str, *, joined: bool = False) -> TimmBackbone:
        """The network with random weights; `joined`: see `TimmBackbone`.

        Args:
            normalisation: of the images that it will see, a key of `pixels.NORMALISATIONS`.

        Raises:
            ValueError: timm has no such network, or it has no map of one of the strides.
        """
        return TimmBackbone(
            MovedBody(_features(self.name, self.strides), normalisation),
            train=self.train,
            joined=joined,
            cache=self.cache.build(f"{self.name} {self.strides}") if self.cache else None,
        )


def _features(name: str, strides: Sequence[int]) -> nn.Module:
    if not timm.is_model(name):
        raise ValueError(f"backbone: timm has no {name!r}; see timm.list_models()")
    try:
        whole: Any = timm.create_model(name, features_only=True)
        every = whole.feature_info.reduction()
    except (RuntimeError, AttributeError) as error:
        raise ValueError(f"backbone: timm's {name} gives no maps of features") from error
    for stride in strides:
        if stride not in every:
            known = ", ".join(map(str, every))
            raise ValueError(f"backbone: {name} has no map of stride {stride}; legal: {known}")
    places = tuple(len(every) - 1 - every[::-1].index(stride) for stride in strides)
    return timm.create_model(name, features_only=True, out_indices=places)


class MovedBody(nn.Module):
    """A network of timm that sees an image so far aside that its finest cells lie on their patches.

    A convolution of odd size that halves an image sees half a pixel too far to one side, where one
    of even size would see straight on, so that the cells of such a network of stride s lie
    (s - 1) / 2 pixels beside their patches.

    Args:
        body: timm's network with `features_only`.
        normalisation: of the images that come in; the network gets them in its own.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, body: Any, normalisation: str):
        super().__init__()
        self.body = body.eval()
        self.strides: list[int] = body.feature_info.reduction()
        self.channels: list[int] = body.feature_info.channels()
        mean, deviation = (_colours(values) for values in NORMALISATIONS[normalisation])
        wanted = body.pretrained_cfg
        own_mean, own_deviation = _colours(wanted["mean"]), _colours(wanted["std"])
        self.register_buffer("scale", deviation / own_deviation, persistent=False)
        self.register_buffer("shift", (mean - own_mean) / own_deviation, persistent=False)
        starts = [cell_start(self.body, stride) for stride in self.strides]
        finest = self.strides[0]
        self.margin = -round(starts[0] - (finest - 1) / 2) % finest
        self.starts = [start - self.margin for start in starts]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (B, 3, H, W) -> maps (B, channels[k], h_k, w_k), whose first cell is centred on
        pixel starts[k] of the image in both directions."""
        margin, coarsest = self.margin, self.strides[-1]
        below, beside = ((-side - margin) % coarsest for side in image.shape[-2:])
        framed = F.pad(image * self.scale + self.shift, (margin, beside, margin, below))
        return list(self.body(framed))


class TimmBackbone(nn.Module):
    """Maps of a network of timm, whose cell (i, j) is centred on patch (i, j) of the image.

    Args:
        moved: the network. train: whether its weights are trained. The statistics of its norms stay
            as they are.
        joined: `forward` gives one map, all maps read on the patches of the finest; otherwise each
            is read on patches of its own stride.
        cache: of what a frozen network gives.
    """

    def __init__(
        self,
        moved: MovedBody,
        *,
        train: bool = False,
        joined: bool = False,
        cache: FrozenCache | None = None,
    ):
        super().__init__()
        self.moved = moved.requires_grad_(train)
        self.channels = [sum(moved.channels)] if joined else moved.channels
        self.frozen, self.joined, self.cache = not train, joined, cache

    def train(self, mode: bool = True) -> TimmBackbone:
        """As torch's, but the network stays in evaluation mode."""
        super().train(mode)
        self.moved.eval()
        return self

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (B, 3, H, W) -> maps (B, channels[k], H / stride, W / stride)."""
        strides, starts = self.moved.strides, self.moved.starts
        patches = strides[:1] * len(strides) if self.joined else strides
        found = []
        for one, stride, start, patch in zip(
            self._seen(image), strides, starts, patches, strict=True
        ):
            rows, columns = (
                _reading(-(-side // patch), patch, cells, stride, start).to(one)
                for side, cells in zip(image.shape[-2:], one.shape[-2:], strict=True)
            )
            found.append(rows @ one @ columns.T)
        return [torch.cat(found, dim=1)] if self.joined else found

    def _seen(self, image: Tensor) -> list[Tensor]:
        with nullcontext() if not self.frozen else torch.no_grad():
            return self.cache(self.moved, image) if self.cache else self.moved(image)


def compilable_network(network: nn.Module) -> nn.Module:
    """An image network without what keeps its maps on disk, if it is timm's."""
    return network.moved if isinstance(network, TimmBackbone) else network


def _colours(values: Sequence[float]) -> Tensor:
    return torch.tensor(values)[:, None, None]


def _reading(patches: int, patch: int, cells: int, stride: int, start: float) -> Tensor:
    """(patches, cells): the weights with which cells of `stride` pixels, the first of which is
    centred on pixel `start`, are read at the middle of each patch of `patch` pixels."""
    place = (torch.arange(patches) * patch + (patch - 1) / 2 - start) / stride
    distance = (place.clamp(0, cells - 1)[:, None] - torch.arange(cells)).abs()
    return (1 - distance).clamp(min=0)


def cell_start(body: nn.Module, stride: int) -> float:
    """The pixel, counted from 0, that the first cell of a network's map of `stride` is centred on.

    Follows from size and padding of what halves the image on the way there; of several beside each
    other, such as the pooling of a shortcut, it is the mean.

    Raises:
        ValueError: not all of the stride is due to convolutions and poolings.
    """
    side, steps = 128, dict[int, list[tuple[int, float]]]()

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        step, size = _first(module.stride), _first(module.kernel_size)
        jump = side // inputs[0].shape[-1]
        if step > 1 and jump < stride:
            offset = (size - 1) / 2 - _padding(module, size, step)
            steps.setdefault(jump, []).append((step, jump * offset))

    hooks = [m.register_forward_pre_hook(note) for m in body.modules() if isinstance(m, _STRIDED)]
    with torch.no_grad():
        body(torch.zeros(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    jump, start = 1, 0.0
    while jump < stride:
        found = steps.get(jump)
        if not found:
            raise ValueError(f"backbone: what makes its stride {2 * jump} is no convolution")
        start += sum(offset for _, offset in found) / len(found)
        jump *= found[0][0]
    return start


def _first(value: Any) -> int:
    return int(value[0]) if isinstance(value, tuple) else int(value)


def _padding(module: Any, size: int, step: int) -> int:
    if isinstance(module, Conv2dSame | AvgPool2dSame):
        return (size - step) // 2  # TensorFlow's: the odd pixel is added at the end
    return _first(module.padding)


def initialise_backbone(backbone: TimmBackbone, source: str) -> LoadReport:
    """The network from a file with its weights, under timm's names or, where all are of the same
    shapes, in timm's order; what comes after the network in the file is not used.

    Raises:
        FileNotFoundError, CheckpointError: see `models.common.checkpoint`.
    """
    path = packaged_file(source)
    state, own = dict(read_checkpoint(path)["model"]), backbone.moved.body.state_dict()
    report = LoadReport(source=f"{source} (backbone)")
    if not own.keys() <= state.keys():
        state = _in_order(state, own, path)
        report.notes.append("Its names are not timm's; shapes and order of its entries are.")
    rest = tuple(key for key in state if key not in own)
    load_strictly(backbone.moved.body, state, report=report, ignored=rest)
    return report


def _in_order(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    # What the file holds beyond the network, such as a classifier, comes after it.
    values = list(state.values())[: len(own)]
    shapes = [value.shape for value in values] + [None] * (len(own) - len(values))
    other = [
        name for (name, mine), shape in zip(own.items(), shapes, strict=True) if mine.shape != shape
    ]
    if other:
        raise CheckpointError(
            f"{path}: neither names nor shapes of its {len(state)} entries are those of the "
            f"backbone, first at {other[0]}; give the file of the network that model names, such "
            "as one that timm saved"
        )
    return dict(zip(own, values, strict=True))

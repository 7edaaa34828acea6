"""The image encoder: timm's ViT without a pooled output."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d, PatchEmbed, build_sincos2d_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from groundwork.models.common.timm_backbone import TimmBackbone


class ConvolutionalPatchEmbed(PatchEmbed):
    """Patches through convolutions instead of one linear map (Xiao et al., *Early Convolutions Help
    Transformers See Better*, NeurIPS 2021).

    Two convolutions with batch norm at every resolution, the first of which halves it, until a cell
    is a patch; then a linear map. Same grid and shapes as timm's `PatchEmbed`.
    """

    def __init__(self, img_size: int, patch_size: int, embed_dim: int, **timm_options: Any):
        super().__init__(
            img_size=img_size, patch_size=patch_size, embed_dim=embed_dim, **timm_options
        )
        stages = patch_size.bit_length() - 1  # patch_size is a power of two
        layers: list[nn.Module] = []
        channels = 3
        for stage in range(stages):
            before, channels = channels, embed_dim * 3 // 4 >> (stages - 1 - stage)
            layers += _block(before, channels, stride=2) + _block(channels, channels, stride=1)
        last = nn.Conv2d(channels, embed_dim, kernel_size=1)
        self.register_module("proj", nn.Sequential(*layers, last))


def _block(before: int, channels: int, *, stride: int) -> list[nn.Module]:
    # What a cell sees must lie around its patch, as heat maps are read cell by patch: with 3 pixels
    # a halving convolution would see half a pixel too far up and left.
    kernel = 4 if stride == 2 else 3
    convolution = nn.Conv2d(before, channels, kernel, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return [convolution, nn.BatchNorm2d(channels), nn.ReLU()]


class OnlyMap(nn.Module):
    """The map of a backbone that gives one."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        return maps[0]


class BackbonePatchEmbed(PatchEmbed):
    """Patches through the map of a backbone of that stride, a norm and a linear map."""

    def __init__(
        self,
        img_size: int,
        patch_size: int,
        embed_dim: int,
        *,
        backbone: TimmBackbone | None,
        **timm_options: Any,
    ):
        super().__init__(
            img_size=img_size, patch_size=patch_size, embed_dim=embed_dim, **timm_options
        )
        if backbone is None:
            raise ValueError("stem backbone: give the backbone")
        (channels,) = backbone.channels
        layers = (LayerNorm2d(channels), nn.Conv2d(channels, embed_dim, kernel_size=1))
        self.register_module("proj", nn.Sequential(backbone, OnlyMap(), *layers))


def vision_transformer(
    *,
    image_size: int,
    patch_size: int,
    width: int,
    depth: int,
    heads: int,
    stem: str = "linear",
    backbone: TimmBackbone | None = None,
) -> VisionTransformer:
    """A ViT from (B, 3, image_size, image_size) to tokens (B, 1 + N, width); token 0 is [CLS].

    timm's parameter names are those of the published checkpoints. `stem` "convolutions" takes a
    `ConvolutionalPatchEmbed`, "backbone" a `BackbonePatchEmbed` of that backbone.
    """
    stems: dict[str, Callable[..., nn.Module]] = {
        "linear": PatchEmbed,
        "convolutions": ConvolutionalPatchEmbed,
        "backbone": partial(BackbonePatchEmbed, backbone=backbone),
    }
    return VisionTransformer(
        img_size=image_size,
        embed_layer=stems[stem],
        patch_size=patch_size,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        qkv_bias=True,
        num_classes=0,
        global_pool="",
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )


def sine_positions(grid: tuple[int, int], width: int) -> Tensor:
    """Start value (1, 1 + rows * columns, width) of position embeddings: zeros for [CLS], sines and
    cosines of row and column for patches. Wavelengths suit grids of some ten cells.
    """
    waves = 0.5 * build_sincos2d_pos_embed(list(grid), width, temperature=10.0)
    return torch.cat([waves.new_zeros(1, width), waves])[None]


def resize_position_embedding(embedding: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embeddings (1, 1 + n * n, width) -> (1, 1 + rows * columns, width) of `grid`.

    The [CLS] row is kept; the square grid is resized bicubically without antialiasing, which is
    what the published numbers were computed with (timm's own resampling antialiases).

    Raises:
        ValueError: the embedding's grid is not square.
    """
    cls_row, cells = embedding[:, :1], embedding[:, 1:]
    side = round(cells.shape[1] ** 0.5)
    if side * side != cells.shape[1]:
        raise ValueError(f"pos_embed has {cells.shape[1]} patch rows, which is not a square grid")
    if (side, side) == tuple(grid):
        return embedding
    cells = cells.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    cells = F.interpolate(cells, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([cls_row, cells.flatten(2).transpose(1, 2)], dim=1)

"""The image encoder: timm's ViT without a pooled output."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


def vision_transformer(
    *, image_size: int, patch_size: int, width: int, depth: int, heads: int
) -> VisionTransformer:
    """A ViT from (B, 3, image_size, image_size) to tokens (B, 1 + N, width); token 0 is [CLS].

    timm's parameter names are those of the published checkpoints.
    """
    return VisionTransformer(
        img_size=image_size,
        patch_size=patch_size,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        qkv_bias=True,
        num_classes=0,
        global_pool="",
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )


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

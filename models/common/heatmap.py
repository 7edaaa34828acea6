"""From a coarse heat map to a point of the image.

Legend: n maps, h x w cells each, enlarged to an image of H x W pixels.
"""

import torch
from torch.nn import functional


def enlarge(heatmaps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Enlarge heat maps to the size of their image, as the released evaluations do.

    Args:
        heatmaps: (n, h, w) floating point maps; h and w need not be equal.
        size: (height, width) of the image in pixels.

    Returns:
        (n, height, width) maps, bicubic with align_corners=False. Bicubic weights overshoot, so
        the result may leave the range of the input.

    Raises:
        ValueError: heatmaps is not (n, h, w) or size is not positive.
    """
    if heatmaps.dim() != 3:
        raise ValueError(f"heat maps must be (n, h, w), got shape {tuple(heatmaps.shape)}")
    if min(size) < 1:
        raise ValueError(f"size must be a positive (height, width), got {tuple(size)}")
    enlarged = functional.interpolate(
        heatmaps[:, None], size=tuple(size), mode="bicubic", align_corners=False
    )
    return enlarged[:, 0]


def first_maximum(maps: torch.Tensor) -> torch.Tensor:
    """The pixel of the largest value of every map; the first in row-major order when several tie.

    Args:
        maps: (n, H, W) finite values.

    Returns:
        (n, 2) int64 points (x, y) in pixels.

    Raises:
        ValueError: maps is not (n, H, W) with at least one pixel.
    """
    if maps.dim() != 3 or maps.shape[1] * maps.shape[2] == 0:
        raise ValueError(f"maps must be (n, H, W) with pixels, got shape {tuple(maps.shape)}")
    flat = maps.flatten(1)
    # torch.argmax does not promise which of several equal maxima it returns; argmax over the
    # boolean "is a maximum" cast to an ordered weight does.
    order = torch.arange(flat.shape[1], 0, -1, device=maps.device)
    index = ((flat == flat.amax(dim=1, keepdim=True)) * order).argmax(dim=1)
    return torch.stack([index % maps.shape[2], index // maps.shape[2]], dim=1)


def explanation(
    attention: torch.Tensor,
    gradient: torch.Tensor,
    text_mask: torch.Tensor,
    grid: tuple[int, int],
) -> torch.Tensor:
    """Grad-CAM of a cross-attention: where the image supports the match of a text (AMC, section 3).

    Args:
        attention: (n, heads, L, 1 + N) attention probabilities from L tokens to [CLS] and N
            patches.
        gradient: the same shape, gradient of the matching score with respect to `attention`.
        text_mask: (n, L), 1 where there is a token.
        grid: rows and columns of patches, N = rows * columns.

    Returns:
        (n, rows, columns), not negative: mean over heads and over all L positions. Padding
        contributes nothing and still counts in the divisor, as released; that scales a map and
        moves no maximum.
    """
    return token_support(attention, gradient, text_mask).mean(dim=1).unflatten(-1, grid)


def token_support(
    attention: torch.Tensor, gradient: torch.Tensor, text_mask: torch.Tensor
) -> torch.Tensor:
    """What `explanation` is the mean of: (n, L, N), of every position; 0 on padding."""
    support = (attention * gradient.relu())[..., 1:].mean(dim=1)
    return support * text_mask[:, :, None].to(support.dtype)


def min_max(heatmaps: torch.Tensor) -> torch.Tensor:
    """Scale each map of (n, h, w) to reach from 0 to 1 (all but 1e-7); a constant one is 0."""
    heatmaps = heatmaps.relu()
    heatmaps = heatmaps - heatmaps.amin(dim=(1, 2), keepdim=True)
    return heatmaps / (heatmaps.amax(dim=(1, 2), keepdim=True) + 1e-7)

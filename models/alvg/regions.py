"""Where attention should lie: maps of the targets on the grid of cells, and the two losses on them.

Shapes: n targets of a sample, (S, S) the image, (h, w) the grid.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_convert

# Added to the attention inside, so that attention that misses its target costs 1000 at most.
INSIDE = 1e-3
# Boxes come as fractions in float32; without this a whole pixel number could become the next one.
WHOLE_PIXEL = 5e-4


def coverage(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """(n, S, S) bool or 0/1 -> (n, h, w), the share of each cell that is inside."""
    if not len(masks):
        return masks.new_zeros(0, *grid, dtype=torch.float32)
    return F.interpolate(masks[:, None].float(), size=grid, mode="area")[:, 0]


def rasterise(boxes: Tensor, side: int, canvas: int) -> Tensor:
    """Boxes (n, 4) cxcywh in [0, 1] of an image of `side` pixels -> (n, canvas, canvas) float.

    1 from the pixel of the left upper corner to that of the right lower one, both included. A
    canvas of another size than the image is not a scaled one: it is larger than the image.
    """
    corners = box_convert(boxes.float(), "cxcywh", "xyxy") * side
    low = (corners[:, :2] + WHOLE_PIXEL).floor().clamp(min=0)
    high = (corners[:, 2:] - WHOLE_PIXEL).ceil()
    place = torch.arange(canvas, device=boxes.device)
    across, down = (
        (place >= low[:, axis, None]) & (place <= high[:, axis, None]) for axis in (0, 1)
    )
    return (down[:, :, None] & across[:, None]).float()


def overlap(shares: Tensor) -> Tensor:
    """What the score is rewarded for: (n, h, w) -> (h, w).

    Inside the targets positive, about 1 in total; elsewhere negative, -1 in total.
    """
    grid = shares.shape[1:]
    if not len(shares):
        return shares.new_full(grid, -1.0 / grid.numel())
    total = shares.sum(dim=(1, 2), keepdim=True)
    # A target without any area would be a division by zero, as it is in the release.
    inside = (shares / total.clamp(min=torch.finfo(shares.dtype).tiny)).amax(dim=0) / len(shares)
    outside = inside == 0
    return torch.where(outside, -1.0 / outside.sum().clamp(min=1), inside)


def outside_ratio(attention: Tensor, focus: Tensor) -> Tensor:
    """Attention outside of the targets over that inside: (..., h, w) and (..., h, w) -> (...).

    0 for a target that no cell belongs to: nothing can be learnt from it.
    """
    every, inside = attention.sum(dim=(-2, -1)), (attention * focus).sum(dim=(-2, -1))
    return (every - inside) / (inside + INSIDE) * (focus.sum(dim=(-2, -1)) > 0)

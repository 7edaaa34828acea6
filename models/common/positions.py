"""Sine codes of cells and of tokens; no parameters."""

import math

import torch
from torch import Tensor


def cell_positions(
    padding: Tensor, width: int, *, shift: float = 0.0, temperature: float = 10000.0
) -> Tensor:
    """Rows and columns of the valid cells, counted from 1 and divided by their number.

    Codes of padded cells are sines of very large numbers: attention never sees those cells, but
    convolutions do. Hence the order of the operations, in float32.

    Args:
        padding: (B, h, w) bool.
        shift: of a cell, subtracted before the division.
        temperature: the longest wave is this many times as long as the image.

    Returns:
        (B, width, h, w) float32, rows in the first half; sine and cosine in turn.
    """
    codes = []
    for axis in (1, 2):
        place = (~padding).cumsum(axis, dtype=torch.float32)
        share = (place - shift) / (place.narrow(axis, -1, 1) + 1e-6)
        codes.append(_waves(share * (2 * math.pi), width // 2, temperature))
    return torch.cat(codes, dim=-1).permute(0, 3, 1, 2)


def token_positions(length: int, width: int, *, integer: bool, like: Tensor) -> Tensor:
    """Places of tokens, counted from 0.

    Args:
        integer: frequencies are cut to integers as in the release, so that only the first is left.
        like: gives the device.

    Returns:
        (length, width) float32.
    """
    place = torch.arange(length, dtype=torch.float32, device=like.device)
    if not integer:
        return _waves(place, width)
    code = torch.zeros(length, width, device=like.device)
    code[:, 0], code[:, 1::2] = place.sin(), 1.0
    code[:, 1] = place.cos()
    return code


def _waves(angle: Tensor, width: int, temperature: float = 10000.0) -> Tensor:
    """Angle (...) -> (..., width)."""
    channel = torch.arange(0, width, 2, dtype=torch.float32, device=angle.device)
    phase = angle[..., None] / temperature ** (channel / width)
    return torch.stack([phase.sin(), phase.cos()], dim=-1).flatten(-2)

"""What the postprocessing of RefCLIP and SimREC shares: they choose a cell of an image that lies in
the middle of a square."""

import numpy as np
import torch
from torch import Tensor


def to_image(
    boxes: np.ndarray, size: tuple[int, int], resized: tuple[int, int], offset: tuple[int, int]
) -> np.ndarray:
    """Boxes on the letterboxed square -> in the original image; both axes by their own factor.

    Args:
        boxes: (..., 4) xyxy. size: (H, W) of the image. resized: (h, w) it has on the square.
        offset: (x, y) of its upper left corner there.
    """
    corner = np.array([*offset, *offset], dtype=np.float64)
    small = np.array([resized[1], resized[0]] * 2, dtype=np.float64)
    return (boxes - corner) / small * np.array([size[1], size[0]] * 2, dtype=np.float64)


def margins(scores: Tensor) -> Tensor:
    """(B, n) -> (B,): how much higher the best is than the second best; infinite for n = 1."""
    best = scores.topk(min(2, scores.shape[1])).values
    if best.shape[1] == 1:
        return torch.full_like(best[:, 0], float("inf"))
    return best[:, 0] - best[:, 1]

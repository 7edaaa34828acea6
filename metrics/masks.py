"""Overlap of masks."""

import numpy as np


def mask_overlap(mask: np.ndarray | None, truth: np.ndarray) -> tuple[int, int]:
    """(intersection, union) in pixels of two (H, W) bool masks; no predicted mask is an empty one.

    Raises:
        ValueError: masks of different sizes.
    """
    if mask is None:
        return 0, int(truth.sum())
    if mask.shape != truth.shape:
        raise ValueError(f"a mask of {mask.shape} cannot be compared with one of {truth.shape}")
    return int((mask & truth).sum()), int((mask | truth).sum())


def mask_iou(overlap: tuple[int, int]) -> float:
    """IoU of an overlap; 1 for two empty masks, which agree (the released code gives NaN)."""
    intersection, union = overlap
    return intersection / union if union else 1.0

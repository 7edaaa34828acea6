"""Masks: from heat maps, to boxes, to other sizes, and as the texts that files hold."""

import json
import os
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from skimage.filters import threshold_otsu
from skimage.measure import label

from groundwork.files.foreign import forward_slashes, load_array
from groundwork.files.safe import inside
from groundwork.geometry.boxes import Box, Size
from groundwork.geometry.segmentations import encode_segmentation

Resampling = Literal["torchvision", "opencv"]
"""Whose rules bring images and masks to another size."""


def mask_to_box(mask: np.ndarray) -> Box | None:
    """The smallest xyxy box around the True pixels of an (H, W) mask; None if there are none."""
    if mask.ndim != 2:
        raise ValueError(f"a mask is (H, W), got shape {mask.shape}")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def heatmap_to_mask(heatmap: np.ndarray, fraction: float = 0.5) -> np.ndarray:
    """A mask from a heat map: where it reaches `fraction` of its maximum, largest blob only.

    Args:
        heatmap: (H, W) finite values, already enlarged to the image; values below 0 count as 0.
        fraction: of the maximum, in (0, 1].

    Returns:
        (H, W) bool, one 8-connected component (the first in row-major order of the largest);
        all False for a map without a positive value.
    """
    _checked_map(heatmap)
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction}")
    peak = heatmap.max(initial=0)
    if peak <= 0:
        return np.zeros(heatmap.shape, dtype=bool)
    above = (heatmap >= fraction * peak).astype(np.uint8)
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    largest = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
    return labels == largest


def otsu_mask(heatmap: np.ndarray) -> np.ndarray:
    """A mask from a heat map: of the connected regions above Otsu's threshold the one with the most
    heat.

    Args:
        heatmap: (H, W) finite values, already enlarged to the image; values below 0 count as 0.

    Returns:
        (H, W) bool, one 8-connected component; all False for a map without a positive value or
        with one value everywhere, which no threshold divides.
    """
    heat = np.clip(_checked_map(heatmap), 0, None)
    if np.ptp(heat) == 0:
        return np.zeros(heat.shape, dtype=bool)
    labels = label(heat > threshold_otsu(heat), connectivity=2)
    sums = np.bincount(labels.ravel(), weights=heat.ravel())
    return labels == 1 + int(sums[1:].argmax())


def _checked_map(heatmap: np.ndarray) -> np.ndarray:
    if heatmap.ndim != 2 or not np.isfinite(heatmap).all():
        raise ValueError(f"a heat map is (H, W) and finite, got shape {heatmap.shape}")
    return heatmap


def resize_mask(mask: np.ndarray, size: Size, resampling: Resampling = "torchvision") -> np.ndarray:
    """(H, W) bool -> `size` bool by the nearest pixel.

    Args:
        resampling: whose rounding: torch's `interpolate` computes the pixel in single precision,
            OpenCV's `resize` in double precision.
    """
    rows, columns = (
        _nearest(old, new, resampling) for old, new in zip(mask.shape, size, strict=True)
    )
    return mask[rows[:, None], columns]


def _nearest(old: int, new: int, resampling: Resampling) -> np.ndarray:
    """(new,) indices into `old` pixels."""
    if resampling == "opencv":
        places = np.arange(new) * (1 / (new / old))
    else:
        places = np.arange(new, dtype=np.float32) * np.float32(old / new)
    return np.minimum(places, old - 1).astype(int)


def decode_mask(text: str, size: Size, root: str | os.PathLike[str] | None = None) -> np.ndarray:
    """The (H, W) bool mask of a record's `Phrase.masks` entry.

    Args:
        text: JSON of a COCO segmentation (`segmentations.encode_segmentation`), or the path of a
            `.npy` array of shape `size`, non-zero inside.
        size: of the original image.
        root: folder that `.npy` paths are relative to.

    Raises:
        FileNotFoundError: the `.npy` file does not exist.
        ValueError: no segmentation, a file outside `root`, or a mask of another size than the
            image.
    """
    if text.endswith(".npy"):
        path = Path(root or ".", inside(forward_slashes(text), "mask"))
        if not path.is_file():
            raise FileNotFoundError(f"mask {path} does not exist; check the root of the masks")
        array = load_array(path, "mask")
        if array.shape != size:
            raise ValueError(f"mask {path} has shape {array.shape}, its image (H, W) = {size}")
        return array != 0
    runs = encode_segmentation(json.loads(text), size)
    if tuple(runs["size"]) != size:
        raise ValueError(f"mask of size {runs['size']} (H, W) for an image of {size}")
    return coco_mask.decode(runs).astype(bool)


def mask_to_runs(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run lengths of an (H, W) mask, {size: [H, W], counts: str} as JSON."""
    runs = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(runs["size"]), "counts": runs["counts"].decode()}


def runs_to_mask(counts: str, size: Size) -> np.ndarray:
    """The (H, W) bool mask of the `counts` that `mask_to_runs` gave."""
    return coco_mask.decode({"size": list(size), "counts": counts.encode()}).astype(bool)

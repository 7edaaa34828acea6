"""COCO's segmentations as compressed run lengths, looked at before pycocotools draws them.

It takes what it is given: runs that do not fill their image leave whatever the memory held
before, longer ones are written behind it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from groundwork.geometry.boxes import Size

# Numbers of a polygon with three corners.
_LEAST_POLYGON = 6
# Characters of a compressed run of at most 32 bits, five of them in each.
_MOST_CHARACTERS = 7
# No image is so large, in pixels; what pycocotools draws takes memory by the length of an edge.
_FARTHEST = 1e6
# A run of COCO has 32 bits.
_MOST_PIXELS = 2**32 - 1


class Degenerate(NamedTuple):
    """Polygons that have no pixel. thin: of fewer than three corners. flat: of corners that lie on
    one line."""

    thin: int
    flat: int


def degenerate_polygons(segmentation: Any) -> Degenerate:
    """How many polygons of a segmentation of any form cannot have a pixel; none of one that
    `encode_segmentation` refuses to look at."""
    shapes = segmentation if isinstance(segmentation, list) else []
    try:
        polygons = [_polygon(shape) for shape in shapes if isinstance(shape, list)]
    except ValueError:
        return Degenerate(0, 0)
    thin = sum(len(polygon) < _LEAST_POLYGON for polygon in polygons)
    return Degenerate(thin, sum(map(_is_flat, polygons)))


def encode_segmentation(segmentation: Any, size: Size) -> dict[str, Any]:
    """Compressed run lengths {size: [H, W], counts: bytes} of any form of COCO segmentation:
    polygons, run lengths, compressed or not, or a list of run lengths (RefCLEF).

    The parts of a list are united, as COCO does. Polygons that cannot have a pixel add nothing.

    Args:
        size: (H, W) of the image, for polygons.

    Raises:
        ValueError: none of these, runs that do not fill their size exactly, or no polygon that can
            have a pixel.
    """
    if isinstance(segmentation, Mapping):
        return _checked_runs(segmentation)
    if isinstance(segmentation, list) and segmentation:
        if all(isinstance(part, Mapping) for part in segmentation):
            parts = [_checked_runs(part) for part in segmentation]
            if len({tuple(part["size"]) for part in parts}) > 1:
                raise ValueError("the parts of a segmentation are of different sizes")
            return coco_mask.merge(parts)
        if all(isinstance(part, list) for part in segmentation):
            return _drawn(segmentation, size)
    raise ValueError(f"not a COCO segmentation (polygons or run lengths): {str(segmentation)[:80]}")


def _drawn(shapes: list[Any], size: Size) -> dict[str, Any]:
    polygons = [polygon for polygon in map(_polygon, shapes) if len(polygon) >= _LEAST_POLYGON]
    if not polygons:
        raise ValueError("every polygon of a segmentation has fewer than three corners")
    if any(len(polygon) % 2 for polygon in polygons):
        raise ValueError("a polygon of a segmentation has an x without its y")
    polygons = [polygon for polygon in polygons if not _is_flat(polygon)]
    if not polygons:
        raise ValueError("the corners of every polygon of a segmentation lie on one line")
    height, width = size
    return coco_mask.merge(coco_mask.frPyObjects([p.tolist() for p in polygons], height, width))


def _polygon(shape: Any) -> np.ndarray:
    try:
        numbers = np.asarray(shape, dtype=np.float64)
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"a polygon is a list of numbers, not {str(shape)[:80]}") from error
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise ValueError(f"a polygon is a list of finite numbers, not {str(shape)[:80]}")
    if (np.abs(numbers) > _FARTHEST).any():
        raise ValueError(f"a polygon with a corner {np.abs(numbers).max():g} pixels away")
    return numbers


def _is_flat(polygon: np.ndarray) -> bool:
    """Whether the corners, at least three, lie on one line."""
    if len(polygon) < _LEAST_POLYGON or len(polygon) % 2:
        return False
    corners = polygon.reshape(-1, 2)
    offsets = corners - corners[0]
    x, y = offsets[np.abs(offsets).sum(axis=1).argmax()]
    return bool((np.abs(offsets[:, 0] * y - offsets[:, 1] * x) < 1e-9).all())


def _checked_runs(runs: Mapping[str, Any]) -> dict[str, Any]:
    """Compressed run lengths that fill their size."""
    missing = {"size", "counts"} - runs.keys()
    if missing:
        raise ValueError(
            f"the run lengths of a segmentation have no {' and no '.join(sorted(missing))}"
        )
    size, counts = runs["size"], runs["counts"]
    sides = isinstance(size, list | tuple) and len(size) == 2
    if not sides or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(f"the size of run lengths is [height, width], not {size!r}")
    pixels = size[0] * size[1]
    if pixels > _MOST_PIXELS:
        raise ValueError(f"run lengths of {size[0]}x{size[1]} pixels: no image is so large")
    lengths = _numbers(counts)
    if (lengths < 0).any():
        raise ValueError(f"run lengths with the negative count {lengths.min()}")
    # Of Python's numbers, as numpy's sum of huge ones begins again at zero.
    filled = sum(lengths.tolist())
    if filled != pixels:
        raise ValueError(
            f"run lengths of {filled} pixels for an image of {size[0]}x{size[1]} = {pixels}"
            " (height, width): they must fill it, are they cut off?"
        )
    if isinstance(counts, list):
        return coco_mask.frPyObjects({"size": list(size), "counts": lengths.tolist()}, *size)
    return {"size": list(size), "counts": counts.encode() if isinstance(counts, str) else counts}


def _numbers(counts: Any) -> np.ndarray:
    if isinstance(counts, str | bytes):
        return _uncompressed(counts.encode() if isinstance(counts, str) else counts)
    numbers = np.asarray(counts if isinstance(counts, list) else [None])
    if not len(counts if isinstance(counts, list) else [None]):
        return np.zeros(0, dtype=np.int64)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise ValueError(f"the counts of run lengths are whole numbers, not {str(counts)[:80]}")
    return numbers


def _uncompressed(text: bytes) -> np.ndarray:
    """The counts of COCO's text of them: five bits in a character, the lowest first, with a mark
    for "more follows"; from the fourth on a count is the difference to the last but one."""
    codes = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if not len(codes):
        return codes
    ends = (codes & 32) == 0
    if codes.min() < 0 or codes.max() > 63 or not ends[-1]:
        raise ValueError("damaged run lengths: they are no text of COCO's compression")
    starts = np.flatnonzero(np.concatenate([[True], ends[:-1]]))
    place = np.arange(len(codes)) - np.repeat(starts, np.diff(starts, append=len(codes)))
    if place.max() >= _MOST_CHARACTERS:
        raise ValueError("damaged run lengths: a count of more than 32 bits")
    counts = np.add.reduceat((codes & 31) << (5 * place), starts)
    negative = (codes[ends] & 16) > 0
    counts -= np.where(negative, 1 << (5 * (place[ends] + 1)), 0)
    counts[1::2] = np.cumsum(counts[1::2])
    counts[2::2] = np.cumsum(counts[2::2])
    return counts

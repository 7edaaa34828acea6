"""The images of a list: opened once, and told apart by what they show."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial import cKDTree

from groundwork.dataset.images import CorruptImageError, load_image, resolve_image
from groundwork.geometry import Size
from groundwork.tools.findings import CORRUPT, MISSING, OUTSIDE
from groundwork.tools.preparation import progress

_SIDE, _FEW = 16, 2
# The most by which a copy that was saved again, or smaller, differs in a cell of its thumbnail, and
# on average: JPEG lets saturated colours run, and never moves all of an image.
_MOST, _MEAN = 24, 3


@dataclass(frozen=True)
class Opened:
    """An image as it is shown.

    name: below the folder of the images. size: (H, W). digest: of its pixels. thumbnail: (cells,
    cells, 3), their means.
    """

    name: str
    size: Size
    digest: str
    thumbnail: np.ndarray


@dataclass(frozen=True)
class Unusable:
    """Why an image cannot be used. kind: one of `tools.findings`."""

    kind: str
    message: str


def open_images(named: Mapping[str, str], root: Path, workers: int) -> dict[str, Opened | Unusable]:
    """Every image of a list.

    Args:
        named: image -> where it is named, for messages. root: their folder. workers: threads.
    """
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda item: _open(*item, root), named.items())
        found = progress(found, unit="images", what="images", total=len(named))
        return dict(zip(named, found, strict=True))


def _open(image: str, source: str, root: Path) -> Opened | Unusable:
    try:
        path = resolve_image(str(root), image, source)
        pixels = load_image(path, source, "shown")
    except FileNotFoundError as error:
        return Unusable(MISSING, str(error))
    except CorruptImageError as error:
        return Unusable(CORRUPT, str(error))
    except ValueError as error:
        return Unusable(OUTSIDE, str(error))
    size = (pixels.shape[0], pixels.shape[1])
    digest = sha256(f"{size}".encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()
    small = cv2.resize(pixels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return Opened(path.relative_to(root).as_posix(), size, digest, small)


def alike(images: Iterable[Opened]) -> list[list[str]]:
    """The names of the images in groups that show the same: files of the same pixels, and copies
    that were saved again or in another size."""
    by_digest: dict[str, list[Opened]] = {}
    for image in images:
        by_digest.setdefault(image.digest, []).append(image)
    different = [same[0] for same in by_digest.values()]
    groups: dict[int, list[str]] = {}
    for first, same in zip(_firsts(different), by_digest.values(), strict=True):
        groups.setdefault(first, []).extend(image.name for image in same)
    return [sorted(set(names)) for names in groups.values()]


def _firsts(images: list[Opened]) -> list[int]:
    """Of each image the first one that shows the same, or the same as one that does, and so on."""
    if not images:
        return []
    thumbnails = np.stack([image.thumbnail for image in images]).astype(np.int16)
    cells = thumbnails.reshape(-1, _FEW, _SIDE // _FEW, _FEW, _SIDE // _FEW, 3).mean(axis=(2, 4))
    tree = cKDTree(cells.reshape(len(images), -1))
    firsts = list(range(len(images)))

    def first_of(index: int) -> int:
        while firsts[index] != index:
            index = firsts[index]
        return index

    for index, thumbnail in enumerate(thumbnails):
        near = np.asarray(tree.query_ball_point(tree.data[index], _MEAN, p=np.inf))
        near = near[near > index]
        apart = np.abs(thumbnails[near] - thumbnail).reshape(len(near), thumbnail.size)
        same = (apart.max(axis=1) <= _MOST) & (apart.mean(axis=1) <= _MEAN)
        for other in near[same].tolist():
            low, high = sorted((first_of(index), first_of(other)))
            firsts[high] = low
    return [first_of(index) for index in range(len(images))]

"""The images of a list, before a run: are they there, can they be decoded, how are they read."""

import math
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from PIL import Image
from tqdm import tqdm

from groundwork.dataset.images import (
    DAMAGE,
    CorruptImageError,
    ImagePlace,
    load_image,
    open_root,
    readable,
    require_bits,
    resolve_image,
)
from groundwork.geometry import Size
from groundwork.tools.config_parts import Part
from groundwork.tools.findings import CORRUPT, DEEP, MISSING, OUTSIDE, TRUNCATED, TURNED, Findings

_ORIENTATION = 0x0112  # EXIF's tag
_QUARTER_TURNS = (5, 6, 7, 8)


def check_images(
    images: dict[str, tuple[str, str]],
    part: Part,
    findings: Findings,
    sample: int | None,
    workers: int,
) -> tuple[dict[str, Size], int]:
    """Sizes (height, width) of the images that can be opened, and how many were decoded.

    Args:
        images: name -> (root, record that names it first). sample: how many to decode; None: all.
        workers: processes, at most.
    """
    for root in {root for root, _ in images.values()}:
        open_root(root)
    names = list(images)
    decoded = len(names) if sample is None else min(sample, len(names))
    chosen = set(random.Random(0).sample(names, decoded))
    resolve = partial(resolve_image, allow_outside=part.allow_outside_paths)
    tasks = [(resolve, name, *images[name], part.opener, name in chosen) for name in names]
    sizes: dict[str, Size] = {}
    workers = min(workers, math.ceil(len(tasks) / 64))
    with ProcessPoolExecutor(workers) as pool:
        results = pool.map(inspect_image, tasks, chunksize=64)
        for name, result in zip(names, tqdm(results, total=len(names), unit="image"), strict=True):
            size, remarks = result
            for remark in remarks:
                findings.add(*remark)
            if size is not None:
                sizes[name] = size
    return sizes, len(chosen)


def inspect_image(
    task: tuple[Callable[[str, str, str], ImagePlace], str, str, str, str, bool],
) -> tuple[Size | None, list[tuple[str, str]]]:
    """((height, width) as opened, or None; what there is to say, as (problem, message)).

    `task` is what finds a file by root, name and source; name, root, source; opener; decode it?
    """
    resolve, name, root, source, opener, decode = task
    try:
        path = resolve(root, name, source)
    except FileNotFoundError as error:
        return None, [(MISSING, str(error))]
    except ValueError as error:
        return None, [(OUTSIDE, str(error))]
    remarks: list[tuple[str, str]] = []
    try:
        with Image.open(readable(path)) as image:  # reads the header only
            remarks += _header_remarks(image, f"{source}: {name}", opener)
            size = (image.height, image.width)
            decode |= image.format == "TIFF"  # whose sides Pillow may have exchanged already
            if opener != "pillow" and image.getexif().get(_ORIENTATION) in _QUARTER_TURNS:
                size = size[::-1]
        if decode:
            size = load_image(path, source, opener).shape[:2]
            remarks += _truncated(path, name, source, opener)
    except CorruptImageError as error:
        return None, [*remarks, (CORRUPT, str(error))]
    except DAMAGE:
        return _as_the_run(path, source, opener, remarks)
    return size, remarks


def _as_the_run(
    path: ImagePlace, source: str, opener: str, remarks: list[tuple[str, str]]
) -> tuple[Size | None, list[tuple[str, str]]]:
    """As `inspect_image`, of an image whose header Pillow does not read by itself."""
    try:
        return load_image(path, source, opener).shape[:2], remarks
    except CorruptImageError as error:
        return None, [*remarks, (CORRUPT, str(error))]


def _header_remarks(image: Image.Image, about: str, opener: str) -> Iterator[tuple[str, str]]:
    """What the header of an open image says: pixels of many bits, an orientation.

    Raises:
        OSError: no opener makes 8 bits of its pixels.
    """
    bits = require_bits(image)
    if bits > 8:
        yield DEEP, f"{about}: {bits} bits a channel, divided by {1 << (bits - 8)}"
    if image.getexif().get(_ORIENTATION, 1) != 1:
        frame, other = ("stored", "shown") if opener == "pillow" else ("shown", "pillow")
        against = "shown" if opener == "pillow" else "stored"
        yield (
            TURNED,
            f"{about}: boxes are read in the image as {frame}; if they are for the image as"
            f" {against}, set data.opener: {other}",
        )


def _truncated(path: ImagePlace, name: str, source: str, opener: str) -> list[tuple[str, str]]:
    """What a decoder that goes as far as it can does not say."""
    if opener == "shown":
        return []
    try:
        load_image(path, source, "shown")
    except CorruptImageError as error:
        return [(TRUNCATED, f"{source}: {name}: {error.__cause__}")]
    return []

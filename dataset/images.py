"""Finding and decoding pictures; every failure names the file, the record and the remedy."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePath

import cv2
import numpy as np
from PIL import Image, ImageFile, ImageOps

import utils


class CorruptImageError(ValueError):
    """A picture file exists but cannot be decoded completely."""


def resolve_image(
    image_root: str, image: str, source: str = "", *, allow_outside: bool = False
) -> Path:
    """Where the picture `image` of an annotation file is.

    Published annotation files hold absolute paths of their authors' machines, and files by others
    may hold anything, so a picture is looked for below `image_root` only. In this order:
    `image_root` joined with the path; with the path less its first, its first two, ... folders,
    down to the bare file name. Symbolic links below `image_root` are followed.

    Args:
        allow_outside: take the path as it is, if there is a file, before anything else:
            data.allow_outside_paths.

    Raises:
        FileNotFoundError: none of these exists.
        ValueError: the picture is elsewhere, or the path leads out of `image_root` by "..".
    """
    source = source or "record"
    remedy = (
        f"image_root is {image_root!r}. Correct the annotation file or image_root, or, if you trust"
        " the file, set data.allow_outside_paths: true"
    )
    as_it_is = Path(image_root, image)  # joined with an absolute path, that path
    if allow_outside and as_it_is.is_file():
        return as_it_is
    path = PurePath(os.path.normpath(image))
    root = os.path.abspath(image_root)
    if path.is_relative_to(root):
        path = path.relative_to(root)
    elif path.is_absolute():
        path = path.relative_to(path.anchor)
    elif allow_outside:
        path = PurePath(*(part for part in path.parts if part != ".."))
    else:
        path = utils.inside(image, f"{source}: image", remedy)
    for start in range(len(path.parts)):
        candidate = Path(image_root, *path.parts[start:])
        if candidate.is_file():
            return candidate
    if as_it_is.is_file():
        raise ValueError(f"{source}: image {image!r} is not below image_root; {remedy}")
    raise FileNotFoundError(
        f"{source}: image {image!r} is not below image_root {image_root!r}; set image_root to the"
        " folder that holds the pictures"
    )


def load_image(path: Path, source: str = "", opener: str = "pillow") -> np.ndarray:
    """Decode a picture: (H, W, 3) uint8 RGB, by one of `OPENERS`.

    Raises:
        CorruptImageError: damaged, no picture at all, or pixels that are no 8-bit colours by any
            rule; where the opener does not take them, also truncated files.
        ValueError: no such opener.
    """
    if opener not in OPENERS:
        raise ValueError(f"opener {opener!r} is unknown; legal are {', '.join(OPENERS)}")
    try:
        return OPENERS[opener](path)
    except (OSError, SyntaxError, ValueError, cv2.error, Image.DecompressionBombError) as error:
        raise CorruptImageError(
            f"{source or 'record'}: image {path} cannot be decoded ({error}); fetch the file again,"
            " or set data.tolerate_corrupt: true to go on without it"
        ) from error


def _with_pillow(path: Path) -> np.ndarray:
    """As stored; a truncated file as far as it goes, grey below."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        with Image.open(path) as picture:
            return np.asarray(_rgb(picture))
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _as_shown(path: Path) -> np.ndarray:
    """Turned as its EXIF orientation says; a truncated file is damaged."""
    with Image.open(path) as picture:
        return np.asarray(_rgb(ImageOps.exif_transpose(picture)))


def _with_opencv(path: Path) -> np.ndarray:
    """Turned as its EXIF orientation says; 16 bits become 8; CMYK by OpenCV's own rule."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise OSError("OpenCV reads no picture in it")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        # Pillow would cut everything above 255: all white.
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise OSError(f"its pixels are numbers of 32 bits, mode {picture.mode}; save it as 8 bits")
    return picture.convert("RGB")


OPENERS: dict[str, Callable[[Path], np.ndarray]] = {
    "shown": _as_shown,
    "pillow": _with_pillow,
    "opencv": _with_opencv,
}
"""How the published systems open pictures, and ours.

| opener | of | orientation in EXIF | truncated files | CMYK |
|---|---|---|---|---|
| shown | own data: boxes are of the picture as it is shown | applied | damaged | Pillow's rule |
| pillow | ALBEF, AMC, SelfEQ | not applied | as far as they go | Pillow's rule |
| opencv | RefTR, RefCLIP, SimREC, ALVG | applied | as far as they go | OpenCV's rule |

All drop an alpha channel and give palettes and grey pictures their colours; 16-bit grey is divided
by 256; pictures of floats or 32-bit integers are refused by Pillow's two.
"""

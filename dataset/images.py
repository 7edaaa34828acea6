"""Finding and decoding pictures; every failure names the file, the record and the remedy."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

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


def load_image(path: Path, source: str = "") -> np.ndarray:
    """Decode a picture completely: (H, W, 3) uint8 RGB in original size.

    Raises:
        CorruptImageError: truncated, damaged or no picture at all.
    """
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise CorruptImageError(
            f"{source or 'record'}: image {path} cannot be decoded ({error}); fetch the file again,"
            " or set data.tolerate_corrupt: true to go on without it"
        ) from error

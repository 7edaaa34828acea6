"""Finding and decoding pictures; every failure names the file, the record and the remedy."""

from __future__ import annotations

from pathlib import Path, PurePath

import numpy as np
from PIL import Image


class CorruptImageError(ValueError):
    """A picture file exists but cannot be decoded completely."""


def resolve_image(image_root: str, image: str, source: str = "") -> Path:
    """Where the picture `image` of an annotation file is.

    Published annotation files hold absolute paths of their authors' machines. In this order: the
    path as it is, if absolute; `image_root` joined with the path; `image_root` joined with the path
    less its first, its first two, ... folders, down to the bare file name.

    Raises:
        FileNotFoundError: none of these exists.
    """
    path = PurePath(image)
    if path.is_absolute() and Path(path).is_file():
        return Path(path)
    parts = path.parts[1:] if path.is_absolute() else path.parts
    for start in range(len(parts)):
        candidate = Path(image_root, *parts[start:])
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(
        f"{source or 'record'}: image {image!r} is neither under image_root {image_root!r} nor at"
        " its own path; set image_root to the folder that holds the pictures"
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

"""Images as a caller has them: a path, a Pillow image, an array, a tensor."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from groundwork.dataset.images import DAMAGE, CorruptImageError, ImagePlace, load_image
from groundwork.files.shards import Member

ImageLike = str | os.PathLike[str] | Member | Image.Image | np.ndarray | Tensor
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_CHANNELS = (1, 3, 4)


def open_image(image: ImageLike, opener: str) -> tuple[np.ndarray, str]:
    """(H, W, 3) uint8 RGB as the image is shown, and what to call it.

    Args:
        image: path of a file; a file in a tar shard; a Pillow image; an array (H, W), (H, W, 1),
            (H, W, 3) or (H, W, 4), RGB; a tensor (3, H, W) or (1, H, W). Numbers are bytes, or
            floats in [0, 1].
        opener: how the configuration opens files, one of `dataset.images.OPENERS`. That which does
            not look at EXIF orientations is replaced by the one that does.

    Raises:
        FileNotFoundError: no such file. ValueError: no image, or a URL; says what to give.
    """
    as_shown = "shown" if opener == "pillow" else opener
    if isinstance(image, Member):
        return _decoded(image, as_shown)
    if isinstance(image, str | os.PathLike):
        return _file(os.fspath(image), as_shown)
    if isinstance(image, Image.Image):
        return _picture(image), "image"
    if isinstance(image, Tensor):
        if image.ndim != 3:
            raise ValueError(f"a tensor of an image is (3, H, W), not {tuple(image.shape)}")
        # NumPy has no bfloat16.
        plain = image.float() if image.dtype == torch.bfloat16 else image
        return _array(plain.detach().cpu().permute(1, 2, 0).numpy()), "image"
    if isinstance(image, np.ndarray):
        return _array(image), "image"
    raise ValueError(
        f"an image is a path, a Pillow image, an array or a tensor, not {type(image).__name__}"
    )


def _file(path: str, opener: str) -> tuple[np.ndarray, str]:
    if _URL.match(path):
        raise ValueError(f"{path} is a URL; download the image and give the path of the file")
    if not os.path.isfile(path):  # which no name is too long for
        raise FileNotFoundError(f"image {path} does not exist")
    return _decoded(Path(path), opener)


def _decoded(place: ImagePlace, opener: str) -> tuple[np.ndarray, str]:
    try:
        return load_image(place, str(place), opener), str(place)
    except CorruptImageError as error:
        reason = error.__cause__ or error
        raise CorruptImageError(f"image {place} cannot be decoded ({reason})") from error


def _picture(image: Image.Image) -> np.ndarray:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        raise ValueError(f"an image of mode {image.mode} has no 8-bit colours; convert it")
    try:
        # Pillow may decode only now, from a file that is damaged or no longer open.
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (*DAMAGE, AssertionError) as error:
        reason = error or "its file is closed"
        raise CorruptImageError(f"the image cannot be decoded ({reason})") from error


def _array(image: np.ndarray) -> np.ndarray:
    shaped: Any = image[..., None] if image.ndim == 2 else image
    if shaped.ndim != 3 or shaped.shape[2] not in _CHANNELS or 0 in shaped.shape:
        raise ValueError(
            f"an array of an image is (H, W), (H, W, 3) or (H, W, 4), not {image.shape}"
        )
    if np.issubdtype(shaped.dtype, np.floating):
        if not (np.isfinite(shaped).all() and 0 <= shaped.min() and shaped.max() <= 1):
            raise ValueError("an image of floats must lie in [0, 1]; divide by 255, or give bytes")
        shaped = np.round(shaped * 255).astype(np.uint8)
    if shaped.dtype != np.uint8:
        raise ValueError(f"an image is of bytes or of floats in [0, 1], not of {shaped.dtype}")
    if shaped.shape[2] == 1:
        shaped = np.repeat(shaped, 3, axis=2)
    return np.ascontiguousarray(shaped[..., :3])

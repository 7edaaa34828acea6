"""RandAugment of ALBEF's own pre-training: two of ten operations, drawn with replacement.

An image is (H, W, 3) uint8 RGB. Two operations differ from what they are named after, and
`MENDED_OPERATIONS` has them right: AutoContrast negates a channel's minimum as an unsigned byte,
which turns many channels white; Sharpness lets values below 0 and above 255 wrap around.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Operation: TypeAlias = Callable[[np.ndarray, float], np.ndarray]

COUNT, PROBABILITY = 2, 0.5
LEVEL = 0.7
GREY = (128, 128, 128)


def _auto_contrast(image: np.ndarray, *, wrap: bool) -> np.ndarray:
    return np.stack([_stretched(c, wrap=wrap) for c in np.moveaxis(image, -1, 0)], axis=-1)


def _stretched(channel: np.ndarray, *, wrap: bool) -> np.ndarray:
    low, high = int(channel.min()), int(channel.max())
    if low == high:
        return channel
    scale = 255 / (high - low)
    table = np.clip(np.arange(256) * scale + (-low % 256 if wrap else -low) * scale, 0, 255)
    return table.astype(np.uint8)[channel]


def _sharpness(image: np.ndarray, factor: float, *, wrap: bool) -> np.ndarray:
    """Away from the smoothed image by `factor`; the outer border stays."""
    kernel = np.ones((3, 3), dtype=np.float32)
    kernel[1, 1] = 5
    inner = (slice(1, -1), slice(1, -1))
    smooth = cv2.filter2D(image, -1, kernel / kernel.sum())[inner].astype(np.float32)
    result = image.astype(np.float32)
    result[inner] = smooth + factor * (result[inner] - smooth)
    return (result.astype(np.int32) if wrap else np.clip(result, 0, 255)).astype(np.uint8)


def _equalize(image: np.ndarray, _: float) -> np.ndarray:
    return np.array(ImageOps.equalize(Image.fromarray(image)))


def _brightness(image: np.ndarray, factor: float) -> np.ndarray:
    return np.array(ImageEnhance.Brightness(Image.fromarray(image)).enhance(factor))


def _rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    height, width = image.shape[:2]
    return _moved(image, cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1))


def _moved(image: np.ndarray, matrix: list[list[float]] | np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return cv2.warpAffine(
        np.ascontiguousarray(image),
        np.asarray(matrix, dtype=np.float32),
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderValue=GREY,
    )


def _operations(*, wrap: bool) -> dict[str, Operation]:
    return {
        "Identity": lambda image, _: image,
        "AutoContrast": lambda image, _: _auto_contrast(image, wrap=wrap),
        "Equalize": _equalize,
        "Brightness": _brightness,
        "Sharpness": partial(_sharpness, wrap=wrap),
        "ShearX": lambda image, factor: _moved(image, [[1, factor, 0], [0, 1, 0]]),
        "ShearY": lambda image, factor: _moved(image, [[1, 0, 0], [factor, 1, 0]]),
        "TranslateX": lambda image, pixels: _moved(image, [[1, 0, -pixels], [0, 1, 0]]),
        "TranslateY": lambda image, pixels: _moved(image, [[1, 0, 0], [0, 1, -pixels]]),
        "Rotate": _rotate,
    }


OPERATIONS, MENDED_OPERATIONS = _operations(wrap=True), _operations(wrap=False)
"""Name -> (image, strength, which some ignore) -> image, as released and mended."""

OPERATION_RULES: dict[str, Mapping[str, Operation]] = {
    "released": OPERATIONS,
    "mended": MENDED_OPERATIONS,
}

_FACTOR = LEVEL * 1.8 + 0.1
# Strength of an operation, and whether its sign is drawn.
_STRENGTHS: dict[str, tuple[float, bool]] = {
    "Brightness": (_FACTOR, False),
    "Sharpness": (_FACTOR, False),
    "ShearX": (0.3 * LEVEL, True),
    "ShearY": (0.3 * LEVEL, True),
    "TranslateX": (10 * LEVEL, True),
    "TranslateY": (10 * LEVEL, True),
    "Rotate": (30 * LEVEL, True),
}


def rand_augment(
    image: np.ndarray, rng: np.random.Generator, operations: Mapping[str, Operation]
) -> np.ndarray:
    """`COUNT` drawn operations, each of them done with `PROBABILITY`."""
    names = list(operations)
    for _ in range(COUNT):
        name = names[rng.integers(len(names))]
        if rng.random() >= PROBABILITY:
            continue
        strength, signed = _STRENGTHS.get(name, (0.0, False))
        if signed and rng.random() < 0.5:
            strength = -strength
        image = operations[name](image, strength)
    return image

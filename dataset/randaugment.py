"""RandAugment of ALBEF's own pre-training: two of ten operations, drawn with replacement.

An image is (H, W, 3) uint8 RGB. Two operations differ from what they are named after, and
`MENDED_OPERATIONS` has them right: AutoContrast negates a channel's minimum as an unsigned byte,
which turns many channels white; Sharpness lets values below 0 and above 255 wrap around.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Operation: TypeAlias = Callable[[np.ndarray, float | None], np.ndarray]

COUNT, PROBABILITY = 2, 0.5
LEVEL = 0.7
GREY = (128, 128, 128)


def _identity(image: np.ndarray, _value: float | None) -> np.ndarray:
    return image


def _stretched(channel: np.ndarray, negated_low: int) -> np.ndarray:
    low, high = int(channel.min()), int(channel.max())
    if low == high:
        return channel
    scale = 255 / (high - low)
    table = np.clip(np.arange(256) * scale + negated_low * scale, 0, 255)
    return table.astype(np.uint8)[channel]


def _auto_contrast(image: np.ndarray, _value: float | None) -> np.ndarray:
    channels = np.moveaxis(image, -1, 0)
    return np.stack([_stretched(c, -int(c.min()) % 256) for c in channels], axis=-1)


def _mended_auto_contrast(image: np.ndarray, _value: float | None) -> np.ndarray:
    return np.stack([_stretched(c, -int(c.min())) for c in np.moveaxis(image, -1, 0)], axis=-1)


def _equalize(image: np.ndarray, _value: float | None) -> np.ndarray:
    return np.array(ImageOps.equalize(Image.fromarray(image)))


def _brightness(image: np.ndarray, factor: float | None) -> np.ndarray:
    return np.array(ImageEnhance.Brightness(Image.fromarray(image)).enhance(factor or 0.0))


def _sharpened(image: np.ndarray, factor: float | None) -> np.ndarray:
    """Away from the smoothed image by `factor`, not yet of bytes; the outer border stays."""
    kernel = np.ones((3, 3), dtype=np.float32)
    kernel[1, 1] = 5
    inner = (slice(1, -1), slice(1, -1))
    smooth = cv2.filter2D(image, -1, kernel / kernel.sum())[inner].astype(np.float32)
    result = image.astype(np.float32)
    result[inner] = smooth + (factor or 0.0) * (result[inner] - smooth)
    return result


def _sharpness(image: np.ndarray, factor: float | None) -> np.ndarray:
    return _sharpened(image, factor).astype(np.int32).astype(np.uint8)


def _mended_sharpness(image: np.ndarray, factor: float | None) -> np.ndarray:
    return np.clip(_sharpened(image, factor), 0, 255).astype(np.uint8)


def _moved(image: np.ndarray, matrix: list[list[float]] | np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return cv2.warpAffine(
        np.ascontiguousarray(image),
        np.asarray(matrix, dtype=np.float32),
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderValue=GREY,
    )


def _shear_x(image: np.ndarray, factor: float | None) -> np.ndarray:
    return _moved(image, [[1, factor or 0.0, 0], [0, 1, 0]])


def _shear_y(image: np.ndarray, factor: float | None) -> np.ndarray:
    return _moved(image, [[1, 0, 0], [factor or 0.0, 1, 0]])


def _translate_x(image: np.ndarray, pixels: float | None) -> np.ndarray:
    return _moved(image, [[1, 0, -(pixels or 0.0)], [0, 1, 0]])


def _translate_y(image: np.ndarray, pixels: float | None) -> np.ndarray:
    return _moved(image, [[1, 0, 0], [0, 1, -(pixels or 0.0)]])


def _rotate(image: np.ndarray, degrees: float | None) -> np.ndarray:
    height, width = image.shape[:2]
    return _moved(image, cv2.getRotationMatrix2D((width / 2, height / 2), degrees or 0.0, 1))


OPERATIONS: dict[str, Operation] = {
    "Identity": _identity,
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
    "Brightness": _brightness,
    "Sharpness": _sharpness,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": _rotate,
}
"""Name -> (image, strength or None) -> image, as released."""

MENDED_OPERATIONS = OPERATIONS | {
    "AutoContrast": _mended_auto_contrast,
    "Sharpness": _mended_sharpness,
}

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
        strength, signed = _STRENGTHS.get(name, (None, False))
        if strength is not None and signed and rng.random() < 0.5:
            strength = -strength
        image = operations[name](image, strength)
    return image

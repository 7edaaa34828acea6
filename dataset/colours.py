"""Colour jitter: the released operation, and the one that its authors meant."""

from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image
from torchvision.transforms.v2 import functional as image_ops

STRENGTH = 0.4


def released_jitter(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colour jitter of the released AMC and SelfEQ training, (H, W, 3) uint8 RGB -> the same.

    Always in this order: contrast and brightness by one table for all channels, the brightness as a
    share of the image's mean; then hue and saturation in OpenCV's 8-bit HSV. The factor of the
    saturation is *added* as 255 times itself, which saturates images almost fully and gives grey
    ones a colour.
    """
    low, high = 1 - STRENGTH, 1 + STRENGTH
    brightness, contrast, saturation = (rng.uniform(low, high) for _ in range(3))
    hue = rng.uniform(-STRENGTH, STRENGTH)
    levels = np.arange(256, dtype=np.float32)
    table = contrast * levels + (brightness - 1) * image.mean()
    hsv = cv2.cvtColor(np.clip(table, 0, 255).astype(np.uint8)[image], cv2.COLOR_RGB2HSV)
    hues = np.mod(levels + int(255 * hue), 180).astype(np.uint8)
    saturations = np.clip(levels + int(255 * saturation), 0, 255).astype(np.uint8)
    changed = np.stack([hues[hsv[..., 0]], saturations[hsv[..., 1]], hsv[..., 2]], axis=-1)
    return cv2.cvtColor(changed, cv2.COLOR_HSV2RGB)


def torchvision_jitter(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """torchvision's ColorJitter, its operations in a drawn order: uint8 RGB in and out."""
    low, high = 1 - STRENGTH, 1 + STRENGTH
    operations = (
        (image_ops.adjust_brightness, low, high),
        (image_ops.adjust_contrast, low, high),
        (image_ops.adjust_saturation, low, high),
        (image_ops.adjust_hue, -STRENGTH, STRENGTH),
    )
    picture = Image.fromarray(np.ascontiguousarray(image))
    for index in rng.permutation(len(operations)):
        operation, lowest, highest = operations[index]
        picture = operation(picture, rng.uniform(lowest, highest))
    return np.array(picture)


JITTER_RULES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "released": released_jitter,
    "torchvision": torchvision_jitter,
}

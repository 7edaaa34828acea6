"""Images to the inputs of box and mask systems; boxes and masks move along.

Three rules bring an image to the network's size: `aspect` keeps the aspect (RefTR), `square`
stretches it, `letterbox` lays it in the middle of a grey square (RefCLIP, SimREC). Otherwise the
image lies at the top left of its batch's canvas; the rest is padding.

Whose bilinear filter does it is another rule: torchvision's (RefTR) smooths before it shrinks,
OpenCV's (ALVG; always that of `letterbox`) does not.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from PIL import Image

from groundwork.dataset.images import CorruptImageError
from groundwork.dataset.letterbox import letterbox, letterbox_of
from groundwork.geometry import Resampling, resize_mask
from groundwork.geometry.pixels import IMAGENET

IMAGENET_MEAN, IMAGENET_STD = IMAGENET
_MEAN, _STD = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
# The value (V of HSV) of a training image is multiplied by a factor between these.
DARKEST, BRIGHTEST = 0.5, 1.5


def aspect_size(size: tuple[int, int], shorter: int, longest: int) -> tuple[int, int]:
    """(H, W) -> (h, w): the shorter side becomes `shorter`, or less where the longer side would
    pass `longest`.

    The released rule: then the shorter side is rounded and the longer one cut, so that it may miss
    `longest` (333x500 -> 426x639); an image whose shorter side fits is left as it is.
    """
    small, large = min(size), max(size)
    target = shorter
    if large / small * shorter > longest:
        target = round(longest * small / large)
    if small == target:
        return size
    stretched = int(target * large / small)
    return (target, stretched) if size[0] <= size[1] else (stretched, target)


def change_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """(H, W, 3) uint8 RGB with its value (V of HSV) multiplied, clipped to 255 and cut to integers.

    The released augmentation; the saturation factor that it draws beside is not applied there.
    """
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., 2] = np.clip(hsv[..., 2] * factor, 0, 255).astype(np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def to_tensor(image: np.ndarray, *, normalize: bool = True) -> torch.Tensor:
    """(H, W, 3) uint8 RGB -> (3, H, W) float32 with ImageNet's mean and deviation, or in [0, 1]."""
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"]))
    tensor = pixels.permute(2, 0, 1).float().div_(255)
    if not normalize:
        return tensor.contiguous()
    return tensor.sub_(_MEAN).div_(_STD).contiguous()


@dataclass(frozen=True)
class ReferringTransform:
    """Jitter, resize and normalise an image.

    Attributes:
        image_size: of the shorter side (`aspect`), of both (`square`), or of the square that the
            image lies on (`letterbox`), in pixels.
        max_image_size: limit of the longer side (`aspect`).
        rule: "aspect", "square" or "letterbox".
        normalize: subtract ImageNet's mean and divide by its deviation.
        jitter: multiply the value of HSV by a factor drawn from [0.5, 1.5] (training).
        resampling: whose bilinear filter resizes images (`aspect`, `square`), and whose nearest
            pixel masks.
    """

    image_size: int = 640
    max_image_size: int = 640
    rule: Literal["aspect", "square", "letterbox"] = "aspect"
    jitter: bool = False
    normalize: bool = True
    resampling: Resampling = "torchvision"

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (h, w) that an image of (H, W) gets."""
        if self.rule == "square":
            return (self.image_size, self.image_size)
        if self.rule == "letterbox":
            return letterbox_of(size, self.image_size).size
        return aspect_size(size, self.image_size, self.max_image_size)

    def require(self, size: tuple[int, int], name: str) -> None:
        """Raises CorruptImageError, naming the image, if nothing is left of (H, W) when resized.

        Args:
            name: of record and image, for the message.
        """
        if min(self.resized(size)) < 1:
            raise CorruptImageError(
                f"{name}: of its {size[1]}x{size[0]} pixels nothing is left when the longer side is"
                f" made {self.max_image_size}; remove it, or set data.tolerate_corrupt: true to go"
                " on without it"
            )

    def offset(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (x, y) of an image of (H, W) on its tensor."""
        return letterbox_of(size, self.image_size).offset if self.rule == "letterbox" else (0, 0)

    def __call__(self, image: np.ndarray, rng: np.random.Generator | None = None) -> torch.Tensor:
        """(H, W, 3) uint8 RGB -> (3, h, w) float32, or the whole square of `letterbox`; without
        `rng` nothing is jittered."""
        if self.jitter and rng is not None:
            image = change_brightness(image, rng.uniform(DARKEST, BRIGHTEST))
        if self.rule == "letterbox":
            return to_tensor(letterbox(image, self.image_size)[0], normalize=self.normalize)
        size = self.resized((image.shape[0], image.shape[1]))
        return to_tensor(resize_image(image, size, self.resampling), normalize=self.normalize)

    def mask(self, mask: np.ndarray) -> torch.Tensor:
        """(H, W) bool of an image -> (h, w) bool of what the network sees of it."""
        resized = self.resized((mask.shape[0], mask.shape[1]))
        return torch.from_numpy(resize_mask(mask, resized, self.resampling))


def resize_image(image: np.ndarray, size: tuple[int, int], resampling: Resampling) -> np.ndarray:
    """(H, W, 3) uint8 -> (h, w, 3) uint8, bilinear."""
    if size == image.shape[:2]:
        return image
    if resampling == "opencv":
        return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))

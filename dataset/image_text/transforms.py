"""Images to network inputs, the region moving along with its image.

Two resizing rules are in use in the published protocols and give different numbers:
`opencv_bilinear` (cv2.resize on RGB uint8, no antialiasing) and `pil_bicubic` (Pillow,
antialiased). Neither keeps the aspect.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as image_ops

from groundwork.dataset.colours import JITTER_RULES
from groundwork.dataset.randaugment import OPERATION_RULES, rand_augment
from groundwork.dataset.regions import region_mask
from groundwork.geometry import Box, Size
from groundwork.geometry.pixels import CLIP

CLIP_MEAN, CLIP_STD = CLIP
_MEAN, _STD = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
FLIP, GRAYSCALE, JITTER = 0.5, 0.2, 0.5
CROP_AREA, CROP_ASPECT = (0.2, 1.0), (3 / 4, 4 / 3)


def _opencv_bilinear(image: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)


def _pil_bicubic(image: np.ndarray, side: int) -> np.ndarray:
    return np.array(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


RESIZE_RULES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "opencv_bilinear": _opencv_bilinear,
    "pil_bicubic": _pil_bicubic,
}


def resize(image: np.ndarray, side: int, rule: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (side, side, 3) uint8 by one of `RESIZE_RULES`.

    Raises:
        ValueError: unknown rule.
    """
    _require_rule("resize", rule, RESIZE_RULES)
    return RESIZE_RULES[rule](image, side)


def normalise(image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 RGB -> (3, H, W) float32 with CLIP's mean and deviation."""
    # Decoded images are read-only, which torch does not take.
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"]))
    return pixels.permute(2, 0, 1).float().div_(255).sub_(_MEAN).div_(_STD).contiguous()


@dataclass(frozen=True)
class TrainTransform:
    """The images of AMC and SelfEQ: resize, augment and normalise one with its region.

    Attributes:
        image_size: side of the network input in pixels.
        mask_size: side of the region mask.
        augment: True: OpenCV bilinear, flip 0.5, grayscale 0.2, colour jitter 0.5. False (SelfEQ
            stage): only PIL bicubic resize.
        colour_jitter: False: of these, no grayscale and no colour jitter.
        jitter_rule: what colour jitter does, a key of `dataset.colours.JITTER_RULES`.
        regions: whether any objective needs them.
    """

    image_size: int = 256
    mask_size: int = 256
    augment: bool = True
    colour_jitter: bool = True
    jitter_rule: str = "released"
    regions: bool = True

    def __post_init__(self) -> None:
        _require_rule("jitter", self.jitter_rule, JITTER_RULES)

    def __call__(
        self,
        image: np.ndarray,
        boxes: Sequence[Box] | None,
        rng: np.random.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor | None, bool]:
        """Transform one image.

        Args:
            image: (H, W, 3) uint8 RGB, original size.
            boxes: one or several, xyxy original pixels, or None.
            rng: the only source of randomness.

        Returns:
            (3, image_size, image_size) float32; (mask_size, mask_size) float32, or None without
            `boxes`; whether it was flipped.
        """
        region = None
        if boxes is not None:
            region = region_mask(boxes, image.shape[:2], self.image_size, self.mask_size)
        if not self.augment:
            return normalise(resize(image, self.image_size, "pil_bicubic")), region, False
        resized = resize(image, self.image_size, "opencv_bilinear")
        flipped = bool(rng.random() < FLIP)
        if flipped:
            resized = resized[:, ::-1]
            region = region.flip(1) if region is not None else None
        if not self.colour_jitter:
            return normalise(resized), region, flipped
        picture = np.ascontiguousarray(resized)
        if rng.random() < GRAYSCALE:
            picture = _gray(picture)
        if rng.random() < JITTER:
            picture = JITTER_RULES[self.jitter_rule](picture, rng)
        return normalise(picture), region, flipped


@dataclass(frozen=True)
class CropTransform:
    """The images of ALBEF's own pre-training: a random part, flip 0.5, RandAugment.

    It takes the place of `TrainTransform` where no objective needs a region: what is cut off is
    not known to the annotations.

    Attributes:
        image_size: side of the network input in pixels.
        mask_size: side of the empty stack of region masks that a batch has.
        augment: False: only PIL bicubic resize.
        operations: a key of `dataset.randaugment.OPERATION_RULES`.
    """

    regions: ClassVar[bool] = False
    image_size: int = 256
    mask_size: int = 256
    augment: bool = True
    operations: str = "released"

    def __post_init__(self) -> None:
        _require_rule("RandAugment", self.operations, OPERATION_RULES)

    def __call__(
        self,
        image: np.ndarray,
        boxes: Sequence[Box] | None,
        rng: np.random.Generator,
    ) -> tuple[torch.Tensor, None, bool]:
        """As `TrainTransform`, without a region.

        Raises:
            ValueError: boxes are given, which a part of an image has lost.
        """
        if boxes is not None:
            raise ValueError("a randomly cut image has no regions; train amc on whole images")
        if not self.augment:
            return normalise(resize(image, self.image_size, "pil_bicubic")), None, False
        top, left, height, width = random_part(image.shape[:2], rng)
        part = image[top : top + height, left : left + width]
        picture = resize(np.ascontiguousarray(part), self.image_size, "pil_bicubic")
        flipped = bool(rng.random() < FLIP)
        if flipped:
            picture = np.ascontiguousarray(picture[:, ::-1])
        picture = rand_augment(picture, rng, OPERATION_RULES[self.operations])
        return normalise(picture), None, flipped


def random_part(size: Size, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a part of an image, by the rule of RandomResizedCrop.

    0.2 to 1 of the area, width to height 3:4 to 4:3, uniform in its logarithm; after ten draws that
    do not fit, the largest part in the middle whose aspect is allowed.
    """
    height, width = size
    narrowest, widest = CROP_ASPECT
    for _ in range(10):
        area = height * width * rng.uniform(*CROP_AREA)
        aspect = math.exp(rng.uniform(math.log(narrowest), math.log(widest)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w, h = min(width, round(height * widest)), min(height, round(width / narrowest))
    return (height - h) // 2, (width - w) // 2, h, w


def _gray(image: np.ndarray) -> np.ndarray:
    picture = image_ops.rgb_to_grayscale(Image.fromarray(image), num_output_channels=3)
    return np.array(picture)


def _require_rule(what: str, rule: str, rules: Mapping[str, object]) -> None:
    if rule not in rules:
        raise ValueError(f"{what} rule {rule!r} is unknown; legal are {', '.join(rules)}")


@dataclass(frozen=True)
class EvalTransform:
    """Resize and normalise: (H, W, 3) uint8 RGB -> (3, image_size, image_size) float32.

    RefCOCO+ and RefCLEF: 384 px, pil_bicubic. Flickr30k: 256 px, opencv_bilinear.
    """

    image_size: int = 384
    resize: str = "pil_bicubic"

    def __post_init__(self) -> None:
        _require_rule("resize", self.resize, RESIZE_RULES)

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        return normalise(resize(image, self.image_size, self.resize))

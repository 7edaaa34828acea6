"""Pictures to network inputs, the region moving along with its picture.

Two resizing rules are in use in the published protocols and give different numbers:
`opencv_bilinear` (cv2.resize on RGB uint8, no antialiasing) and `pil_bicubic` (Pillow,
antialiased). Neither keeps the aspect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from torchvision.transforms.v2 import functional as image_ops

from geometry import Box, integer_corners

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_MEAN, _STD = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
FLIP, GRAYSCALE, JITTER, JITTER_STRENGTH = 0.5, 0.2, 0.5, 0.4


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
    if rule not in RESIZE_RULES:
        raise ValueError(f"resize rule {rule!r} is unknown; legal are {', '.join(RESIZE_RULES)}")
    return RESIZE_RULES[rule](image, side)


def normalise(image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 RGB -> (3, H, W) float32 with CLIP's mean and deviation."""
    # Decoded pictures are read-only, which torch does not take.
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"]))
    return pixels.permute(2, 0, 1).float().div_(255).sub_(_MEAN).div_(_STD).contiguous()


def _edge_profile(start: int, stop: int, length: int, side: int, mask_size: int) -> torch.Tensor:
    profile = np.zeros((1, length), dtype=np.float32)
    profile[0, start:stop] = 1
    resized = cv2.resize(profile, (side, 1), interpolation=cv2.INTER_LINEAR)
    return functional.interpolate(
        torch.from_numpy(resized)[None], size=mask_size, mode="linear", align_corners=True
    )[0, 0]


def region_mask(
    box: tuple[float, float, float, float], size: tuple[int, int], side: int, mask_size: int
) -> torch.Tensor:
    """What AMC compares a map with: (mask_size, mask_size) float32 in [0, 1], 1 well inside the
    box.

    The released rule draws the box as 0/1 in the original picture, resizes it as the picture
    (OpenCV bilinear, to `side`), then bilinearly with aligned corners to `mask_size`. Both
    resizings are separable and the mask of a box is the outer product of its edges' profiles, so
    each axis is resized alone: same numbers, a fraction of the work.

    Args:
        box: xyxy pixels of the original picture.
        size: its (height, width).
    """
    x1, y1, x2, y2 = (int(value) for value in integer_corners([box], size)[0])
    rows = _edge_profile(y1, y2, size[0], side, mask_size)
    columns = _edge_profile(x1, x2, size[1], side, mask_size)
    return torch.outer(rows, columns)


def _jitter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    low, high = 1 - JITTER_STRENGTH, 1 + JITTER_STRENGTH
    operations = (
        (image_ops.adjust_brightness, low, high),
        (image_ops.adjust_contrast, low, high),
        (image_ops.adjust_saturation, low, high),
        (image_ops.adjust_hue, -JITTER_STRENGTH, JITTER_STRENGTH),
    )
    for index in rng.permutation(len(operations)):
        operation, lowest, highest = operations[index]
        image = operation(image, rng.uniform(lowest, highest))
    return image


@dataclass(frozen=True)
class TrainTransform:
    """Resize, augment and normalise a training picture with its region.

    Attributes:
        image_size: side of the network input in pixels.
        mask_size: side of the region mask.
        augment: True: OpenCV bilinear, flip 0.5, grayscale 0.2, colour jitter 0.5. False (SelfEQ
            stage): only PIL bicubic resize.
        colour_jitter: False: of these, no grayscale and no colour jitter.
    """

    image_size: int = 256
    mask_size: int = 256
    augment: bool = True
    colour_jitter: bool = True

    def __call__(
        self,
        image: np.ndarray,
        boxes: Sequence[Box] | None,
        rng: np.random.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor | None, bool]:
        """Transform one picture.

        Args:
            image: (H, W, 3) uint8 RGB, original size.
            boxes: one or several, xyxy original pixels, or None.
            rng: the only source of randomness.

        Returns:
            (3, image_size, image_size) float32; (mask_size, mask_size) float32 or None; whether it
            was flipped.
        """
        region = None
        if boxes is not None:
            masks = [
                region_mask(box, image.shape[:2], self.image_size, self.mask_size) for box in boxes
            ]
            region = torch.stack(masks).amax(dim=0)
        if not self.augment:
            return normalise(resize(image, self.image_size, "pil_bicubic")), region, False
        resized = resize(image, self.image_size, "opencv_bilinear")
        flipped = bool(rng.random() < FLIP)
        if flipped:
            resized = resized[:, ::-1]
            region = region.flip(1) if region is not None else None
        if not self.colour_jitter:
            return normalise(resized), region, flipped
        picture = Image.fromarray(np.ascontiguousarray(resized))
        if rng.random() < GRAYSCALE:
            picture = image_ops.rgb_to_grayscale(picture, num_output_channels=3)
        if rng.random() < JITTER:
            picture = _jitter(picture, rng)
        return normalise(np.array(picture)), region, flipped


@dataclass(frozen=True)
class EvalTransform:
    """Resize and normalise: (H, W, 3) uint8 RGB -> (3, image_size, image_size) float32.

    RefCOCO+ and RefCLEF: 384 px, pil_bicubic. Flickr30k: 256 px, opencv_bilinear.
    """

    image_size: int = 384
    resize: str = "pil_bicubic"

    def __post_init__(self) -> None:
        if self.resize not in RESIZE_RULES:
            raise ValueError(
                f"resize rule {self.resize!r} is unknown; legal are {', '.join(RESIZE_RULES)}"
            )

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        return normalise(resize(image, self.image_size, self.resize))

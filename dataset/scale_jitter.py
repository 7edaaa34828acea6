"""Large-scale jitter: training images are looked at from nearer or farther (SimVG's option).

An image is enlarged and cut to its old size around its targets, or loses detail. Words such as
"leftmost" may then be wrong, which is why ALVG's recipes leave it off.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from groundwork.geometry import area

FARTHEST, NEAREST = 0.3, 1.4
# The share of every target that a window must keep: the first that a window is found for.
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5)
LEAST_SHARE, TRIES = 0.3, 100


@dataclass(frozen=True)
class View:
    """A part of an image, in its pixels, and the factor at which it is seen.

    left, top, width, height: of the part. factor: below 1 the image loses detail; 1: none.
    """

    left: int
    top: int
    width: int
    height: int
    factor: float = 1.0

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the part."""
        return (self.height, self.width)

    def image(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> the part, without detail if the factor is below 1: as published, the
        smaller image is stretched to the network's size in the end."""
        part = self.mask(image)
        if self.factor >= 1:
            return part
        coarse = Image.fromarray(part)
        smaller = (max(1, round(side * self.factor)) for side in coarse.size)
        for width, height in (tuple(smaller), coarse.size):
            coarse = coarse.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(coarse)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """(H, W, ...) -> the part."""
        return mask[self.top : self.top + self.height, self.left : self.left + self.width]

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """(n, 4) xyxy -> on the part, cut at its borders."""
        moved = boxes - np.array([self.left, self.top] * 2)
        return moved.clip(0, [self.width, self.height] * 2)

    def kept(self, boxes: np.ndarray) -> float:
        """The smallest share of a box's area that is on the part; 1 without boxes."""
        if not len(boxes):
            return 1.0
        return float((area(self.boxes(boxes)) / area(boxes).clip(min=1e-9)).min())


def draw_view(size: tuple[int, int], boxes: np.ndarray, rng: np.random.Generator) -> View:
    """A view of an image of (H, W) that keeps enough of all its targets (n, 4).

    A factor is drawn from [0.3, 1.4]. Above 1, up to 100 windows are drawn for each share of 90,
    80, ... 50 %, and the first is taken that keeps so much of every target; if there is none, the
    best of all, or the whole image if that keeps less than 30 %.
    """
    height, width = size
    whole = View(0, 0, width, height)
    factor = rng.uniform(FARTHEST, NEAREST)
    if factor <= 1:
        return View(0, 0, width, height, factor)
    best, most = whole, 0.0
    h, w = max(1, round(height / factor)), max(1, round(width / factor))
    for share in SHARES:
        for _ in range(TRIES):
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            view = View(left, top, w, h)
            kept = view.kept(boxes)
            if kept >= share:
                return view
            if kept > most:
                best, most = view, kept
    return best if most >= LEAST_SHARE else whole

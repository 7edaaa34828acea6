"""Scenes: where the objects are and how they are drawn. Boxes are xyxy in pixels."""

from dataclasses import dataclass

import cv2
import numpy as np

from groundwork.dataset.synthetic.vocabulary import COLOURS, SHAPES, SIZES, TEXTURES
from groundwork.geometry import mask_to_box

DIAMETERS = {"small": (23.0, 27.0), "large": (34.0, 39.0)}
MAX_OBJECTS = 5
_FINE = 8  # masks are drawn this much larger and then thresholded
_SHIFT = 4  # cv2.fillPoly takes fixed-point coordinates with this many fractional bits


@dataclass(frozen=True)
class Thing:
    """One object: attributes, tight box (x1, y1, x2, y2) and outline polygons (the second one, if
    any, is a hole)."""

    shape: str
    colour: str
    texture: str
    size: str
    box: tuple[int, int, int, int]
    outlines: tuple[np.ndarray, ...]

    @property
    def centre(self) -> tuple[float, float]:
        """Centre (x, y) of the box."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    def attributes(self) -> dict[str, str]:
        """Attribute name -> word."""
        return {
            "size": self.size,
            "texture": self.texture,
            "colour": self.colour,
            "shape": self.shape,
        }


@dataclass(frozen=True)
class Scene:
    """An image's geometry: `name` is the path below the image root, sizes in pixels."""

    name: str
    split: str
    width: int
    height: int
    things: tuple[Thing, ...]


def _regular(corners: int, radius: float = 1.0) -> np.ndarray:
    angles = 2 * np.pi * np.arange(corners) / corners
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star() -> np.ndarray:
    angles = np.pi * np.arange(10) / 5 - np.pi / 2
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _cross(arm: float = 0.34) -> np.ndarray:
    quarter = np.array([(arm, -1.0), (arm, -arm), (1.0, -arm)])
    turns = [quarter]
    for _ in range(3):
        turns.append(np.stack([-turns[-1][:, 1], turns[-1][:, 0]], axis=1))
    return np.concatenate(turns)


UNIT_OUTLINES = {
    "circle": (_regular(28),),
    "square": (np.array([(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]),),
    "triangle": (np.array([(0.0, -1.0), (1.0, 0.85), (-1.0, 0.85)]),),
    "star": (_star(),),
    "cross": (_cross(),),
    "ring": (_regular(28), _regular(20, 0.55)),
}


def fill(outlines: tuple[np.ndarray, ...], height: int, width: int) -> np.ndarray:
    """Mask (height, width) uint8: 1 where at least half of a pixel lies between the outlines.

    A point (x, y) of an outline is the centre of pixel (x, y).
    """
    mask = np.zeros((height, width), np.uint8)
    points = np.concatenate(outlines)
    # Only the pixels that an outline can reach: each is judged by its own _FINE x _FINE points.
    left, top = np.maximum(np.floor(points.min(axis=0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 2, (width, height))
    if left >= right or top >= bottom:
        return mask  # all of it lies outside
    fine = np.zeros(((bottom - top) * _FINE, (right - left) * _FINE), np.uint8)
    scaled = ((outline - (left, top) + 0.5) * _FINE - 0.5 for outline in outlines)
    fixed = [np.round(outline * (1 << _SHIFT)).astype(np.int32) for outline in scaled]
    cv2.fillPoly(fine, fixed, 255, lineType=cv2.LINE_8, shift=_SHIFT)
    covered = cv2.resize(fine, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    mask[top:bottom, left:right] = covered >= 128
    return mask


def _attributes(rng: np.random.Generator, taken: list[dict[str, str]]) -> dict[str, str]:
    """Attributes unlike those of any other object; colour or shape are often shared, so that one
    word is not enough."""
    while True:
        new = {
            "shape": str(rng.choice(SHAPES)),
            "colour": str(rng.choice(list(COLOURS))),
            "texture": str(rng.choice(TEXTURES)),
            "size": str(rng.choice(SIZES)),
        }
        if taken and rng.random() < 0.35:
            shared = str(rng.choice(["shape", "colour"]))
            new[shared] = taken[int(rng.integers(len(taken)))][shared]
        if new not in taken:
            return new


def _place(
    rng: np.random.Generator,
    attributes: dict[str, str],
    height: int,
    width: int,
    others: list[Thing],
) -> Thing | None:
    """The object at a free place, or None when 40 draws found none."""
    for _ in range(40):
        radius = rng.uniform(*DIAMETERS[attributes["size"]]) / 2
        x, y = (rng.uniform(radius + 1, extent - radius - 2) for extent in (width, height))
        reach = radius + 2
        near_centre = abs(x - width / 2) < reach and abs(y - height / 2) < reach
        if near_centre and rng.random() < 0.6:  # or else the image's centre would hit far too often
            continue
        corners = (x - reach, y - reach, x + reach, y + reach)
        if any(_overlap(corners, thing.box) for thing in others):
            continue
        turn = rng.uniform(-0.15, 0.15)
        matrix = radius * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        outlines = tuple(
            outline @ matrix + (x, y) for outline in UNIT_OUTLINES[attributes["shape"]]
        )
        x1, y1, x2, y2 = map(int, mask_to_box(fill(outlines, height, width)) or ())
        return Thing(**attributes, box=(x1, y1, x2, y2), outlines=outlines)
    return None


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def make_scene(rng: np.random.Generator, name: str, split: str, count: int) -> Scene:
    """Draws the geometry of a scene of `count` objects whose boxes do not overlap."""
    if not 1 <= count <= MAX_OBJECTS:
        raise ValueError(f"a scene has 1 to {MAX_OBJECTS} objects, not {count}")
    long, short = int(rng.integers(100, 121)), int(rng.integers(84, 101))
    width, height = (long, short) if rng.random() < 0.75 else (short, long)
    while True:
        attributes: list[dict[str, str]] = []
        things: list[Thing] = []
        for _ in range(count):
            attributes.append(_attributes(rng, attributes))
            thing = _place(rng, attributes[-1], height, width, things)
            if thing is None:
                break
            things.append(thing)
        if len(things) == count:
            return Scene(name, split, width, height, tuple(things))


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Soft grey patches with faint lines and blotches, float32 (height, width, 3)."""
    coarse = rng.uniform(85, 165, (5, 6, 1)) + rng.uniform(-14, 14, (5, 6, 3))
    canvas = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(int(rng.integers(4, 10))):
        grey = float(rng.uniform(70, 180))
        colour = tuple(grey + float(d) for d in rng.uniform(-15, 15, 3))
        start, end = (tuple(int(v) for v in rng.integers(0, (width, height))) for _ in range(2))
        if rng.random() < 0.5:
            cv2.line(canvas, start, end, colour, 1)
        else:
            cv2.circle(canvas, start, int(rng.integers(1, 4)), colour, -1)
    return canvas


def _texture(rng: np.random.Generator, texture: str, height: int, width: int) -> np.ndarray:
    """Where the dark part of a texture lies: bool (height, width)."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    period = rng.uniform(7.0, 8.5)
    angle = rng.choice([0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4])
    along = columns * np.cos(angle) + rows * np.sin(angle) + rng.uniform(0, period)
    if texture == "striped":
        return along % period < 0.45 * period
    across = rows * np.cos(angle) - columns * np.sin(angle) + rng.uniform(0, period)
    half = period / 2
    return ((along % period - half) ** 2 + (across % period - half) ** 2) < (0.32 * period) ** 2


def draw(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """The image of a scene: uint8 RGB (height, width, 3)."""
    canvas = _background(rng, scene.height, scene.width)
    for thing in scene.things:
        x1, y1, x2, y2 = thing.box
        mask = fill(thing.outlines, scene.height, scene.width)[y1:y2, x1:x2].astype(bool)
        colour = np.array(COLOURS[thing.colour], np.float32) * rng.uniform(0.9, 1.05) + rng.uniform(
            -8, 8, 3
        )
        patch = canvas[y1:y2, x1:x2]
        patch[mask] = colour
        if thing.texture != "plain":
            dark = mask & _texture(rng, thing.texture, y2 - y1, x2 - x1)
            # A shade of the colour: black would break up the outline, and a small model would see
            # no shape.
            patch[dark] = colour * rng.uniform(0.4, 0.5)
    canvas = cv2.GaussianBlur(canvas, (3, 3), 0.6)
    canvas += rng.normal(0, 6, canvas.shape).astype(np.float32)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """Uncompressed COCO run-length code of a mask: column-major, the first run counts zeros."""
    flat = mask.astype(np.uint8).flatten(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}

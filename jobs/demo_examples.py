"""Images to try the page with: scenes of the embedded data set, drawn when it starts."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from groundwork.dataset.synthetic import language
from groundwork.dataset.synthetic.scenes import draw, make_scene

# Not that of the quick start's data: no model has seen these scenes.
_SEED = 2026
_OBJECTS = (4, 3, 5, 4, 5, 3)
_KINDS = ("attribute", "attribute", "extreme", "relation")


@dataclass(frozen=True)
class Example:
    """An image file and phrases that are each of one of its objects, the last one of none."""

    path: Path
    phrases: tuple[str, ...]


def write_examples(folder: Path) -> list[Example]:
    """Draw the scenes into a folder, which is made."""
    folder.mkdir(parents=True)
    return [_write(folder, number, count) for number, count in enumerate(_OBJECTS, 1)]


def _write(folder: Path, number: int, count: int) -> Example:
    rng = np.random.default_rng((_SEED, number))
    path = folder / f"scene_{number}.png"
    scene = make_scene(rng, path.name, "test", count)
    Image.fromarray(draw(rng, scene)).save(path)
    order = rng.permutation(count).tolist()
    asked = min(count, len(_KINDS))  # of no object twice
    pairs = zip(_KINDS[:asked], order[:asked], strict=True)
    said = [language.refer(rng, scene, index, kind) for kind, index in pairs]
    phrases = [expression.text for expression in said if expression]
    return Example(path, (*phrases, language.refer_to_none(rng, scene).text))

"""Small files that the tests of the data sets share: images, a vocabulary, JSON."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WORDS = "a the man woman guy dog cat on left right red blue standing of hat big ##s".split()


def write_vocabulary(folder: Path) -> Path:
    path = folder / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
    return path


def write_image(path: Path, size: tuple[int, int] = (60, 80), seed: int = 0) -> Path:
    """A JPEG of random colours; size is (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=95)
    return path


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path

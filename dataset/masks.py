"""The mask of a phrase: all its annotated masks together, in the pixels of the original image."""

import os

import numpy as np

from groundwork.dataset.record import Phrase
from groundwork.geometry import decode_mask


def phrase_mask(
    phrase: Phrase,
    size: tuple[int, int],
    source: str,
    root: str | os.PathLike[str] | None = None,
) -> np.ndarray | None:
    """(H, W) bool, where any of the phrase's masks is; None if it has none.

    Args:
        size: (H, W) of the original image.
        source: of the record, for messages.
        root: folder that `.npy` masks are relative to.

    Raises:
        FileNotFoundError, ValueError: naming the record: no such file, or a mask of another size.
    """
    if not phrase.masks:
        return None
    return np.logical_or.reduce(target_masks(phrase, size, source, root))


def target_masks(
    phrase: Phrase,
    size: tuple[int, int],
    source: str,
    root: str | os.PathLike[str] | None = None,
) -> list[np.ndarray]:
    """As `phrase_mask`, each annotated mask by itself."""
    masks = []
    for text in phrase.masks:
        try:
            masks.append(decode_mask(text, size, root))
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"{source}: {phrase.text!r}: {error}") from error
    return masks

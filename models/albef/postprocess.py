"""Heat maps -> points in the pixels of the original image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from groundwork.geometry import Grounding, WordMap, heatmap_to_mask, mask_to_box
from groundwork.models.common.heatmap import enlarge, first_maximum

if TYPE_CHECKING:
    from groundwork.dataset.batches import ImageTextEvalBatch


def heatmaps_to_groundings(
    outputs: dict[str, Tensor],
    batch: ImageTextEvalBatch,
    region: Callable[[np.ndarray], np.ndarray] = heatmap_to_mask,
    *,
    over_padding: bool = False,
) -> list[Grounding]:
    """One `Grounding` per phrase: the first maximum of its heat map at the image's own size, and
    the mask of its hottest part with the box around it, which are derived.

    Args:
        outputs: `heatmaps` (T, h, w), `score` and `evidence` (T,), maybe `token_maps`, as an
            `Explainer` gives them.
        batch: `phrase` (T texts), `phrase_image` (T,) not decreasing, `size` [(H, W) per image],
            `words` with `token_maps`.
        region: a map (H, W) at the image's size -> its mask.
        over_padding: the maps are means over all L positions of `text_mask` (T, L); those of a
            `Grounding` are over the real ones, whatever other phrases the batch has.
    """
    heatmaps, scores = outputs["heatmaps"].float(), outputs["score"].tolist()
    evidence = outputs["evidence"].tolist()
    tokens = outputs["token_maps"] if "words" in batch else None
    real = batch["text_mask"].float().mean(dim=1).tolist() if over_padding else [1.0] * len(scores)
    counts = torch.bincount(batch["phrase_image"], minlength=len(batch["size"])).tolist()
    groundings: list[Grounding] = []
    for size, of_image in zip(batch["size"], heatmaps.split(counts), strict=True):
        enlarged = enlarge(of_image, size)
        points = first_maximum(enlarged).tolist()
        for (x, y), small, large in zip(points, of_image, enlarged.cpu().numpy(), strict=True):
            row = len(groundings)
            mask = region(large)
            box = mask_to_box(mask)
            groundings.append(
                Grounding(
                    phrase=batch["phrase"][row],
                    point=(float(x), float(y)),
                    boxes=np.zeros((0, 4)) if box is None else np.array([box]),
                    scores=np.array([] if box is None else [scores[row]]),
                    mask=mask,
                    heatmap=small.cpu().numpy() / real[row],
                    size=size,
                    derived=frozenset({"box", "mask"}),
                    score=scores[row],
                    evidence=evidence[row],
                    word_maps=()
                    if tokens is None
                    else words_of(tokens[row].cpu().numpy() / real[row], batch["words"][row]),
                )
            )
    return groundings


def words_of(tokens: np.ndarray, words: Sequence[tuple[str, int]]) -> tuple[WordMap, ...]:
    """Maps of tokens -> of words: the mean over a word's pieces.

    Args:
        tokens: (L, h, w), [CLS] first. words: each with the number of its pieces, in their order.
    """
    ends = np.cumsum([1, *(pieces for _, pieces in words)])
    parts = np.split(tokens[: ends[-1]], ends[:-1])
    named = [("[CLS]", 1), *words]
    return tuple(
        WordMap(word, pieces, part.mean(axis=0))
        for (word, pieces), part in zip(named, parts, strict=True)
    )

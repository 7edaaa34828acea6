"""Heat maps -> points in the pixels of the original picture."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from geometry import Grounding
from models.common.heatmap import enlarge, first_maximum


def heatmaps_to_groundings(outputs: dict[str, Tensor], batch: dict) -> list[Grounding]:
    """One `Grounding` per phrase: the heat map and its first maximum at the picture's own size.

    Args:
        outputs: `heatmaps` (T, h, w) and `score` (T,), as an `Explainer` gives them.
        batch: `phrase` (T texts), `phrase_image` (T,), `size` [(H, W) per image].
    """
    owner = batch["phrase_image"].tolist()
    heatmaps, scores = outputs["heatmaps"].float(), outputs["score"].tolist()
    groundings: list[Grounding] = []
    first = 0
    while first < len(owner):
        last = first
        while last < len(owner) and owner[last] == owner[first]:
            last += 1
        size = tuple(batch["size"][owner[first]])
        points = first_maximum(enlarge(heatmaps[first:last], size)).tolist()
        for row, (x, y) in zip(range(first, last), points, strict=True):
            groundings.append(
                Grounding(
                    phrase=batch["phrase"][row],
                    point=(float(x), float(y)),
                    boxes=np.zeros((0, 4), dtype=np.float32),
                    scores=np.array([scores[row]], dtype=np.float32)[:0],
                    mask=None,
                    heatmap=heatmaps[row].cpu().numpy(),
                    size=size,
                    derived=frozenset(),
                )
            )
        first = last
    return groundings

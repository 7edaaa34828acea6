"""ALVG's outputs -> boxes, masks and attention maps on the original images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from groundwork.geometry import Grounding, Size, area, box_to_point, clip_boxes, cxcywh01_to_xyxy
from groundwork.models.common.losses import enlarge_logits
from groundwork.models.common.torch_types import grid_of

if TYPE_CHECKING:
    from groundwork.dataset.batches import ReferringEvalBatch


@dataclass(frozen=True)
class Postprocess:
    """One `Grounding` per expression; called with (outputs, batch).

    Attributes:
        threshold: for expressions of any number of targets: boxes whose probability reaches it are
            kept, the best first; none is left where the expression matches nothing. None: every
            expression has one target, the query with the highest probability.
    """

    threshold: float | None = None

    def __call__(self, outputs: dict[str, Tensor], batch: ReferringEvalBatch) -> list[Grounding]:
        """Args:
            outputs: of `ALVG.forward`. batch: `size` [(H, W)] original, `image` (B, 3, S, S),
                `phrase` (B texts).

        Boxes are clipped to the image; such without area are never chosen while others are left.
        The heat map is the score of the enhancement, or the last layer's attention of the best
        query without it. The score is the highest probability of any query, the evidence its log
        odds. The point is the centre of the best box, which is derived. Masks are probabilities
        enlarged to a size, then cut at one half: `resized_mask` at that of the network, `mask` at
        the original one.
        """
        probability = outputs["pred_logits"].detach().softmax(dim=-1)[..., 0]
        small = _masks(outputs, [grid_of(batch["image"])] * len(probability))
        full = _masks(outputs, batch["size"])
        # Doubles, in which a float32 of 0.7 is below a threshold of 0.7, as in the published script
        scores = probability.cpu().double().numpy()
        logits = outputs["pred_logits"].detach().double()
        evidence = (logits[..., 0] - logits[..., 1:].logsumexp(dim=-1)).amax(dim=1).tolist()
        boxes = outputs["pred_boxes"].detach().cpu().double().numpy()
        groundings = []
        for row, phrase in enumerate(batch["phrase"]):
            size = batch["size"][row]
            found = clip_boxes(cxcywh01_to_xyxy(boxes[row], size), size)
            order = ranked(found, scores[row])
            best = int(order[0])
            chosen = order[:1]
            if self.threshold is not None:
                sure = (scores[row][order] >= self.threshold) & (area(found[order]) > 0)
                chosen = order[sure]
            groundings.append(
                Grounding(
                    phrase=phrase,
                    point=box_to_point(found[best]),
                    boxes=found[chosen],
                    scores=scores[row][chosen],
                    mask=full[row],
                    heatmap=_heatmap(outputs, row, best),
                    size=size,
                    derived=frozenset({"point"}),
                    resized_mask=small[row],
                    attention=_attention(outputs, row, best),
                    score=float(scores[row].max()),
                    evidence=evidence[row],
                )
            )
        return groundings


def ranked(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Queries with a box of some area, the most probable first: (Q, 4), (Q,) -> (m,) int, m >= 1.

    If no box has any area, which the release stumbles over, all are given.
    """
    kept = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    if not len(kept):
        kept = np.arange(len(boxes))
    return kept[np.argsort(-scores[kept], kind="stable")]


def _masks(outputs: dict[str, Tensor], sizes: list[Size]) -> list[np.ndarray | None]:
    if "pred_masks" not in outputs:
        return [None] * len(sizes)
    shares = outputs["pred_masks"].detach().sigmoid()
    return [
        (enlarge_logits(share[None], size)[0] >= 0.5).cpu().numpy()
        for share, size in zip(shares, sizes, strict=True)
    ]


def _heatmap(outputs: dict[str, Tensor], row: int, query: int) -> np.ndarray:
    if "score" in outputs:
        return outputs["score"][row].detach().float().cpu().numpy()
    return _attention(outputs, row, query)


def _attention(outputs: dict[str, Tensor], row: int, query: int) -> np.ndarray:
    return torch.as_tensor(outputs["attention"][-1, row, query]).detach().cpu().numpy()

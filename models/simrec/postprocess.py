"""SimREC's outputs -> boxes in the pixels of the original images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_convert

from groundwork.geometry import Grounding, box_to_point
from groundwork.models.common.letterbox import margins, to_image

if TYPE_CHECKING:
    from groundwork.dataset.batches import ReferringEvalBatch


def choose(outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The cell with the highest objectness of each image; nothing is suppressed or refused.

    The first of several whose objectness is 1 in single precision, as released.

    Returns:
        (B,) its index, row by row; (B, 4) its box, xyxy in pixels of the input; (B,) its
        objectness in [0, 1].
    """
    cells = outputs["cells"].flatten(1, 2)
    score, cell = objectness(outputs).max(dim=1)
    boxes = cells[torch.arange(len(cells), device=cells.device), cell, :4]
    return cell, box_convert(boxes.double(), "cxcywh", "xyxy"), score


def objectness(outputs: dict[str, Tensor]) -> Tensor:
    """(B, h * w) in [0, 1], row by row."""
    return outputs["cells"][..., 4].flatten(1).float().sigmoid()


def outputs_to_groundings(outputs: dict[str, Tensor], batch: ReferringEvalBatch) -> list[Grounding]:
    """One `Grounding` per sentence, its box not clipped to the image. The score is its
    objectness, the evidence its log odds; `confidence` has the former and its `margin` over the
    next cell.

    Args:
        outputs: of the model.
        batch: `phrase`, and `size`, `resized`, `offset` of every image.
    """
    _, found, score = choose(outputs)
    corners, scores = found.cpu().numpy(), score.tolist()
    margin = margins(objectness(outputs)).tolist()
    evidence = outputs["cells"][..., 4].flatten(1).float().amax(dim=1).tolist()
    groundings = []
    for row, size in enumerate(batch["size"]):
        box = to_image(corners[row], size, batch["resized"][row], batch["offset"][row])
        groundings.append(
            Grounding(
                phrase=batch["phrase"][row],
                point=box_to_point(box),
                boxes=box[None],
                scores=np.array([scores[row]]),
                mask=None,
                heatmap=None,
                size=size,
                derived=frozenset({"point"}),
                confidence={"objectness": scores[row], "margin": margin[row]},
                score=scores[row],
                evidence=evidence[row],
            )
        )
    return groundings

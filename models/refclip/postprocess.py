"""RefCLIP's outputs -> boxes in the pixels of the original images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor
from torchvision.ops import box_convert

from groundwork.geometry import Grounding, box_to_point
from groundwork.models.common.letterbox import margins, to_image
from groundwork.models.refclip.model import gather_cells

if TYPE_CHECKING:
    from groundwork.dataset.batches import ReferringEvalBatch


def choose(outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Which of the k candidate cells fits each sentence best, and which of its A boxes is most
    likely an object: (B,) and (B,). Neither classes, thresholds nor suppression play a part."""
    cell = outputs["similarity"].argmax(dim=1)
    objectness = gather_cells(outputs["cell_boxes"][..., 4], cell[:, None])[:, 0]
    return cell, objectness.argmax(dim=1)


def outputs_to_groundings(outputs: dict[str, Tensor], batch: ReferringEvalBatch) -> list[Grounding]:
    """One `Grounding` per sentence, its box not clipped to the image.

    The score is the objectness of the box. `candidates` are the boxes of all selected cells, those
    of the chosen cell, and the box that looks most like an object, whatever the sentence says.
    `confidence` has the `similarity` of the chosen cell, its `margin` over the next (with several
    cells) and the `objectness`.

    Args:
        outputs: of the model.
        batch: `phrase`, and `size`, `resized`, `offset` of every image.
    """
    cell, which = choose(outputs)
    corners = box_convert(outputs["cell_boxes"][..., :4].cpu().double(), "cxcywh", "xyxy").numpy()
    objectness = outputs["cell_boxes"][..., 4].cpu().double().numpy()
    similarity = outputs["similarity"].max(dim=1).values.tolist()
    margin = margins(outputs["similarity"]).tolist()
    likeliest = box_convert(outputs["likeliest_box"].cpu().double(), "cxcywh", "xyxy").numpy()
    groundings = []
    for row, size in enumerate(batch["size"]):
        place = (size, batch["resized"][row], batch["offset"][row])
        chosen, number = int(cell[row]), int(which[row])
        boxes = to_image(corners[row], *place)
        box, score = boxes[chosen, number], float(objectness[row, chosen, number])
        groundings.append(
            Grounding(
                phrase=batch["phrase"][row],
                point=box_to_point(box),
                boxes=box[None],
                scores=np.array([score]),
                mask=None,
                heatmap=None,
                size=size,
                derived=frozenset({"point"}),
                candidates={
                    "best of the selected cells": boxes.reshape(-1, 4),
                    "best of the chosen cell": boxes[chosen],
                    "likeliest object": to_image(likeliest[row], *place)[None],
                },
                confidence={"similarity": similarity[row], "objectness": score}
                | ({"margin": margin[row]} if len(boxes) > 1 else {}),
                score=similarity[row],
                evidence=similarity[row],
            )
        )
    return groundings

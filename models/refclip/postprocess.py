"""RefCLIP's outputs -> boxes in the pixels of the original pictures."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_convert

from geometry import Grounding, box_to_point
from models.refclip.model import gather_cells


def choose(outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Which of the k candidate cells fits each sentence best, and which of its A boxes is most
    likely an object: (B,) and (B,). Neither classes, thresholds nor suppression play a part."""
    cell = outputs["similarity"].argmax(dim=1)
    objectness = gather_cells(outputs["cell_boxes"][..., 4], cell[:, None])[:, 0]
    return cell, objectness.argmax(dim=1)


def margins(outputs: dict[str, Tensor]) -> Tensor:
    """(B,): how much better the best cell fits than the second best; infinite with one cell."""
    best = outputs["similarity"].topk(min(2, outputs["similarity"].shape[1])).values
    if best.shape[1] == 1:
        return torch.full_like(best[:, 0], float("inf"))
    return best[:, 0] - best[:, 1]


def to_picture(
    boxes: np.ndarray, size: tuple[int, int], resized: tuple[int, int], offset: tuple[int, int]
) -> np.ndarray:
    """Boxes on the letterboxed square -> in the original picture; both axes by their own factor.

    Args:
        boxes: (..., 4) xyxy. size: (H, W) of the picture. resized: (h, w) it has on the square.
        offset: (x, y) of its upper left corner there.
    """
    corner = np.array([*offset, *offset], dtype=np.float64)
    small = np.array([resized[1], resized[0]] * 2, dtype=np.float64)
    return (boxes - corner) / small * np.array([size[1], size[0]] * 2, dtype=np.float64)


def outputs_to_groundings(outputs: dict[str, Tensor], batch: dict) -> list[Grounding]:
    """One `Grounding` per sentence, its box not clipped to the picture.

    The score is the objectness of the box. `candidates` are the boxes of all "selected cells" and
    of the "chosen cell"; `confidence` has the `similarity` of the chosen cell, its `margin` over
    the next and the `objectness`.

    Args:
        outputs: of the model.
        batch: `phrase`, and `size`, `resized`, `offset` of every picture.
    """
    cell, which = choose(outputs)
    corners = box_convert(outputs["cell_boxes"][..., :4].double(), "cxcywh", "xyxy").cpu().numpy()
    objectness = outputs["cell_boxes"][..., 4].double().cpu().numpy()
    similarity, margin = outputs["similarity"].max(dim=1).values.tolist(), margins(outputs).tolist()
    groundings = []
    for row, size in enumerate(batch["size"]):
        place = (tuple(map(int, size)), batch["resized"][row], batch["offset"][row])
        chosen, number = int(cell[row]), int(which[row])
        boxes = to_picture(corners[row], *place)
        box, score = boxes[chosen, number], float(objectness[row, chosen, number])
        groundings.append(
            Grounding(
                phrase=batch["phrase"][row],
                point=box_to_point(box),
                boxes=box[None],
                scores=np.array([score]),
                mask=None,
                heatmap=None,
                size=place[0],
                derived=frozenset({"point"}),
                candidates={"selected cells": boxes.reshape(-1, 4), "chosen cell": boxes[chosen]},
                confidence={
                    "similarity": similarity[row],
                    "margin": margin[row],
                    "objectness": score,
                },
            )
        )
    return groundings

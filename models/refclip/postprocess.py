"""RefCLIP's outputs -> boxes in the pixels of the original pictures."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_convert

from geometry import Grounding, box_to_point
from models.refclip.model import gather_cells


def chosen_boxes(outputs: dict[str, Tensor]) -> Tensor:
    """The likeliest object of the cell that fits its sentence best: (B, 5), xyxy in pixels of the
    input and objectness. Neither classes, thresholds nor suppression play a part."""
    cell = outputs["similarity"].argmax(dim=1, keepdim=True)
    boxes = gather_cells(outputs["cell_boxes"], cell)[:, 0]
    box = gather_cells(boxes, boxes[..., 4].argmax(dim=1, keepdim=True))[:, 0]
    return torch.cat([box_convert(box[:, :4], "cxcywh", "xyxy"), box[:, 4:]], dim=1)


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

    The score is the objectness of the box. `candidates` are all boxes of all candidate cells, and
    `details` hold the similarity of the chosen cell and its margin over the next.
    """
    chosen = chosen_boxes(outputs).detach().cpu().double().numpy()
    groundings = []
    for row, size in enumerate(batch["size"]):
        place = (tuple(map(int, size)), batch["resized"][row], batch["offset"][row])
        box = to_picture(chosen[row, :4], *place)
        groundings.append(
            Grounding(
                phrase=batch["phrase"][row],
                point=box_to_point(box),
                boxes=box[None],
                scores=chosen[row, 4:],
                mask=None,
                heatmap=None,
                size=place[0],
                derived=frozenset({"point"}),
            )
        )
    return groundings

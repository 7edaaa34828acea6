"""Which query answers for which target: the assignment of least cost (DETR)."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou

from groundwork.models.common.precision import at_least_single

Match = tuple[Tensor, Tensor]
"""Queries (n,) and their targets (n,) of one sample, int64, queries ascending."""


@torch.no_grad()
def match(
    logits: Tensor, boxes: Tensor, targets: list[Tensor], costs: tuple[float, float, float]
) -> list[Match]:
    """One-to-one, for every sample by itself.

    Args:
        logits: (B, Q, 2), class 0 = object. boxes: (B, Q, 4). targets: B tensors (n, 4); n = 0 for
            a sample without any. costs: of class, L1 and GIoU.

    Raises:
        FloatingPointError: a prediction is not finite.
    """
    rows, queries = logits.shape[:2]
    every = cost_matrix(logits.flatten(0, 1), boxes.flatten(0, 1), torch.cat(targets), costs)
    # All samples at once, and one copy to the CPU: pairs of different samples are left out.
    blocks = every.unflatten(0, (rows, queries)).cpu().double().split([*map(len, targets)], dim=-1)
    pairs = []
    for row, block in enumerate(blocks):
        cost = block[row]
        if not cost.isfinite().all():
            raise FloatingPointError(
                f"sample {row} of the batch: predictions are not finite, so they cannot be matched "
                "with targets; lower the learning rate or clip_norm, or use precision fp32"
            )
        query, chosen = linear_sum_assignment(cost.numpy())
        query, chosen = (torch.as_tensor(part, device=boxes.device) for part in (query, chosen))
        pairs.append((query, chosen))
    return pairs


def cost_matrix(
    logits: Tensor, boxes: Tensor, target: Tensor, costs: tuple[float, float, float]
) -> Tensor:
    """(Q, 2), (Q, 4) and (n, 4) cxcywh -> (Q, n)."""
    of_class, of_distance, of_overlap = costs
    logits, boxes, target = map(at_least_single, (logits, boxes, target))
    probability = logits.softmax(dim=-1)[:, :1]
    distance = torch.cdist(boxes, target, p=1)
    corners = [box_convert(part, "cxcywh", "xyxy") for part in (boxes, target)]
    return (
        of_distance * distance - of_class * probability - of_overlap * generalized_box_iou(*corners)
    )

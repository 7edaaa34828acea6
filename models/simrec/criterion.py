"""SimREC's loss: which cells shall find the box, how well they do, and who claims to.

Shapes: B images, h x w cells. Boxes are cxcywh in pixels of the input; (0, 0, 0, 0): no object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_convert

from groundwork.models.common.criterion import Criterion
from groundwork.models.common.distributed import mean_count
from groundwork.models.simrec.head import STRIDE, corners

if TYPE_CHECKING:
    from groundwork.dataset.batches import ReferringBatch

REACH = 2.5  # strides around the centre of a box within which cells are candidates
CANDIDATES = 10  # whose overlaps are added up to the number of cells that shall find the box
FAR = 1e5  # cost of a cell that is not both in the box and near its centre
OVERLAP_COST = 3.0


def overlaps(boxes: Tensor, target: Tensor) -> Tensor:
    """(B, h, w, 4) and (B, 4) -> (B, h, w): IoU with the target of the image."""
    first, second = box_convert(boxes, "cxcywh", "xyxy"), box_convert(target, "cxcywh", "xyxy")
    second = second[:, None, None]
    sides = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(
        first[..., :2], second[..., :2]
    )
    shared = sides.clamp(min=0).prod(dim=-1)
    areas = boxes[..., 2:].prod(dim=-1) + target[:, None, None, 2:].prod(dim=-1)
    return shared / (areas - shared + 1e-16)


@torch.no_grad()
def assign(boxes: Tensor, target: Tensor) -> Tensor:
    """SimOTA with one object per image.

    Candidates are the cells whose centre is in the box, or within 2.5 strides of its centre. As
    many as the ten best candidates overlap together, rounded down, at least one, shall find it:
    those that overlap most, cells that are both in the box and near its centre before all others,
    and of equal ones those further up and left.

    Args:
        boxes: (B, h, w, 4), as predicted. target: (B, 4).

    Returns:
        (B, h, w) bool: cells that shall find their image's box.
    """
    cell, wanted = corners(boxes.shape[1:3], boxes.device), target[:, None, None]
    distance = ((cell + 0.5) * STRIDE - wanted[..., :2]).abs()
    inside = (distance < wanted[..., 2:] / 2).all(dim=-1)
    near = (distance < REACH * STRIDE).all(dim=-1)
    candidate = (inside | near) & wanted.any(dim=-1)
    overlap = overlaps(boxes, target)
    cost = -OVERLAP_COST * (overlap + 1e-8).log() + FAR * ~(inside & near)
    best = overlap.where(candidate, 0.0).flatten(1).sort(dim=1, descending=True).values
    count = best[:, :CANDIDATES].sum(dim=1).int().clamp(min=1)
    order = cost.where(candidate, torch.inf).flatten(1).argsort(dim=1, stable=True)
    rank = order.argsort(dim=1)
    return candidate & (rank < count[:, None]).view_as(candidate)


class SimRECCriterion(Criterion):
    """Losses of the box and of the objectness, both divided by the number of cells that find.

    Args:
        weights: loss name -> factor in the total: `loss_iou`, `loss_obj`.
        clip_targets: centre, width and height as shares of the input are at most 0.99, as released.
        across_processes: whether that number is the mean over all processes.
    """

    def __init__(
        self,
        weights: dict[str, float],
        *,
        clip_targets: bool = False,
        across_processes: bool = True,
    ):
        super().__init__(weights)
        self.clip_targets = clip_targets
        self.across_processes = across_processes

    def forward(self, outputs: dict[str, Tensor], batch: ReferringBatch) -> dict[str, Tensor]:
        """Named scalars.

        Args:
            outputs: of the model.
            batch: `target_boxes`, B tensors (1, 4), cxcywh in [0, 1] of the image; (0, 4): no
                object. `resized` and `offset`, where the image lies on `image`.
        """
        shares = canvas_shares(batch)
        if self.clip_targets:
            shares = [box.clamp(0, 0.99) for box in shares]
        nothing = torch.zeros(1, 4)
        target = torch.cat([box if len(box) else nothing for box in shares])
        cells = outputs["cells"]
        return self.losses(cells, target.to(cells) * cells.shape[2] * STRIDE)

    def losses(self, cells: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Named scalars of cells (B, h, w, 5) and targets (B, 4) in pixels."""
        positive = assign(cells[..., :4], target)
        overlap, count = overlaps(cells[..., :4], target), self._count(positive)
        wrong = F.binary_cross_entropy_with_logits(
            cells[..., 4], positive.to(cells), reduction="sum"
        )
        return {
            "loss_iou": (1 - overlap.square())[positive].sum() / count,
            "loss_obj": wrong / count,
        }

    def _count(self, positive: Tensor) -> Tensor:
        """Cells that find, at least 1."""
        return mean_count(positive.sum(), training=self.training and self.across_processes)


def canvas_shares(batch: ReferringBatch) -> list[Tensor]:
    """The targets as shares of the whole input, not of the image that lies on it.

    Args:
        batch: as for the criterion.
    """
    side = batch["image"].shape[-1]
    places = zip(batch["target_boxes"], batch["resized"], batch["offset"], strict=True)
    found = []
    for boxes, (height, width), (left, top) in places:
        small = boxes.new_tensor([width, height, width, height])
        corner = boxes.new_tensor([left, top, 0, 0])
        found.append((boxes * small + corner) / side)
    return found

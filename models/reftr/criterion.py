"""RefTR's losses. Box p belongs to phrase p: nothing is matched and nothing is classified."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from groundwork.models.common.criterion import Criterion
from groundwork.models.common.distributed import mean_count
from groundwork.models.common.losses import (
    dice_loss,
    enlarge_logits,
    focal_loss,
    giou_loss_of_pairs,
    l1_of_pairs,
)
from groundwork.models.common.precision import at_least_single
from groundwork.models.common.torch_types import grid_of

if TYPE_CHECKING:
    from groundwork.dataset.batches import ReferringBatch

# Added to the attention inside, so that attention that misses its box has a gradient, too.
INSIDE = 1e-3


def cells_of_boxes(boxes: Tensor, padding: Tensor) -> Tensor:
    """Which cells have their centre in a box, or are the one with the box's centre.

    Args:
        boxes: (n, 4) cxcywh in [0, 1] of the image without its padding.
        padding: (n, h, w) bool, True = padding.

    Returns:
        (n, h, w) bool.
    """
    inside = ~padding
    for axis, (centre, extent) in enumerate(((1, 3), (0, 2)), 1):
        place = (~padding).cumsum(axis, dtype=torch.float32)
        cells = place.narrow(axis, -1, 1).clamp(min=1)
        reach = boxes[:, extent, None, None].clamp(min=1 / cells) / 2
        inside = inside & (((place - 0.5) / cells - boxes[:, centre, None, None]).abs() <= reach)
    return inside


def attention_loss(outputs: dict[str, Tensor], target: Tensor) -> Tensor:
    """-log of the share of its box in the attention that every real phrase's query has for cells.

    Args:
        outputs: `attention`, `cell_padding` and `phrase_mask` of the model.
        target: (n, 4) cxcywh in [0, 1], a row per real phrase.

    Returns:
        (n,), the mean over the decoder's layers.
    """
    valid = outputs["phrase_mask"]
    padding = outputs["cell_padding"].repeat_interleave(valid.sum(dim=1), dim=0)
    attention = at_least_single(outputs["attention"][:, valid])
    inside = (attention * cells_of_boxes(target, padding)).sum(dim=(-2, -1))
    return -(inside / attention.sum(dim=(-2, -1)) + INSIDE).log().mean(dim=0)


class RefTRCriterion(Criterion):
    """Box losses of all decoder layers, mask losses where the model has masks.

    Args:
        weights: loss name -> factor in the total: `loss_bbox`, `loss_giou` and, for lower layer i,
            `loss_bbox_i`, `loss_giou_i`; `loss_mask` (focal), `loss_dice`, `loss_cem`.
        box_loss_per: "image" divides the sum over all phrases by the images of the batch, as
            released; "phrase" by the phrases. So is that of `loss_attention`.
    """

    def __init__(self, weights: dict[str, float], *, box_loss_per: str = "image"):
        super().__init__(weights)
        self.box_loss_per = box_loss_per

    def forward(self, outputs: dict[str, Tensor], batch: ReferringBatch) -> dict[str, Tensor]:
        """Named scalars.

        Args:
            outputs: of the model.
            batch: `target_boxes`, B tensors (n, 4), cxcywh in [0, 1], one row per real phrase; with
                masks `target_mask` (B, H, W) on the padded canvas. Padding counts as background.

        Raises:
            ValueError: an image has another number of boxes than of phrases.
        """
        valid, target = outputs["phrase_mask"], self._targets(outputs, batch)
        number = len(valid) if self.box_loss_per == "image" else len(target)
        count = mean_count(torch.tensor(number, device=valid.device), training=self.training)
        losses = self._box_losses(outputs["pred_boxes"][valid], target, count, "")
        for layer, boxes in enumerate(outputs.get("aux_boxes", ())):
            losses |= self._box_losses(boxes[valid], target, count, f"_{layer}")
        if "pred_masks" in outputs:
            inside = batch["target_mask"].to(outputs["pred_masks"])
            logits = enlarge_logits(outputs["pred_masks"], grid_of(inside))
            losses["loss_mask"] = focal_loss(logits, inside).mean()
            losses["loss_dice"] = dice_loss(logits, inside).mean()
        if "cem" in outputs:
            losses["loss_cem"] = outputs["cem"].mean()
        if "attention" in outputs:
            losses["loss_attention"] = attention_loss(outputs, target).sum() / count
        return losses

    @staticmethod
    def _box_losses(boxes: Tensor, target: Tensor, count: Tensor, suffix: str) -> dict[str, Tensor]:
        return {
            f"loss_bbox{suffix}": l1_of_pairs(boxes, target).sum() / count,
            f"loss_giou{suffix}": giou_loss_of_pairs(boxes, target).sum() / count,
        }

    @staticmethod
    def _targets(outputs: dict[str, Tensor], batch: ReferringBatch) -> Tensor:
        phrases = outputs["phrase_mask"].sum(dim=1).tolist()
        boxes = [len(boxes) for boxes in batch["target_boxes"]]
        if phrases != boxes:
            pairs = zip(phrases, boxes, strict=True)
            row = next(row for row, (wanted, given) in enumerate(pairs) if wanted != given)
            image = batch["image_path"][row] if "image_path" in batch else f"image {row}"
            raise ValueError(
                f"{image}: {phrases[row]} phrases but {boxes[row]} boxes. RefTR learns one box "
                "per phrase, so several regions of a phrase must be joined into one box beforehand"
            )
        return torch.cat(list(batch["target_boxes"])).to(outputs["pred_boxes"])

"""ALVG's losses: the matched boxes, the mask, and the attention itself.

Shapes: B samples, Q queries, L decoder layers, (S, S) the image, (h, w) the grid of cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from groundwork.models.alvg.matching import Match, match
from groundwork.models.alvg.regions import coverage, outside_ratio, overlap, rasterise
from groundwork.models.common.criterion import Criterion
from groundwork.models.common.distributed import mean_count
from groundwork.models.common.losses import (
    dice_loss,
    enlarge_logits,
    focal_loss,
    giou_loss_of_pairs,
    l1_of_pairs,
)
from groundwork.models.common.torch_types import grid_of

if TYPE_CHECKING:
    from groundwork.dataset.batches import ReferringBatch

RELEASED_CANVAS = 640
GIOU_EPSILON = 1e-6


class Regions(NamedTuple):
    """Of every sample: overlap (B, h, w), and focus, B tensors (n, h, w) in [0, 1]."""

    overlap: Tensor
    focus: list[Tensor]


class ALVGCriterion(Criterion):
    """Losses of all decoder layers, of the mask where the batch has one, and of the attention.

    Args:
        weights: loss name -> factor in the total: loss_class, loss_bbox, loss_giou, the same of
            lower layer i with `_i`, loss_mask (focal), loss_dice, loss_score_attention,
            loss_decoder_attention.
        costs: of class, L1 and GIoU in the matching.
        no_object: weight of queries without target in the class loss.
        single_query: with one query the maps of all layers are summed before the ratio is taken,
            "sum", which is about L times smaller than the "mean" rule of several queries.
        mask_loss_per: divisor of the mask losses, "box" or "sample".
        double_sigmoid, truncated_masks, fixed_canvas: released behaviour, see
            `models.alvg.config.AlvgQuirksConfig`.
    """

    class_weights: Tensor

    def __init__(
        self,
        weights: dict[str, float],
        *,
        costs: tuple[float, float, float] = (1.0, 5.0, 2.0),
        no_object: float = 0.1,
        single_query: str = "sum",
        mask_loss_per: str = "box",
        double_sigmoid: bool = False,
        truncated_masks: bool = False,
        fixed_canvas: bool = False,
    ):
        super().__init__(weights)
        self.costs = costs
        self.register_buffer("class_weights", torch.tensor([1.0, no_object]), persistent=False)
        self.single_query, self.mask_loss_per = single_query, mask_loss_per
        self.double_sigmoid, self.truncated_masks = double_sigmoid, truncated_masks
        self.fixed_canvas = fixed_canvas

    def forward(self, outputs: dict[str, Tensor], batch: ReferringBatch) -> dict[str, Tensor]:
        """Named scalars.

        Args:
            outputs: of the model.
            batch: `target_boxes`, B tensors (n, 4) cxcywh in [0, 1]. For masks `target_mask`
                (B, S, S), the union; where samples have several targets also `target_masks`, B
                tensors (n, S, S).
        """
        targets = [boxes.to(outputs["pred_boxes"]) for boxes in batch["target_boxes"]]
        count = self._mean_count(sum(map(len, targets)), outputs["pred_boxes"])
        losses, pairs = {}, []
        layers = list(zip(outputs["layer_logits"], outputs["layer_boxes"], strict=True))
        for number, (logits, boxes) in enumerate(layers):
            pairs = match(logits, boxes, targets, self.costs)
            suffix = "" if number == len(layers) - 1 else f"_{number}"
            for name, loss in self._set_losses(logits, boxes, targets, pairs).items():
                losses[f"{name}{suffix}"] = loss if name == "loss_class" else loss / count
        if "pred_masks" in outputs and "target_mask" in batch:
            divisor = count if self.mask_loss_per == "box" else len(targets)
            losses |= self._mask_losses(outputs["pred_masks"], batch["target_mask"], divisor)
        if self.weights.get("loss_score_attention") or self.weights.get("loss_decoder_attention"):
            regions = self.regions(batch, targets, grid_of(outputs["attention"]))
            # The last layer's matching counts for all layers, as released.
            losses |= self.attention_losses(outputs, regions, pairs)
        return losses

    def regions(
        self, batch: ReferringBatch, targets: list[Tensor], grid: tuple[int, int]
    ) -> Regions:
        """From masks if the batch has them, else from boxes."""
        if "target_mask" in batch:
            shares = [coverage(masks, grid) for masks in _masks_of_targets(batch)]
            focus = [(share > 0).float() for share in shares]
        else:
            side = batch["image"].shape[-1]
            canvas = RELEASED_CANVAS if self.fixed_canvas else side
            shares = [coverage(rasterise(boxes, side, canvas), grid) for boxes in targets]
            focus = shares
        return Regions(torch.stack([overlap(share) for share in shares]), focus)

    def attention_losses(
        self, outputs: dict[str, Tensor], regions: Regions, pairs: list[Match]
    ) -> dict[str, Tensor]:
        """The paper's new losses; the one on the score is a reward, negative where it is earned."""
        losses = {}
        if "score" in outputs:
            rewarded = (regions.overlap * outputs["score"]).sum(dim=(1, 2))
            losses["loss_score_attention"] = -rewarded.mean()
        attention = outputs["attention"]
        samples, queries, chosen = _flat(pairs)
        focus = torch.stack(
            [regions.focus[row][target] for row, target in zip(samples, chosen, strict=True)]
            or [attention.new_zeros(attention.shape[-2:])]
        )
        maps = attention[:, samples, queries] if samples else attention[:, :1, 0] * 0
        layers = len(attention)
        if attention.shape[2] == 1 and self.single_query == "sum":
            ratios = outside_ratio(maps.sum(dim=0), focus)
            divisor: float | Tensor = attention.shape[1] * layers
        else:
            ratios = outside_ratio(maps, focus)
            divisor = self._mean_count(len(samples) * layers, attention)
        losses["loss_decoder_attention"] = ratios.sum() / divisor
        return losses

    def _set_losses(
        self, logits: Tensor, boxes: Tensor, targets: list[Tensor], pairs: list[Match]
    ) -> dict[str, Tensor]:
        """Of one layer; those of boxes are sums."""
        classes = torch.ones(logits.shape[:2], dtype=torch.int64, device=logits.device)
        for row, (queries, _) in enumerate(pairs):
            classes[row, queries] = 0
        predicted = torch.cat([boxes[row][queries] for row, (queries, _) in enumerate(pairs)])
        wanted = torch.cat([targets[row][chosen] for row, (_, chosen) in enumerate(pairs)])
        return {
            "loss_class": F.cross_entropy(
                logits.flatten(0, 1), classes.flatten(), self.class_weights.to(logits)
            ),
            "loss_bbox": l1_of_pairs(predicted, wanted).sum(),
            "loss_giou": giou_loss_of_pairs(predicted, wanted, epsilon=GIOU_EPSILON).sum(),
        }

    def _mask_losses(
        self, logits: Tensor, union: Tensor, divisor: Tensor | int
    ) -> dict[str, Tensor]:
        inside = self.mask_target(union, (logits.shape[-2], logits.shape[-1])).to(logits)
        if self.double_sigmoid:
            logits = logits.sigmoid()
        return {
            "loss_mask": focal_loss(logits, inside).sum() / divisor,
            "loss_dice": dice_loss(logits, inside).sum() / divisor,
        }

    def mask_target(self, union: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, S, S) -> (B, *size) bool: half covered, or wholly as the release's cut to integers
        has it."""
        share = enlarge_logits(union.float(), size)
        return share >= (1.0 if self.truncated_masks else 0.5)

    def _mean_count(self, count: int, like: Tensor) -> Tensor:
        return mean_count(torch.tensor(count, device=like.device), training=self.training)


def _masks_of_targets(batch: ReferringBatch) -> list[Tensor]:
    """B tensors (n, S, S); with one target per sample its mask is the union."""
    if "target_masks" in batch:
        # Lists are not moved to the device with the rest of a batch.
        return [masks.to(batch["image"].device) for masks in batch["target_masks"]]
    return [mask[None] for mask in batch["target_mask"]]


def _flat(pairs: list[Match]) -> tuple[list[int], list[int], list[int]]:
    """Samples, queries and targets of all pairs."""
    rows = [
        (row, int(query), int(target))
        for row, pair in enumerate(pairs)
        for query, target in zip(*pair, strict=True)
    ]
    return [row for row, _, _ in rows], [query for _, query, _ in rows], [n for _, _, n in rows]

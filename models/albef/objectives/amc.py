"""Attention Mask Consistency (Yang et al., CVPR 2023): the explanation must lie in the region.

Shapes: B samples, R samples with a region, M side of the region masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from groundwork.models.albef.passes import Needs, Passes, needed

if TYPE_CHECKING:
    from groundwork.dataset.batches import ImageTextTrainBatch


@dataclass(frozen=True, kw_only=True)
class AttentionMaskConsistency:
    """Two margins between the explanation inside and outside the annotated region.

    Args:
        mean_margin: by how much the mean inside must exceed the mean outside.
        max_margin: by how much the maximum inside must exceed the maximum outside.
        mean_over: "sample", or "batch": the released code takes both means over all pixels of the
            batch.
    """

    mean_margin: float = 0.1
    max_margin: float = 0.5
    mean_over: str = "sample"

    def start_step(self, _epoch: int, _step: int, _steps_per_epoch: int) -> None:
        """Nothing depends on where training stands."""

    def needs(self, _batch: ImageTextTrainBatch) -> dict[str, Needs]:
        return {"phrase": Needs(heatmaps=True)}

    def __call__(self, passes: Passes, batch: ImageTextTrainBatch) -> dict[str, Tensor]:
        """Scalars `loss_amc_mean` and `loss_amc_max`; both 0 if no sample has a region.

        Args:
            batch: `region_index` (R,) int64 and `region_mask` (R, M, M) with values in [0, 1].
        """
        masks = batch["region_mask"]
        heatmaps = needed(needed(passes.phrase).heatmaps)[batch["region_index"]]
        if len(masks) == 0:
            nothing = heatmaps.sum()
            return {"loss_amc_mean": nothing, "loss_amc_max": nothing}
        heatmaps = F.interpolate(
            heatmaps[:, None], size=masks.shape[-2:], mode="bilinear", align_corners=False
        )[:, 0]
        inside, outside = heatmaps * masks, heatmaps * (1 - masks)
        over = (0, 1, 2) if self.mean_over == "batch" else (1, 2)
        # A region that fills the image leaves no outside: its mean is then 0, as is its maximum.
        mean_inside = inside.sum(over) / masks.sum(over).clamp(min=1e-7)
        mean_outside = outside.sum(over) / (1 - masks).sum(over).clamp(min=1e-7)
        max_gap = outside.amax((1, 2)) - inside.amax((1, 2))
        return {
            "loss_amc_mean": torch.relu(mean_outside - mean_inside + self.mean_margin).mean(),
            "loss_amc_max": torch.relu(max_gap + self.max_margin).mean(),
        }

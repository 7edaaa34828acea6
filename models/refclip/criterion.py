"""RefCLIP's loss: the best cell of a sentence's own image against cells of other images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from groundwork.models.common.criterion import Criterion
from groundwork.models.common.distributed import gather_with_gradient
from groundwork.models.common.precision import at_least_single
from groundwork.utils import rank

if TYPE_CHECKING:
    from groundwork.dataset.batches import ReferringBatch


def anchor_logits(similarity: Tensor, own: Tensor) -> Tensor:
    """What the cross-entropy chooses from (paper, section 3.3).

    Args:
        similarity: (B, I, k), of B sentences to the candidate cells of I images.
        own: (B,), which image is the sentence's.

    Returns:
        (B, 2 I - 1): the best cell of every image, then the second best of every other image. A
        single candidate per image leaves the first I.
    """
    best = similarity.topk(min(2, similarity.shape[-1]), dim=-1).values
    if best.shape[-1] == 1:
        return best[..., 0]
    images = torch.arange(similarity.shape[1], device=similarity.device)
    others = best[..., 1][images != own[:, None]].view(len(own), -1)
    return torch.cat([best[..., 0], others], dim=1)


class RefCLIPCriterion(Criterion):
    """Cross-entropy from sentences to images; dot products without temperature.

    Args:
        weights: loss name -> factor in the total: `loss_contrastive`.
        across_processes: whether images of the other processes are negatives, too.
    """

    def __init__(self, weights: dict[str, float], *, across_processes: bool = True):
        super().__init__(weights)
        self.across_processes = across_processes

    def forward(self, outputs: dict[str, Tensor], _batch: ReferringBatch) -> dict[str, Tensor]:
        """Named scalars. The batch is not looked at: its boxes are not for this system.

        Args:
            outputs: `cell_features` (B, k, D) and `text_features` (B, D) of the model.
        """
        cells = at_least_single(outputs["cell_features"])
        text = at_least_single(outputs["text_features"])
        own = torch.arange(len(text), device=text.device)
        if self.across_processes:
            cells, own = gather_with_gradient(cells), own + rank() * len(text)
        similarity = torch.einsum("bd,ikd->bik", text, cells)
        return {"loss_contrastive": F.cross_entropy(anchor_logits(similarity, own), own)}

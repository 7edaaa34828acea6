"""Self-consistent explanations (He et al., CVPR 2024): paraphrases must point to the same place.

No boxes are needed. Shapes: P samples that have a paraphrase, h x w patches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundwork.models.albef.objectives.itc_itm_mlm import ImageTextLosses
from groundwork.models.albef.passes import TrainingPasses

LOSSES = ("loss_syn_mlm", "loss_syn_ita", "loss_syn_itm", "loss_sim_syn", "loss_cst_syn")


class SelfConsistency(nn.Module):
    """Similarity and consistency of two explanations, and the image-text losses of the paraphrase.

    The phrase itself enters through its explanation only; combine with `itc_itm_mlm` to train on
    its text too.

    Args:
        image_text: computes the paraphrase's losses.
        threshold: k of the paper; the region of interest is where the two maps sum to at least k.
    """

    uses_heatmaps = True
    uses_queue = True

    def __init__(self, image_text: ImageTextLosses, *, threshold: float = 0.8):
        super().__init__()
        self.image_text = image_text
        self.threshold = threshold

    def forward(self, passes: TrainingPasses, _batch: dict) -> dict[str, Tensor]:
        """Scalars `loss_syn_{mlm,ita,itm}`, `loss_{sim,cst}_syn`; all 0 without a paraphrase."""
        if len(passes.paraphrased) == 0:
            # Part of the graph all the same: every process of a group must have something to
            # differentiate.
            nothing = 0.0 * (passes.images.features.sum() + passes.phrase.features.sum())
            return dict.fromkeys(LOSSES, nothing)
        losses = self.image_text.of_pairs(passes.paraphrase)
        phrase_maps = passes.phrase.heatmaps.index_select(0, passes.paraphrased)
        paraphrase_maps = passes.paraphrase.heatmaps
        return {
            "loss_syn_mlm": losses["mlm"],
            "loss_syn_ita": losses["ita"],
            "loss_syn_itm": losses["itm"],
            # The paper writes a squared error; the published weights were trained with smooth L1.
            "loss_sim_syn": F.smooth_l1_loss(paraphrase_maps, phrase_maps),
            "loss_cst_syn": self.consistency(phrase_maps, paraphrase_maps),
            "syn_itm_accuracy": losses["itm_accuracy"],
        }

    def consistency(self, first: Tensor, second: Tensor) -> Tensor:
        """Both maps (P, h, w) should be high and even over the region R that they agree on.

        The deviation is taken over all cells of all samples and |R| counts all samples, as
        released. An empty R leaves both hinge terms at their largest, k / 2.
        """
        region = (first + second >= self.threshold).to(first.dtype)
        count = region.sum().clamp(min=1)
        half = self.threshold / 2
        terms = [
            (heatmap * region).std() + torch.relu(half - (heatmap * region).sum() / count)
            for heatmap in (first, second)
        ]
        return terms[0] + terms[1]

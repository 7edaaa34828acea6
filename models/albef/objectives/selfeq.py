"""Self-consistent explanations (He et al., CVPR 2024): paraphrases must point to the same place.

No boxes are needed. Shapes: P samples that have a paraphrase, h x w patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from groundwork.models.albef.objectives.itc_itm_mlm import ImageTextLosses
from groundwork.models.albef.passes import Needs, Passes, needed

if TYPE_CHECKING:
    from groundwork.dataset.batches import ImageTextTrainBatch

OWN_LOSSES = ("loss_sim_syn", "loss_cst_syn")


@dataclass(frozen=True)
class SelfConsistency:
    """Similarity and consistency of two explanations, and the image-text losses of the paraphrase.

    The phrase itself enters through its explanation only; combine with `itc_itm_mlm` to train on
    its text too.

    Args:
        image_text: computes the paraphrase's losses.
        threshold: k of the paper; the region of interest is where the two maps sum to at least k.
    """

    image_text: ImageTextLosses
    threshold: float = 0.8

    def start_step(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        self.image_text.start_step(epoch, step, steps_per_epoch)

    def needs(self, batch: ImageTextTrainBatch) -> dict[str, Needs]:
        """Both maps and the paraphrase's losses; the phrase's features enter the queues."""
        if len(batch["paraphrase_index"]) == 0:
            return {"phrase": Needs(features=True)}
        return {
            "paraphrase": self.image_text.needs(batch)["phrase"] | Needs(heatmaps=True),
            "phrase": Needs(features=True, heatmaps=True),
        }

    def __call__(self, passes: Passes, batch: ImageTextTrainBatch) -> dict[str, Tensor]:
        """Scalars `loss_syn_{mlm,ita,itm}`, `loss_{sim,cst}_syn`; all 0 without a paraphrase."""
        paraphrased, phrase = batch["paraphrase_index"], needed(passes.phrase)
        if len(paraphrased) == 0:
            # Part of the graph all the same: every process of a group must have something to
            # differentiate.
            features = needed(passes.images.features), needed(phrase.features)
            nothing = 0.0 * (features[0].sum() + features[1].sum())
            of_text = [f"loss_syn_{term}" for term in sorted(self.image_text.terms)]
            return dict.fromkeys([*of_text, *OWN_LOSSES], nothing)
        paraphrase = needed(passes.paraphrase)
        phrase_maps = needed(phrase.heatmaps).index_select(0, paraphrased)
        paraphrase_maps = needed(paraphrase.heatmaps)
        return self.image_text.of_pairs(paraphrase, "syn_") | {
            # The paper writes a squared error; the published weights were trained with smooth L1.
            "loss_sim_syn": F.smooth_l1_loss(paraphrase_maps, phrase_maps),
            "loss_cst_syn": self.consistency(phrase_maps, paraphrase_maps),
        }

    def consistency(self, first: Tensor, second: Tensor) -> Tensor:
        """Both maps (P, h, w) should be high and even over the region R that they agree on.

        Of each map m: std(m * R) + relu(k / 2 - sum(m * R) / |R|), R = (first + second >= k).
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

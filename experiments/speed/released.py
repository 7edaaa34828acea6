"""The released evaluation and training of ALBEF, staged again with this project's network.

Evaluation: every pair of an image and a phrase is encoded by itself, no attention is fused, and the
gradient is computed for every parameter, although the map needs that of one attention. Training:
no attention is fused, and of SelfEQ the phrase and its paraphrase are each a whole pass, images and
momentum encoders included, although most of the phrase's losses are dropped. Single precision.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from operator import or_
from typing import TYPE_CHECKING

import torch
from timm.models.vision_transformer import Attention as ImageAttention
from torch import Tensor, nn

from groundwork.models.albef.bert import Attention as TextAttention
from groundwork.models.albef.model import ALBEF, MomentumALBEF
from groundwork.models.albef.passes import Needs, Passes
from groundwork.models.common.attention import AttentionRecorder, unfused
from groundwork.models.common.heatmap import explanation

if TYPE_CHECKING:
    from groundwork.dataset.batches import ImageTextTrainBatch


def explain(model: ALBEF, batch: dict[str, Tensor]) -> Tensor:
    """The heat maps (T, h, w) of the T phrases of an `ImageTextEvalBatch`, as the `Explainer`'s."""
    bert, ids, mask = model.text_encoder.bert, batch["text_ids"], batch["text_mask"]
    explained = bert.encoder.layer[model.explanation_layer].crossattention.self
    with unfused(_attentions(model)), AttentionRecorder(explained) as recorder:
        tokens = model.visual_encoder(batch["image"][batch["phrase_image"]])
        fused = bert(ids, mask, bert.image_keys_values(tokens))
    recorder.probabilities.retain_grad()
    model.match_logits(fused)[:, 1].sum().backward()
    gradient = recorder.probabilities.grad
    assert gradient is not None
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        return explanation(recorder.probabilities, gradient, mask, model.grid)


class Training(nn.Module):
    """A `MomentumALBEF` whose training forward is the released one."""

    def __init__(self, model: MomentumALBEF):
        super().__init__()
        self.model = model

    def forward(self, batch: ImageTextTrainBatch) -> Callable[[dict[str, Needs]], Passes]:
        """As the model's; every text gets a pass of its own, with all that any of them needs."""
        self.model(batch)  # the bound of the temperature, the step of the twin
        return partial(self.passes, batch)

    def passes(self, batch: ImageTextTrainBatch, needs: dict[str, Needs]) -> Passes:
        every = reduce(or_, needs.values())
        with unfused(_attentions(self.model)):
            whole = {text: self.model.passes(batch, {text: every}) for text in needs}
        paraphrase = whole["paraphrase"].paraphrase if "paraphrase" in whole else None
        return whole["phrase"]._replace(paraphrase=paraphrase)


def _attentions(model: nn.Module) -> list[ImageAttention | TextAttention]:
    return [m for m in model.modules() if isinstance(m, ImageAttention | TextAttention)]

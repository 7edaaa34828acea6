"""The released evaluation of ALBEF, staged again with this project's network.

Every pair of an image and a phrase is encoded by itself, no attention is fused, and the gradient
is computed for every parameter, although the map needs that of one attention. Single precision.
"""

import torch
from timm.models.vision_transformer import Attention as ImageAttention
from torch import Tensor

from groundwork.models.albef.bert import Attention as TextAttention
from groundwork.models.albef.model import ALBEF
from groundwork.models.common.attention import AttentionRecorder, unfused
from groundwork.models.common.heatmap import explanation


def explain(model: ALBEF, batch: dict[str, Tensor]) -> Tensor:
    """The heat maps (T, h, w) of the T phrases of an `ImageTextEvalBatch`, as the `Explainer`'s."""
    bert, ids, mask = model.text_encoder.bert, batch["text_ids"], batch["text_mask"]
    attentions = [m for m in model.modules() if isinstance(m, ImageAttention | TextAttention)]
    explained = bert.encoder.layer[model.explanation_layer].crossattention.self
    with unfused(attentions), AttentionRecorder(explained) as recorder:
        tokens = model.visual_encoder(batch["image"][batch["phrase_image"]])
        fused = bert(ids, mask, bert.image_keys_values(tokens))
    recorder.probabilities.retain_grad()
    model.match_logits(fused)[:, 1].sum().backward()
    gradient = recorder.probabilities.grad
    assert gradient is not None
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        return explanation(recorder.probabilities, gradient, mask, model.grid)

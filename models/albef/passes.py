"""What the objectives of one training step share: passes, computed when first asked for, once.

Shapes: B images, P phrases (one per image of a subset), L tokens, N patches, E embedding width, Q
queue length.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from groundwork.models.albef.bert import KeysValues
from groundwork.models.common.attention import AttentionRecorder, unfused
from groundwork.models.common.heatmap import explanation, min_max

if TYPE_CHECKING:
    from groundwork.models.albef.model import MomentumALBEF


class ImagePasses:
    """The images of a batch, seen by the online and by the momentum encoder."""

    def __init__(self, model: MomentumALBEF, image: Tensor):
        self.model = model
        self.image = image

    @cached_property
    def tokens(self) -> Tensor:
        """(B, 1 + N, D_image)."""
        return self.model.visual_encoder(self.image)

    @cached_property
    def keys_values(self) -> list[KeysValues]:
        """Per fusion layer, what the text reads of the images."""
        return self.model.text_encoder.bert.image_keys_values(self.tokens)

    @cached_property
    def features(self) -> Tensor:
        """(B, E) unit vectors."""
        return self.model.embed_image(self.tokens)

    @cached_property
    @torch.no_grad()
    def momentum_tokens(self) -> Tensor:
        return self.model.visual_encoder_m(self.image)

    @cached_property
    @torch.no_grad()
    def momentum_keys_values(self) -> list[KeysValues]:
        return self.model.text_encoder_m.bert.image_keys_values(self.momentum_tokens)

    @cached_property
    @torch.no_grad()
    def momentum_features(self) -> Tensor:
        return F.normalize(self.model.vision_proj_m(self.momentum_tokens[:, 0]), dim=-1)


class PhrasePasses:
    """One text for each of P images: the whole batch, or the images that `index` (P,) picks."""

    def __init__(
        self,
        model: MomentumALBEF,
        images: ImagePasses,
        ids: Tensor,
        mask: Tensor,
        *,
        index: Tensor | None = None,
        explained: bool = False,
    ):
        self.model = model
        self.images = images
        self.ids = ids
        self.mask = mask
        self.index = index
        self.explained = explained

    def __len__(self) -> int:
        return len(self.ids)

    def _pick(self, features: Tensor) -> Tensor:
        return features if self.index is None else features.index_select(0, self.index)

    def _pick_keys_values(self, layers: list[KeysValues]) -> list[KeysValues]:
        if self.index is None:
            return layers
        return [layer.select(self.index) for layer in layers]

    @cached_property
    def states(self) -> Tensor:
        """Text states (P, L, D) after the text layers."""
        return self.model.text_encoder.bert.text(self.ids, self.mask)

    @cached_property
    def features(self) -> Tensor:
        """(P, E) unit vectors of the texts."""
        return self.model.embed_text(self.states)

    @cached_property
    @torch.no_grad()
    def momentum_features(self) -> Tensor:
        """(P, E) unit vectors of the texts by the momentum encoder."""
        states = self.model.text_encoder_m.bert.text(self.ids, self.mask)
        return F.normalize(self.model.text_proj_m(states[:, 0]), dim=-1)

    @cached_property
    def image_features(self) -> Tensor:
        return self._pick(self.images.features)

    @cached_property
    def momentum_image_features(self) -> Tensor:
        return self._pick(self.images.momentum_features)

    @cached_property
    def keys_values(self) -> list[KeysValues]:
        return self._pick_keys_values(self.images.keys_values)

    @cached_property
    def momentum_keys_values(self) -> list[KeysValues]:
        return self._pick_keys_values(self.images.momentum_keys_values)

    @cached_property
    def similarities(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Each (P, P + Q), over temperature: image to text, text to image, and both by momentum.

        The first P columns are the momentum features of the batch in its order, the others the
        queue's.
        """
        model = self.model
        texts = torch.cat([self.momentum_features.T, model.text_queue], dim=1)
        images = torch.cat([self.momentum_image_features.T, model.image_queue], dim=1)
        with torch.no_grad():
            momentum_to_text = self.momentum_image_features @ texts / model.temp
            momentum_to_image = self.momentum_features @ images / model.temp
        to_text = self.image_features @ texts / model.temp
        to_image = self.features @ images / model.temp
        return to_text, to_image, momentum_to_text, momentum_to_image

    @cached_property
    def _matched(self) -> tuple[Tensor, Tensor | None]:
        """Match logits (P, 2) of the true pairs and, if `explained`, their heat maps."""
        model, bert = self.model, self.model.text_encoder.bert
        if not self.explained:
            return model.match_logits(bert.fuse(self.states, self.mask, self.keys_values)), None
        explained_layers = bert.encoder.layer[model.explanation_layer :]
        attentions = [a for layer in explained_layers for a in layer.attentions()]
        layer = bert.encoder.layer[model.explanation_layer]
        # The map's gradient is differentiated again: no fused kernel between the attention and the
        # logit.
        with unfused(attentions), AttentionRecorder(layer.crossattention.self) as recorder:
            fused = bert.fuse(self.states, self.mask, self.keys_values)
        logits = model.match_logits(fused)
        gradient = recorder.gradient(logits[:, 1].sum(), create_graph=True)
        maps = explanation(recorder.probabilities.float(), gradient.float(), self.mask, model.grid)
        return logits, min_max(maps)

    @property
    def match_logits(self) -> Tensor:
        """(P, 2) for the true pairs."""
        return self._matched[0]

    @property
    def heatmaps(self) -> Tensor:
        """(P, rows, columns) explanations of the matches, scaled to [0, 1], differentiable."""
        maps = self._matched[1]
        if maps is None:
            raise RuntimeError(
                "set `explained` before the matches are computed to get their heat maps"
            )
        return maps


class TrainingPasses:
    """The lazy outputs of a training forward.

    Attributes:
        images: passes over the images.
        phrase: passes over every sample's phrase, P = B.
        paraphrase: passes over the paraphrases, P = number of samples that have one (it may be 0).
        paraphrased: (P,) int64, which samples these are.
    """

    def __init__(self, model: MomentumALBEF, batch: dict):
        self.model = model
        self.images = ImagePasses(model, batch["image"])
        self.phrase = PhrasePasses(model, self.images, batch["text_ids"], batch["text_mask"])
        self.paraphrased = batch["paraphrase_index"]
        self.paraphrase = PhrasePasses(
            model,
            self.images,
            batch["paraphrase_ids"],
            batch["paraphrase_mask"],
            index=self.paraphrased,
        )

    def explain(self) -> None:
        """Compute the matched pairs with their heat maps, which costs the fused kernels."""
        self.phrase.explained = self.paraphrase.explained = True

    def enqueue(self) -> None:
        """Hand the momentum features to the queues, after all losses are computed."""
        self.model.enqueue(self.images.momentum_features, self.phrase.momentum_features)

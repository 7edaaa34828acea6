"""BERT with image cross-attention in its upper layers: ALBEF's text and fusion encoder in one.

Parameter names follow BERT's and ALBEF's published checkpoints. Shapes: B images, P phrases per
image, L text tokens, N image patches, D width of the text, H heads.

Layers below `fusion_layer` read text only; the others have a cross-attention to the image between
their self-attention and their feed-forward block. The stack can be run in three ways, which are its
three methods: `text` (embeddings and the lower layers), `fuse` (the upper layers on given text
states), and `forward` (both).

Image keys and values do not depend on the phrase. `image_keys_values` computes them once per image,
and `fuse` takes them: matched and mismatched pairs, masked-language modelling and all phrases of an
image share them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundwork.models.common.torch_types import ModuleListOf

if TYPE_CHECKING:
    from groundwork.models.albef.config import TextConfig


def select_rows(tensor: Tensor, index: Tensor) -> Tensor:
    """The rows `index` (n,) of a tensor (B, ...), which may repeat.

    By index_select, whose gradient is summed in a fixed order; on a CPU that of a matrix takes a
    seventh of the time of that of more dimensions.
    """
    return tensor.flatten(1).index_select(0, index).unflatten(1, tensor.shape[1:])


class KeysValues(NamedTuple):
    """One layer's view of the images: keys and values, each (B, H, 1 + N, D / H)."""

    keys: Tensor
    values: Tensor

    def select(self, index: Tensor) -> KeysValues:
        """The images `index` (n,)."""
        return KeysValues(*(select_rows(part, index) for part in self))


class Attention(nn.Module):
    """Multi-head attention with separate projections, `fused_attn` and `attn_drop` as in timm."""

    def __init__(self, settings: TextConfig, source_width: int):
        super().__init__()
        width = settings.hidden_size
        self.num_heads = settings.num_attention_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source_width, width)
        self.value = nn.Linear(source_width, width)
        self.attn_drop = nn.Dropout(settings.attention_probs_dropout_prob)
        self.fused_attn = True

    def _split_heads(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def keys_values(self, source: Tensor) -> KeysValues:
        """Project `source` (B, S, source_width) for use as keys and values."""
        return KeysValues(
            self._split_heads(self.key(source)), self._split_heads(self.value(source))
        )

    def forward(self, states: Tensor, source: KeysValues, mask: Tensor | None = None) -> Tensor:
        """Attend from `states` (B, L, D) to `source`; `mask` (B, 1, 1, S): true = may be seen."""
        queries = self._split_heads(self.query(states))
        if self.fused_attn:
            drop = self.attn_drop.p if self.training else 0.0
            mixed = F.scaled_dot_product_attention(queries, *source, attn_mask=mask, dropout_p=drop)
        else:
            scores = queries @ source.keys.transpose(-2, -1) * queries.shape[-1] ** -0.5
            if mask is not None:
                scores = scores.masked_fill(~mask, float("-inf"))
            mixed = self.attn_drop(scores.softmax(dim=-1)) @ source.values
        return mixed.transpose(1, 2).flatten(2)


class ResidualNorm(nn.Module):
    """Linear, dropout, residual, LayerNorm: how every BERT block ends."""

    def __init__(self, settings: TextConfig, input_width: int):
        super().__init__()
        self.dense = nn.Linear(input_width, settings.hidden_size)
        self.LayerNorm = nn.LayerNorm(settings.hidden_size, eps=settings.layer_norm_eps)
        self.dropout = nn.Dropout(settings.hidden_dropout_prob)

    def forward(self, update: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(update)) + residual)


class AttentionBlock(nn.Module):
    """Attention (published name `self`, also where it looks at the image) with its residual."""

    def __init__(self, settings: TextConfig, source_width: int):
        super().__init__()
        self.self = Attention(settings, source_width)
        self.output = ResidualNorm(settings, settings.hidden_size)

    def forward(self, states: Tensor, source: KeysValues, mask: Tensor | None = None) -> Tensor:
        return self.output(self.self(states, source, mask), states)


class Intermediate(nn.Module):
    """The widening half of the feed-forward block, with exact GELU."""

    def __init__(self, settings: TextConfig):
        super().__init__()
        self.dense = nn.Linear(settings.hidden_size, settings.intermediate_size)

    def forward(self, states: Tensor) -> Tensor:
        return F.gelu(self.dense(states))


class Layer(nn.Module):
    """One transformer layer; with `image_width` it also has a cross-attention to image tokens."""

    def __init__(self, settings: TextConfig, image_width: int | None):
        super().__init__()
        self.attention = AttentionBlock(settings, settings.hidden_size)
        if image_width is not None:
            self.crossattention = AttentionBlock(settings, image_width)
        self.intermediate = Intermediate(settings)
        self.output = ResidualNorm(settings, settings.intermediate_size)

    def attentions(self) -> list[Attention]:
        """The attention modules of this layer (two where it sees the image)."""
        return [block.self for block in self.children() if isinstance(block, AttentionBlock)]

    def forward(
        self,
        states: Tensor,
        mask: Tensor,
        image: KeysValues | None = None,
        *,
        first_only: bool = False,
    ) -> Tensor:
        """States (B * P, L, D) -> the same; `mask` (B * P, 1, 1, L); `image` holds B images.

        first_only: -> (B * P, 1, D), the first token's, of all that it attends to.
        """
        source = self.attention.self.keys_values(states)
        states = self.attention(states[:, :1] if first_only else states, source, mask)
        if image is not None:
            # Image tokens are never masked, so the P phrases of an image can stand in one row of
            # queries: keys and values are then read in place instead of being copied for every
            # phrase.
            rows = states.reshape(image.keys.shape[0], -1, states.shape[-1])
            states = self.crossattention(rows, image).reshape(states.shape)
        return self.output(self.intermediate(states), states)


class Embeddings(nn.Module):
    """Word, position and type embeddings, summed and normalised."""

    def __init__(self, settings: TextConfig):
        super().__init__()
        width = settings.hidden_size
        self.word_embeddings = nn.Embedding(settings.vocab_size, width, settings.pad_token_id)
        self.position_embeddings = nn.Embedding(settings.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(settings.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=settings.layer_norm_eps)
        self.dropout = nn.Dropout(settings.hidden_dropout_prob)

    def forward(self, ids: Tensor) -> Tensor:
        length, longest = ids.shape[1], self.position_embeddings.num_embeddings
        if length > longest:
            raise ValueError(
                f"a text of {length} tokens, but the model has position embeddings for {longest}: "
                "lower max_tokens or max_words, or raise text.max_position_embeddings"
            )
        position = self.position_embeddings.weight[:length]
        kind = self.token_type_embeddings.weight[0]
        return self.dropout(self.LayerNorm(self.word_embeddings(ids) + position + kind))


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, settings: TextConfig, image_width: int):
        super().__init__()
        self.layer = ModuleListOf(
            Layer(settings, image_width if index >= settings.fusion_layer else None)
            for index in range(settings.num_hidden_layers)
        )


class FusionBert(nn.Module):
    """The stack with its embeddings, run as text encoder, fusion encoder or both."""

    def __init__(self, settings: TextConfig, image_width: int):
        super().__init__()
        self.fusion_layer = settings.fusion_layer
        self.embeddings = Embeddings(settings)
        self.encoder = Encoder(settings, image_width)

    @property
    def text_layers(self) -> ModuleListOf[Layer]:
        return self.encoder.layer[: self.fusion_layer]

    @property
    def fusion_layers(self) -> ModuleListOf[Layer]:
        return self.encoder.layer[self.fusion_layer :]

    def text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids and mask, both (B, L) int64, mask 1 = token -> text states (B, L, D)."""
        states, mask = self.embeddings(ids), mask.bool()[:, None, None]
        for layer in self.text_layers:
            states = layer(states, mask)
        return states

    def image_keys_values(self, image_tokens: Tensor) -> list[KeysValues]:
        """Image tokens (B, 1 + N, image width) -> what each fusion layer reads of them.

        Laid out by heads once, and not by every product that reads them.
        """
        layers = [
            layer.crossattention.self.keys_values(image_tokens) for layer in self.fusion_layers
        ]
        return [KeysValues(*(part.contiguous() for part in layer)) for layer in layers]

    def fused_layers(
        self, states: Tensor, mask: Tensor, image: list[KeysValues], *, first_only: bool = False
    ) -> Iterator[Tensor]:
        """The states after each fusion layer.

        Args:
            states: (B * P, L, D) of texts, P consecutive ones per image. mask: (B * P, L).
            image: of `image_keys_values`, of B images.
            first_only: of the last layer (B * P, 1, D), that of [CLS], which is all that a match
                reads.
        """
        mask = mask.bool()[:, None, None]
        last = len(self.fusion_layers) - 1
        for index, (layer, source) in enumerate(zip(self.fusion_layers, image, strict=True)):
            states = layer(states, mask, source, first_only=first_only and index == last)
            yield states

    def fuse(
        self, states: Tensor, mask: Tensor, image: list[KeysValues], *, first_only: bool = False
    ) -> Tensor:
        """The states after the last layer; see `fused_layers`."""
        *_, fused = self.fused_layers(states, mask, image, first_only=first_only)
        return fused

    def forward(self, ids: Tensor, mask: Tensor, image: list[KeysValues]) -> Tensor:
        """All layers: `text`, then `fuse`."""
        return self.fuse(self.text(ids, mask), mask, image)


class Transform(nn.Module):
    """What a state passes through before it is compared with the word embeddings."""

    def __init__(self, settings: TextConfig):
        super().__init__()
        self.dense = nn.Linear(settings.hidden_size, settings.hidden_size)
        self.LayerNorm = nn.LayerNorm(settings.hidden_size, eps=settings.layer_norm_eps)

    def forward(self, states: Tensor) -> Tensor:
        return self.LayerNorm(F.gelu(self.dense(states)))


class PredictionHead(nn.Module):
    """Scores over the vocabulary, with the word embeddings' weight and the head's own bias."""

    def __init__(self, settings: TextConfig, word_embeddings: nn.Embedding):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(settings.vocab_size))
        self.transform = Transform(settings)
        self.decoder = nn.Linear(settings.hidden_size, settings.vocab_size)
        self.decoder.weight, self.decoder.bias = word_embeddings.weight, self.bias

    def forward(self, states: Tensor) -> Tensor:
        return self.decoder(self.transform(states))


class MaskedLanguageHead(nn.Module):
    """Container that gives the prediction head its published name, `cls.predictions`."""

    def __init__(self, settings: TextConfig, word_embeddings: nn.Embedding):
        super().__init__()
        self.predictions = PredictionHead(settings, word_embeddings)


class FusionBertForMaskedLM(nn.Module):
    """ALBEF's `text_encoder`: `bert` and the masked-language head `cls`."""

    def __init__(self, settings: TextConfig, image_width: int):
        super().__init__()
        self.bert = FusionBert(settings, image_width)
        self.cls = MaskedLanguageHead(settings, self.bert.embeddings.word_embeddings)

    def predict_words(self, states: Tensor) -> Tensor:
        """States (..., D) -> scores over the vocabulary (..., V)."""
        return self.cls.predictions(states)

"""RefTR with a mask: one phrase per image, a mask of it beside its box.

Shapes: B images, (h, w) the last map, (h1, w1) the first, D width, heads of the mask attention.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertModel, RobertaModel

from groundwork.models.common.precision import at_least_single
from groundwork.models.common.torch_types import bias_of
from groundwork.models.reftr.backbone import ImageNetwork
from groundwork.models.reftr.model import RefTR, Seen
from groundwork.models.reftr.transformer import VisionLanguageTransformer

if TYPE_CHECKING:
    from groundwork.dataset.batches import ReferringBatch


class BoxAttention(nn.Module):
    """Where in the image the query looks: one map per head, without values.

    The softmax runs over heads and cells together, so that all maps of an image add up to 1; the
    published mask heads are used to inputs of that size.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_linear, self.k_linear = nn.Linear(width, width), nn.Linear(width, width)
        for linear in (self.q_linear, self.k_linear):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, query: Tensor, cells: Tensor, padding: Tensor) -> Tensor:
        """Query (B, D), cells (B, h * w, D), padding (B, h * w) -> (B, heads, h * w)."""
        queries = self.q_linear(query).unflatten(-1, (self.heads, -1))
        keys = self.k_linear(cells).unflatten(-1, (self.heads, -1))
        logits = torch.einsum("bhd,bnhd->bhn", queries * queries.shape[-1] ** -0.5, keys)
        logits = at_least_single(logits).masked_fill(padding[:, None], float("-inf"))
        return logits.flatten(1).softmax(dim=1).view_as(logits).to(cells.dtype)


class MaskHead(nn.Module):
    """Convolutions that grow the last map to the size of the first, adding finer maps on the way.

    Args:
        inputs: channels of the input: map, memory and attention together.
        width: D; the layers have D / 2, D / 4, D / 8 and D / 16 channels.
        channels: of the first three maps of the backbone.
    """

    def __init__(self, inputs: int, width: int, channels: list[int]):
        super().__init__()
        half, quarter, eighth, sixteenth = (width // part for part in (2, 4, 8, 16))
        first, second, third = channels
        self.lay1, self.gn1 = _conv(inputs, inputs), _norm(inputs)
        self.lay2, self.gn2 = _conv(inputs, half), _norm(half)
        self.lay3, self.gn3 = _conv(half, quarter), _norm(quarter)
        self.lay4, self.gn4 = _conv(quarter, eighth), _norm(eighth)
        self.lay5, self.gn5 = _conv(eighth, sixteenth), _norm(sixteenth)
        self.out_lay = _conv(sixteenth, 1)
        self.adapter1 = _conv(third, half, kernel=1)
        self.adapter2 = _conv(second, quarter, kernel=1)
        self.adapter3 = _conv(first, eighth, kernel=1)

    def forward(self, state: Tensor, maps: list[Tensor]) -> Tensor:
        """Input (B, inputs, h, w), the three finer maps, finest first -> (B, D / 16, h1, w1)."""
        state = self.gn1(self.lay1(state)).relu()
        state = self.gn2(self.lay2(state)).relu()
        steps = (
            (self.adapter1, self.lay3, self.gn3),
            (self.adapter2, self.lay4, self.gn4),
            (self.adapter3, self.lay5, self.gn5),
        )
        for finer, (adapter, layer, norm) in zip(reversed(maps), steps, strict=True):
            state = adapter(finer) + F.interpolate(state, size=finer.shape[-2:], mode="nearest")
            state = norm(layer(state)).relu()
        return state

    def logits(self, features: Tensor) -> Tensor:
        """(B, D / 16, h1, w1) -> (B, h1, w1)."""
        return self.out_lay(features)[:, 0]


def _conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    nn.init.zeros_(bias_of(convolution))
    return convolution


def _norm(channels: int) -> nn.GroupNorm:
    """Eight groups as published, fewer for the narrow layers of small models."""
    return nn.GroupNorm(math.gcd(8, channels), channels)


class ConsistencyBlock(nn.Module):
    """How badly the query and the pixels that matter agree (the release's `cem_loss`)."""

    def __init__(self, width: int, mask_width: int):
        super().__init__()
        self.c1, self.c2 = nn.Linear(width, 1), nn.Linear(mask_width, 1)
        self.c3 = nn.Linear(width, mask_width)

    def forward(self, queries: Tensor, pixels: Tensor) -> Tensor:
        """Queries (B, P, D) and pixels (B, h1 * w1, D / 16) -> energy (B,), 0 at full agreement."""
        of_query, of_pixel = self.c1(queries).softmax(dim=1), self.c2(pixels).softmax(dim=1)
        cosine = F.normalize(self.c3(queries), dim=-1) @ F.normalize(pixels, dim=-1).transpose(1, 2)
        agreement = ((cosine + 1) / 2).clamp(1e-6, 1 - 1e-6)
        energy = (of_query.transpose(1, 2) @ agreement @ of_pixel).flatten(1).sum(dim=1)
        return -torch.log(energy + 1e-6)


class RefTRSegmentation(RefTR):
    """RefTR with mask attention, mask head and, on request, the consistency block.

    Args:
        backbone, lang_backbone, vl_transformer: as RefTR's.
        options: as RefTR's, but for aux_loss, which is off.
        heads: of the mask attention.
        cem: adds the consistency block; `forward` then also gives its energy.
    """

    def __init__(
        self,
        backbone: ImageNetwork,
        lang_backbone: BertModel | RobertaModel,
        vl_transformer: VisionLanguageTransformer,
        *,
        heads: int,
        cem: bool = False,
        **options: Any,
    ):
        super().__init__(backbone, lang_backbone, vl_transformer, aux_loss=False, **options)
        width = vl_transformer.level_embed.shape[1]
        self.bbox_attention = BoxAttention(width, heads)
        self.mask_head = MaskHead(2 * width + heads, width, backbone.channels[:3])
        self.cem_block = ConsistencyBlock(width, width // 16) if cem else None

    def answer(self, seen: Seen, batch: ReferringBatch) -> dict[str, Tensor]:
        """As RefTR's, P = 1.

        Returns:
            Also pred_masks (B, h1, w1) logits on the padded canvas, mask_attention (B, heads, h, w)
            and, with the consistency block, cem (B,).

        Raises:
            ValueError: the batch has several phrases per image.
        """
        if "phrase_text_ids" in batch:
            raise ValueError(
                "RefTR with masks takes one phrase per image, and this batch has several: use "
                "single-phrase data, or set model.masks to false"
            )
        decoded = self.decode(seen, batch)
        height, width = decoded.projected.shape[-2:]
        words, memory = decoded.memory.words, decoded.memory
        cells = memory.states[:, words:]
        attention = self.bbox_attention(decoded.states[-1, :, 0], cells, memory.padding[:, words:])
        attention = attention.unflatten(-1, (height, width))
        encoded = cells.transpose(1, 2).unflatten(-1, (height, width))
        features = self.mask_head(
            torch.cat([decoded.projected, encoded, attention], dim=1),
            [feature_map.features for feature_map in decoded.maps[:3]],
        )
        outputs = self.boxes(decoded)
        outputs["pred_masks"] = at_least_single(self.mask_head.logits(features))
        outputs["mask_attention"] = attention
        if self.cem_block is not None:
            pixels = features.flatten(2).transpose(1, 2)
            outputs["cem"] = self.cem_block(decoded.states[-1], pixels)
        return outputs

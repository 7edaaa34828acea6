"""RefTR (Li and Sigal, NeurIPS 2021): boxes of all phrases of a sentence in one step.

Shapes: B images, (H, W) the padded canvas, L sentence tokens, P phrases (1 where the sentence is
the phrase), Lp phrase tokens, (h, w) the last map, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from transformers import BertModel, RobertaModel

from groundwork.models.common.box_head import BoxHead
from groundwork.models.common.image_first import ImageFirst, for_each
from groundwork.models.common.precision import at_least_single
from groundwork.models.common.torch_types import bias_of, submodule
from groundwork.models.reftr.backbone import FeatureMap, ImageNetwork, SinePosition
from groundwork.models.reftr.transformer import (
    Memory,
    QueryEncoder,
    VisionLanguageTransformer,
    mapping_block,
)
from groundwork.models.reftr.transformer.query_encoder import context_of_sentence, context_of_spans

if TYPE_CHECKING:
    from groundwork.dataset.batches import ReferringBatch


class Seen(NamedTuple):
    """What the joint encoder reads of the images.

    maps: of the backbone, finest first. projected: (B, D, h, w), the last map at the width of the
    transformer. position: (B, D, h, w), the sine code of its cells.
    """

    maps: list[FeatureMap]
    projected: Tensor
    position: Tensor

    def for_each(self, count: int) -> Seen:
        """As many images as texts: one image is that of all."""
        maps = [FeatureMap(*(for_each(part, count) for part in one)) for one in self.maps]
        return Seen(maps, for_each(self.projected, count), for_each(self.position, count))


class Decoded(NamedTuple):
    """What the heads read.

    states: (layers, B, P, D), the queries after every decoder layer.
    valid: (B, P) bool, True = a real phrase.
    memory: the joint encoder's.
    maps: of the backbone, finest first.
    projected: (B, D, h, w), the last map at the width of the transformer.
    attention: (layers, B, P, h, w), the queries' attention to the cells, where it is learnt.
    """

    states: Tensor
    valid: Tensor
    memory: Memory
    maps: list[FeatureMap]
    projected: Tensor
    attention: Tensor | None


class RefTR(ImageFirst):
    """Both encoders, the transformer and the box head; published parameter names.

    Args:
        backbone: image -> feature maps.
        lang_backbone: with a pooler.
        vl_transformer: gives the width.
        dropout: of the mapping blocks.
        aux_loss: whether `forward` also gives the boxes of the lower decoder layers.
        projection_groups: of the norm behind the image projection.
        learn_attention: whether `forward` gives the decoder's attention in training.
        position_temperature: see `SinePosition`.
    """

    inputs: ClassVar[tuple[str, ...]] = ("image", "image_mask", "text_ids", "text_mask")
    outputs: ClassVar[tuple[str, ...]] = ("pred_boxes", "phrase_mask", "pred_masks")

    def __init__(
        self,
        backbone: ImageNetwork,
        lang_backbone: BertModel | RobertaModel,
        vl_transformer: VisionLanguageTransformer,
        *,
        dropout: float = 0.1,
        aux_loss: bool = True,
        projection_groups: int = 32,
        learn_attention: bool = False,
        position_temperature: float = 10000.0,
    ):
        super().__init__()
        width = vl_transformer.level_embed.shape[1]
        text_width = lang_backbone.config.hidden_size
        position_code = SinePosition(width, position_temperature)
        self.img_backbone = nn.ModuleList([backbone, position_code])
        self.lang_backbone = lang_backbone
        self.vl_transformer = vl_transformer
        self.bbox_embed = BoxHead(width)
        # So that the first box is the middle half.
        for parameter in self.bbox_embed.layers[-1].parameters():
            nn.init.zeros_(parameter)
        self.map_sentence = mapping_block(text_width, width, dropout)
        self.map_phrase = mapping_block(text_width, width, dropout)
        self.query_encoder = QueryEncoder(width, dropout)
        projection = nn.Conv2d(backbone.channels[-1], width, kernel_size=1)
        nn.init.xavier_uniform_(projection.weight)
        nn.init.zeros_(bias_of(projection))
        self.input_proj = nn.ModuleList(
            [nn.Sequential(projection, nn.GroupNorm(projection_groups, width))]
        )
        self.aux_loss = aux_loss
        self.learn_attention = learn_attention

    @property
    def backbone(self) -> ImageNetwork:
        return submodule(self.img_backbone, "0", ImageNetwork)

    def encode(self, batch: ReferringBatch) -> Seen:
        """`image` (B, 3, H, W), `image_mask` (B, H, W) bool, True = padding: the backbone; words
        and cells meet in the first layer behind it."""
        maps = self.backbone(batch["image"], batch["image_mask"])
        position_code = self.img_backbone[1]
        return Seen(maps, self.input_proj[0](maps[-1].features), position_code(maps[-1].padding))

    def answer(self, seen: Seen, batch: ReferringBatch) -> dict[str, Tensor]:
        """Args:
            seen: of `encode`.
            batch: `text_ids`, `text_mask` (B, L). With several phrases per sentence also
                `phrase_text_ids`, `phrase_text_mask` (B, P, Lp), `phrase_start`, `phrase_stop`
                (B, P) token spans and `phrase_valid` (B, P) bool.

        Returns:
            pred_boxes (B, P, 4) cxcywh in [0, 1] of the image without padding; phrase_mask (B, P)
            bool, True = a real phrase; with `aux_loss` aux_boxes (layers - 1, B, P, 4); with
            `learn_attention`, in training, attention (layers, B, P, h, w) and cell_padding
            (B, h, w) bool.
        """
        return self.boxes(self.decode(seen, batch))

    def boxes(self, decoded: Decoded) -> dict[str, Tensor]:
        """The box head's part of the outputs."""
        states = decoded.states if self.aux_loss else decoded.states[-1:]
        boxes = at_least_single(self.bbox_embed(states)).sigmoid()
        outputs = {"pred_boxes": boxes[-1], "phrase_mask": decoded.valid}
        if decoded.attention is not None:
            outputs["attention"] = decoded.attention
            outputs["cell_padding"] = decoded.maps[-1].padding
        return outputs | {"aux_boxes": boxes[:-1]} if self.aux_loss else outputs

    def decode(self, seen: Seen, batch: ReferringBatch) -> Decoded:
        """All that comes between the backbone and the heads."""
        maps, projected, position = seen.for_each(batch["text_ids"].shape[0])
        padding = maps[-1].padding
        text_mask = batch["text_mask"].bool()
        text = self.lang_backbone(input_ids=batch["text_ids"], attention_mask=text_mask.long())
        memory = self.vl_transformer.encode(
            self.map_sentence(text.last_hidden_state),
            ~text_mask,
            projected,
            position,
            padding,
        )
        if "phrase_text_ids" in batch:
            pooled, valid = self._encode_phrases(batch), batch["phrase_valid"]
            outside = context_of_spans(
                batch["phrase_start"], batch["phrase_stop"], text_mask.shape[1]
            )
        else:
            pooled = text.pooler_output[:, None]
            valid = torch.ones_like(text_mask[:, :1])
            outside = context_of_sentence(text_mask)
        query, query_position = self.query_encoder(
            memory.states[:, : memory.words], self.map_phrase(pooled), outside
        )
        states, shares = self.vl_transformer.decoder(
            query,
            query_position,
            ~valid,
            memory,
            keep_shares=self.learn_attention and self.training,
        )
        if shares is not None:
            shares = shares[..., memory.words :].unflatten(-1, padding.shape[-2:])
        return Decoded(states, valid, memory, maps, projected, shares)

    def _encode_phrases(self, batch: ReferringBatch) -> Tensor:
        """Pooled vectors (B, P, text width) of all slots.

        Unused slots hold the same empty text, so that it is encoded once for all of them.
        """
        ids, mask = batch["phrase_text_ids"].flatten(0, 1), batch["phrase_text_mask"].flatten(0, 1)
        valid = batch["phrase_valid"].flatten()
        unused = (~valid).nonzero().flatten()[:1]
        encoded = torch.cat([valid.nonzero().flatten(), unused])
        pooled = self.lang_backbone(
            input_ids=ids[encoded], attention_mask=mask[encoded].long()
        ).pooler_output
        row = torch.where(valid, valid.long().cumsum(0) - 1, len(encoded) - 1)
        return pooled.index_select(0, row).unflatten(0, batch["phrase_valid"].shape)

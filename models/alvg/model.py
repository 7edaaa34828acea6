"""ALVG: BEiT-3, text-guided enhancement and queries, a box decoder and a mask head.

Shapes: B samples, S image side, h = w cells per side, T tokens, Q queries, L decoder layers, D head
width. Parameter names are the published ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundwork.models.alvg.beit3 import BEiT3
from groundwork.models.alvg.decoder import BoxDecoder
from groundwork.models.alvg.enhancement import ImageEnhancement
from groundwork.models.alvg.mask_head import MaskHead
from groundwork.models.alvg.queries import QueryGenerator, pool_text
from groundwork.models.common.box_head import BoxHead
from groundwork.models.common.image_first import ImageFirst, for_each
from groundwork.models.common.positions import cell_positions, token_positions
from groundwork.models.common.precision import at_least_single
from groundwork.models.common.torch_types import submodule

if TYPE_CHECKING:
    from groundwork.dataset.batches import ReferringBatch

PAD = 1


class Transformer(nn.Module):
    """Enhancement (or None) and box decoder, under one published name."""

    def __init__(self, img_enhance: ImageEnhancement | None, decoder: BoxDecoder):
        super().__init__()
        self.img_enhance = img_enhance
        self.decoder = decoder
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)


class Head(nn.Module):
    """Everything behind the encoder.

    Args:
        encoder_width: of BEiT-3. width: D. queries: Q.
        mask_head: None for a model of boxes only.
        pool_last_rows, integer_positions: released behaviour, see `models.alvg.config.AlvgCompat`.
    """

    def __init__(
        self,
        encoder_width: int,
        width: int,
        queries: int,
        *,
        generator: QueryGenerator,
        transformer: Transformer,
        mask_head: MaskHead | None,
        pool_last_rows: bool = False,
        integer_positions: bool = False,
    ):
        super().__init__()
        self.width = width
        self.input_proj = nn.Conv2d(encoder_width, width, kernel_size=1)
        self.input_text_proj = nn.Linear(encoder_width, width)
        self.query_embed = nn.Embedding(queries, width)
        self.text_guided_query_generation_transformer = generator
        self.transformer = transformer
        self.class_embed_decoder = nn.Linear(width, 2)
        self.bbox_embed_decoder = BoxHead(width)
        self.mask_head = mask_head
        self.pool_last_rows, self.integer_positions = pool_last_rows, integer_positions

    def queries(self, text: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """Projected text (B, T, D) and padding (B, T) -> queries (B, Q, D), pooled text (B, D)."""
        length, width = text.shape[1:]
        position = token_positions(length, width, integer=self.integer_positions, like=text)
        learned = self.query_embed.weight
        generated = self.text_guided_query_generation_transformer(learned, text, position, padding)
        pooled = pool_text(text, padding, last_rows=self.pool_last_rows)
        return generated + pooled[:, None] + learned, pooled

    def forward(
        self, image: Tensor, text: Tensor, padding: Tensor, cell_padding: Tensor
    ) -> dict[str, Tensor]:
        """Encoded image (B, encoder width, h, w) and text (B, T, encoder width); cell_padding
        (B, h, w) bool. Returns what `ALVG.forward` does."""
        grid = image.shape[-2:]
        cells = self.input_proj(image).flatten(2).transpose(1, 2)
        position = cell_positions(cell_padding, self.width).flatten(2).transpose(1, 2).to(cells)
        queries, pooled = self.queries(self.input_text_proj(text), padding)
        outputs = {}
        if self.transformer.img_enhance is not None:
            cells, score = self.transformer.img_enhance(cells, position, pooled)
            outputs["score"] = score.unflatten(-1, grid)
        hidden, attention = self.transformer.decoder(
            queries, cells, position, cell_padding.flatten(1)
        )
        logits = at_least_single(self.class_embed_decoder(hidden))
        boxes = at_least_single(self.bbox_embed_decoder(hidden)).sigmoid()
        outputs |= {
            "pred_logits": logits[-1],
            "pred_boxes": boxes[-1],
            "layer_logits": logits,
            "layer_boxes": boxes,
            "attention": at_least_single(attention).unflatten(-1, grid),
        }
        if self.mask_head is not None:
            maps = (part.transpose(1, 2).unflatten(-1, grid) for part in (cells, position))
            outputs["pred_masks"] = at_least_single(self.mask_head(*maps))
        return outputs


class ALVG(ImageFirst):
    """Encoder and head.

    Args:
        text_length: texts are padded to it where the released pooling is on, whose result depends
            on the padding.
    """

    # An image has the one size that BEiT-3 takes, so that nothing of it is padding.
    inputs: ClassVar[tuple[str, ...]] = ("image", "text_ids", "text_mask")
    outputs: ClassVar[tuple[str, ...]] = (
        "pred_logits", "pred_boxes", "attention", "score", "pred_masks",
    )  # fmt: skip

    def __init__(self, encoder: BEiT3, head: Head, *, text_length: int):
        super().__init__()
        self.vis_enc = nn.ModuleDict({"beit3": encoder})
        self.head = head
        self.text_length = text_length

    @property
    def encoder(self) -> BEiT3:
        return submodule(self.vis_enc, "beit3", BEiT3)

    def encode(self, batch: ReferringBatch) -> Tensor:
        """`image` (B, 3, S, S) -> its [CLS] and cells (B, 1 + N, D). That is little of the work:
        BEiT-3 mixes cells and tokens from its first layer on, so all layers run for every text."""
        return self.encoder.embed_image(batch["image"])

    def answer(self, seen: Tensor, batch: ReferringBatch) -> dict[str, Tensor]:
        """Args:
            seen: of `encode`.
            batch: `image_mask` (B, S, S) bool, True = padding (without it: none), `text_ids` and
                `text_mask` (B, T), 1 = token.

        Returns:
            pred_logits (B, Q, 2), class 0 = object; pred_boxes (B, Q, 4) cxcywh in [0, 1];
            layer_logits (L, B, Q, 2), layer_boxes (L, B, Q, 4), the last of which are the former;
            attention (L, B, Q, h, w), cross-attention whose cells sum to 1; score (B, h, w) in
            (0, 2), if cells are enhanced; pred_masks (B, 8h, 8w) logits, if it has a mask head.
        """
        ids, padding = self._padded(batch["text_ids"], batch["text_mask"].bool())
        encoded = self.encoder.join(for_each(seen, ids.shape[0]), ids, padding)
        shape = (ids.shape[0], *encoded.image.shape[-2:])
        if "image_mask" in batch:
            cell_padding = F.interpolate(batch["image_mask"][:, None].float(), size=shape[1:])
            cell_padding = cell_padding[:, 0].bool()
        else:
            cell_padding = torch.zeros(shape, dtype=torch.bool, device=ids.device)
        return self.head(encoded.image, encoded.text, padding, cell_padding)

    def _padded(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        missing = self.text_length - ids.shape[1]
        if missing < 0 or not self.head.pool_last_rows:
            return ids, ~mask
        return F.pad(ids, (0, missing), value=PAD), F.pad(~mask, (0, missing), value=True)

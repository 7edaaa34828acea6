"""SimREC (Luo et al., 2022): a compact network from an image and a sentence to one box.

Shapes: B images of side S with one sentence of L words each; D width; h x w cells, one per 32
pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundwork import utils
from groundwork.models.common.darknet import MultiScaleFusion
from groundwork.models.common.image_first import ImageFirst, for_each
from groundwork.models.common.timm_backbone import TimmBackbone
from groundwork.models.common.word_language import WordLanguageEncoder
from groundwork.models.simrec.backbone import CSPDarkNet
from groundwork.models.simrec.fusion import CollectDiffuseAttention, SentenceProduct
from groundwork.models.simrec.head import BoxHead

if TYPE_CHECKING:
    from groundwork.dataset.batches import ReferringBatch


class SimREC(ImageFirst):
    """Published parameter names.

    Args:
        visual_encoder, lang_encoder: of image and sentence; the second of width `width`.
        multi_scale_manner: joins the maps after they have met the sentence, all of width `width`.
        attention_manner: the collect-and-diffuse attention.
        head: gives the boxes.
        train_sides: a training batch is resized to one of these, drawn for every step and the same
            on all processes; none: not.
    """

    inputs: ClassVar[tuple[str, ...]] = ("image", "text_ids")
    outputs: ClassVar[tuple[str, ...]] = ("cells",)

    def __init__(
        self,
        visual_encoder: CSPDarkNet | TimmBackbone,
        lang_encoder: WordLanguageEncoder,
        multi_scale_manner: MultiScaleFusion,
        attention_manner: CollectDiffuseAttention,
        head: BoxHead,
        *,
        width: int,
        train_sides: Sequence[int] = (),
    ):
        super().__init__()
        self.visual_encoder, self.lang_encoder = visual_encoder, lang_encoder
        self.multi_scale_manner = multi_scale_manner
        self.fusion_manner = nn.ModuleList(
            SentenceProduct(channels, width) for channels in visual_encoder.channels
        )
        self.attention_manner = attention_manner
        self.head = head
        self.train_sides = tuple(train_sides)

    def encode(self, batch: ReferringBatch) -> tuple[Tensor, Tensor, Tensor]:
        """`image` (B, 3, S, S) with S a multiple of 32 -> the backbone's maps, before they meet the
        sentence. A training batch has more than one image, for the sake of batch norms."""
        return self.visual_encoder(self._resized(batch["image"]))

    def answer(
        self, seen: tuple[Tensor, Tensor, Tensor], batch: ReferringBatch
    ) -> dict[str, Tensor]:
        """Args:
            seen: of `encode`.
            batch: `text_ids` (B, L), 0 = padding.

        Returns:
            cells (B, h, w, 5): cxcywh in pixels, logit of the objectness. h and w are those of the
            image as it was used, which in training may be another size.
        """
        maps = (for_each(one, batch["text_ids"].shape[0]) for one in seen)
        sentence = self.lang_encoder(batch["text_ids"]).vector
        met = (meet(one, sentence) for meet, one in zip(self.fusion_manner, maps, strict=True))
        fused = self.attention_manner(self.multi_scale_manner(*met), sentence)
        return {"cells": self.head(fused)}

    def _resized(self, image: Tensor) -> Tensor:
        if not (self.training and self.train_sides):
            return image
        place = torch.randint(len(self.train_sides), (), generator=utils.shared_random)
        side = self.train_sides[int(place)]
        return F.interpolate(image, size=(side, side), mode="nearest")

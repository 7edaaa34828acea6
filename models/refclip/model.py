"""RefCLIP (Jin et al., CVPR 2023): which cell of a frozen detector's map does a sentence mean?

What the paper calls an anchor is a cell of the coarsest map, which owns several boxes.

Shapes: B images with one sentence of L words each; N cells on the map, k of them candidates; A
boxes per cell; D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from groundwork.models.common.darknet import MultiScaleFusion
from groundwork.models.common.frozen_cache import FrozenCache
from groundwork.models.common.image_first import ImageFirst, for_each
from groundwork.models.common.precision import at_least_single
from groundwork.models.common.word_language import WordLanguageEncoder
from groundwork.models.refclip.detector import Detection, Detector

if TYPE_CHECKING:
    from groundwork.dataset.batches import ReferringBatch


class Seen(NamedTuple):
    """The candidate cells of the images, all that there is before the sentences.

    features (B, k, D); cells (B, k), which they are, ascending; boxes (B, k, A, 5), cxcywh
    in pixels of the input and objectness; likeliest (B, 4), cxcywh of the box with the highest
    objectness of all.
    """

    features: Tensor
    cells: Tensor
    boxes: Tensor
    likeliest: Tensor


class RefCLIP(ImageFirst):
    """Published parameter names.

    Args:
        visual_encoder: the detector, which is frozen here.
        lang_encoder: of width `width`.
        multi_scale_manner: fuses the detector's maps. fusion_width: its channels.
        cells: k.
        cache: keeps what the detector sees; needs "eval" batch norms.
        detector_bn: "eval" keeps the detector in evaluation mode always; "train" lets its batch
            norms follow the mode of the model, as released.
    """

    inputs: ClassVar[tuple[str, ...]] = ("image", "text_ids")
    outputs: ClassVar[tuple[str, ...]] = ("similarity", "cell_boxes", "likeliest_box")

    def __init__(
        self,
        visual_encoder: Detector,
        lang_encoder: WordLanguageEncoder,
        multi_scale_manner: MultiScaleFusion,
        *,
        width: int,
        fusion_width: int,
        cells: int,
        detector_bn: str = "eval",
        cache: FrozenCache | None = None,
    ):
        super().__init__()
        self.visual_encoder = visual_encoder.requires_grad_(False)
        self.lang_encoder = lang_encoder
        self.linear_vs = nn.Linear(fusion_width, width)
        self.linear_ts = nn.Linear(width, width)
        self.multi_scale_manner = multi_scale_manner
        self.cells = cells
        self.detector_bn = detector_bn
        self.cache = cache
        self.train(self.training)

    def train(self, mode: bool = True) -> RefCLIP:
        """As torch's, but the detector's mode is what `detector_bn` says."""
        super().train(mode)
        self.visual_encoder.train(mode and self.detector_bn == "train")
        return self

    def encode(self, batch: ReferringBatch) -> Seen:
        """`image` (B, 3, S, S) with S a multiple of 32."""
        detection = self.detect(batch["image"])
        selected = select_cells(detection.boxes, self.cells)
        fused = self.multi_scale_manner(detection.s8, detection.s16, detection.s32)
        candidates = gather_cells(fused.flatten(2).transpose(1, 2), selected)
        return Seen(
            self.linear_vs(candidates),
            selected,
            gather_cells(detection.boxes, selected),
            likeliest_box(detection.boxes),
        )

    def answer(self, seen: Seen, batch: ReferringBatch) -> dict[str, Tensor]:
        """Args:
            seen: of `encode`.
            batch: `text_ids` (B, L), 0 = padding.

        Returns:
            cell_features (B, k, D) and text_features (B, D); similarity (B, k), their dot products;
            cell_index, cell_boxes and likeliest_box as `Seen` has them.
        """
        cells, index, boxes, likeliest = (for_each(one, batch["text_ids"].shape[0]) for one in seen)
        text = self.linear_ts(self.lang_encoder(batch["text_ids"]).vector)
        return {
            "cell_features": cells,
            "text_features": text,
            "similarity": at_least_single(torch.einsum("bkd,bd->bk", cells, text)),
            "cell_index": index,
            "cell_boxes": boxes,
            "likeliest_box": likeliest,
        }

    @torch.no_grad()
    def detect(self, image: Tensor) -> Detection:
        """What the frozen detector sees, or saw before."""
        if self.cache is None or torch.compiler.is_exporting():
            return self.visual_encoder(image)
        return Detection(*self.cache(self.visual_encoder, image))


def select_cells(boxes: Tensor, count: int) -> Tensor:
    """The cells whose boxes have the highest mean objectness.

    Args:
        boxes: (B, N, A, 5).

    Returns:
        (B, count) int64, ascending; all cells where there are fewer.
    """
    objectness = boxes[..., 4].mean(dim=-1)
    return objectness.topk(min(count, objectness.shape[1])).indices.sort(dim=1).values


def likeliest_box(boxes: Tensor) -> Tensor:
    """(B, N, A, 5) -> (B, 4): the box with the highest objectness."""
    boxes = boxes.flatten(1, 2)
    return gather_cells(boxes[..., :4], boxes[..., 4].argmax(dim=1, keepdim=True))[:, 0]


def gather_cells(values: Tensor, index: Tensor) -> Tensor:
    """(B, N, ...) and (B, k) -> (B, k, ...)."""
    row = torch.arange(values.shape[0], device=values.device)[:, None]
    return values[row, index]

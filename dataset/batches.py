"""The batches: this is the one list of their keys.

B samples (or images), T phrases of all images of a batch, L tokens of the longest text, P samples
that have a paraphrase, R samples that have a region. Boxes are xyxy float pixels of the original
image, sizes (height, width), unless it says otherwise. Images are float32.

The collates make them, engine and rooms read them. A room may not import `dataset`: it names these
types under TYPE_CHECKING, where a checker sees them and nothing runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import numpy as np
from torch import Tensor

from groundwork.geometry import Size

if TYPE_CHECKING:
    from typing import NotRequired  # since Python 3.11


class Batch(TypedDict):
    """What every batch has."""

    image: Tensor  # (B, 3, H, W)
    faults: list[str]  # what of its records cannot be used as annotated, a line each


class TrainBatch(Batch):
    """What the engine reads of a training batch."""

    corrupt: int  # images that could not be decoded and were replaced; 0 unless tolerate_corrupt


class EvalBatch(Batch):
    """What every evaluation batch has: B images with their T phrases, image by image.

    An image that cannot be decoded is left out (tolerate_corrupt); if all are, B is 0 and image
    (0, 3, 0, 0).
    """

    corrupt: list[str]  # paths of the images that are left out
    image_path: list[str]  # B
    sample_index: list[int]  # B indices into the data set
    size: list[Size]  # B, what boxes, masks and points are in: the image's, or as records state it
    phrase_image: Tensor  # (T,) int64, which of the B images, not decreasing
    phrase: list[str]  # T
    phrase_ids: list[str]  # T, the annotation's own
    boxes: list[np.ndarray]  # T times (n, 4) float64, as annotated
    masks: list[np.ndarray | None]  # T times (H, W) bool; None where none is annotated


class ImageTextTrainBatch(TrainBatch):
    """For heat maps: one drawn phrase of each image. S image_size, M mask_size."""

    # image: (B, 3, S, S), CLIP mean and deviation
    text_ids: Tensor  # (B, L) int64, [CLS] and word pieces, no [SEP]
    text_mask: Tensor  # (B, L) int64, 1 = token, 0 = padding
    paraphrase_index: Tensor  # (P,) int64, which samples have a paraphrase, ascending
    paraphrase_ids: Tensor  # (P, L') int64, rows in that order; (0, 1) without any
    paraphrase_mask: Tensor  # (P, L') int64
    region_index: Tensor  # (R,) int64, which samples have a region, ascending
    region_mask: Tensor  # (R, M, M) float32 in [0, 1], rows in that order
    phrase: list[str]  # B, cleaned; left and right exchanged if the image was mirrored
    paraphrase: list[str | None]  # B
    image_path: list[str]  # B


class ImageTextEvalBatch(EvalBatch):
    """For heat maps: all phrases of each image, cleaned."""

    # image: (B, 3, S, S), CLIP mean and deviation
    text_ids: Tensor  # (T, L) int64, as in training
    text_mask: Tensor  # (T, L) int64
    splits: list[str]  # T
    record_ids: list[str]  # T
    words: NotRequired[list[list[tuple[str, int]]]]  # T, with their pieces; asks for their maps


class ReferringBatch(Batch):
    """For boxes and masks: B images, each with one expression, or one sentence with its phrases.

    Q phrase slots, (H, W) the canvas, (h, w) an image on it. The presence of `phrase_text_ids`
    selects the mode of several phrases, whose unused slots are [CLS][SEP]; without it T is B.

    One expression is cut to data.max_tokens. A sentence with phrases is not: a longer one is an
    error, as is a phrase that is not in its sentence, an empty expression and a mask of another
    size than its image. More than data.max_phrases phrases of one sentence make several samples.

    A phrase has one target, the box around all its boxes; with model.several_targets each of its
    boxes, or none. Where boxes are not looked at, as in the training of RefCLIP, there are none.
    """

    # image: (B, 3, H, W), ImageNet mean and deviation, zeros right and below
    image_mask: Tensor  # (B, H, W) bool, True on the padding
    text_ids: Tensor  # (B, L) int64, of the expression or sentence
    text_mask: Tensor  # (B, L) int64, 1 = token
    phrase_text_ids: NotRequired[Tensor]  # (B, Q, L') int64
    phrase_text_mask: NotRequired[Tensor]  # (B, Q, L') int64
    phrase_start: NotRequired[Tensor]  # (B, Q) int64, first token in the sentence; unused slots 0
    phrase_stop: NotRequired[Tensor]  # (B, Q) int64, the token after its last; unused slots 1
    phrase_valid: NotRequired[Tensor]  # (B, Q) bool, True = a phrase, not an unused slot
    target_boxes: list[Tensor]  # B times (n, 4) float32, cxcywh in [0, 1] of the image, by target
    target_mask: NotRequired[Tensor]  # (B, H, W) bool, all masks together; with model.masks
    target_masks: NotRequired[list[Tensor]]  # B times (n, h, w) bool; with several targets, too
    size: list[Size]  # B, of the original image
    resized: list[Size]  # B times (h, w)
    offset: list[tuple[int, int]]  # B times (x, y), the image on the grey canvas of "letterbox"
    image_path: list[str]  # B
    record_ids: list[str]  # B
    splits: list[str]  # B
    sample_index: list[int]  # B indices into the data set
    phrase_image: Tensor  # (T,) int64, which of the B images, not decreasing
    phrase: list[str]  # T, as annotated
    phrase_ids: list[str]  # T, the annotation's own
    expression_ids: list[str]  # T, different for every phrase of the data set
    boxes: list[np.ndarray]  # T times (n, 4) float64


class ReferringTrainBatch(ReferringBatch):
    """A `TrainBatch` of referring samples."""

    corrupt: int


class ReferringEvalBatch(ReferringBatch):
    """An `EvalBatch` of referring samples."""

    masks: list[np.ndarray | None]
    corrupt: list[str]


class DetectionBatch(TrainBatch):
    """Images with all their objects, for RefCLIP's detector."""

    # image: (B, 3, S, S), ImageNet mean and deviation
    object_boxes: list[Tensor]  # B times (n, 4) float32, cxcywh in pixels of the square
    object_labels: list[Tensor]  # B times (n,) int64

"""Samples of `ReferringDataset` to batches; the keys are listed in `dataset/batches.py`."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from groundwork.dataset.batches import ReferringBatch, ReferringEvalBatch, ReferringTrainBatch
from groundwork.dataset.referring.dataset import ReferringSample
from groundwork.dataset.referring.text import EncodedText, ReferringText


@dataclass(frozen=True)
class ReferringCollate:
    """Makes a batch.

    Attributes:
        text: gives padding and the ids of an empty phrase.
        training: what `corrupt` holds, and whether masks in original size are left out.
        masks: whether the batch has a `target_mask`.
        fixed_length: pad texts to `text.max_tokens`, phrases to `text.max_phrase_tokens` and their
            slots to `max_phrases`, as released; otherwise to the longest of the batch.
    """

    text: ReferringText
    training: bool
    masks: bool = False
    fixed_length: bool = False
    max_phrases: int = 16

    def __call__(
        self, samples: Sequence[ReferringSample]
    ) -> ReferringTrainBatch | ReferringEvalBatch:
        corrupt = [sample.image_path for sample in samples if sample.image is None]
        samples = [sample for sample in samples if sample.image is not None]
        batch = self._batch(samples)
        if self.training:
            return {**batch, "corrupt": sum(sample.corrupt for sample in samples)}
        masks = list(chain.from_iterable(sample.masks for sample in samples))
        return {**batch, "corrupt": corrupt, "masks": masks}

    def _batch(self, samples: Sequence[ReferringSample]) -> ReferringBatch:
        image, image_mask = pad_images([s.image for s in samples if s.image is not None])
        length = self.text.max_tokens if self.fixed_length else None
        text_ids, text_mask = self._pad([sample.text.ids for sample in samples], length)
        counts = torch.tensor([len(sample.phrase) for sample in samples], dtype=torch.int64)
        batch: ReferringBatch = {
            "image": image,
            "image_mask": image_mask,
            "text_ids": text_ids,
            "text_mask": text_mask,
            "target_boxes": [sample.target_boxes for sample in samples],
            "size": [sample.size for sample in samples],
            "resized": [sample.resized for sample in samples],
            "offset": [sample.offset for sample in samples],
            "image_path": [sample.image_path for sample in samples],
            "record_ids": [sample.record_id for sample in samples],
            "sample_index": [sample.index for sample in samples],
            "splits": [sample.split for sample in samples],
            "phrase_image": torch.repeat_interleave(torch.arange(len(samples)), counts),
            "phrase": [value for sample in samples for value in sample.phrase],
            "phrase_ids": [value for sample in samples for value in sample.phrase_ids],
            "expression_ids": [value for sample in samples for value in sample.expression_ids],
            "boxes": [value for sample in samples for value in sample.boxes],
            "faults": [line for sample in samples for line in sample.faults],
        }
        if self.text.multi_phrase:
            self._add_phrases(batch, [sample.text for sample in samples])
        if self.masks:
            batch["target_mask"] = pad_masks([s.target_mask for s in samples], image_mask.shape)
        of_targets = [s.target_masks for s in samples if s.target_masks is not None]
        if of_targets:
            batch["target_masks"] = of_targets
        return batch

    def _add_phrases(self, batch: ReferringBatch, texts: Sequence[EncodedText]) -> None:
        empty = self.text.tokenizer("")["input_ids"]
        phrases = [text.phrases or [] for text in texts]
        slots = self.max_phrases if self.fixed_length else max(map(len, phrases), default=0)
        filled = [ids for one in phrases for ids in one + [empty] * (slots - len(one))]
        length = self.text.max_phrase_tokens if self.fixed_length else None
        phrase_ids, phrase_mask = self._pad(filled, length)
        # An unused slot points at [CLS].
        spans = [(text.spans or []) + [(0, 1)] * (slots - len(text.spans or [])) for text in texts]
        places = torch.tensor(spans, dtype=torch.int64).reshape(len(texts), slots, 2)
        shape = (len(texts), slots, phrase_ids.shape[-1])
        batch["phrase_text_ids"] = phrase_ids.reshape(shape)
        batch["phrase_text_mask"] = phrase_mask.reshape(shape)
        batch["phrase_start"], batch["phrase_stop"] = places[..., 0], places[..., 1]
        valid = [[slot < len(one) for slot in range(slots)] for one in phrases]
        batch["phrase_valid"] = torch.tensor(valid, dtype=torch.bool).reshape(len(texts), slots)

    def _pad(self, rows: Sequence[list[int]], length: int | None) -> tuple[Tensor, Tensor]:
        """Rows of ids -> ids and mask, (n, length) int64; the longest row without a length."""
        longest = length or max([1, *map(len, rows)])
        padding = int(self.text.tokenizer.pad_token_id)
        filled = [[*row, *[padding] * (longest - len(row))] for row in rows]
        ids = torch.tensor(filled, dtype=torch.int64).reshape(len(rows), longest)
        lengths = torch.tensor([len(row) for row in rows])
        return ids, (torch.arange(longest) < lengths[:, None]).long()


def pad_images(images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(3, h, w) images -> (B, 3, H, W) float32 and (B, H, W) bool, True on the padding.

    Images lie at the top left; the rest is zeros.

    H and W are the largest h and w.
    """
    height = max((image.shape[1] for image in images), default=0)
    width = max((image.shape[2] for image in images), default=0)
    canvas = torch.zeros(len(images), 3, height, width)
    padding = torch.ones(len(images), height, width, dtype=torch.bool)
    for index, image in enumerate(images):
        canvas[index, :, : image.shape[1], : image.shape[2]] = image
        padding[index, : image.shape[1], : image.shape[2]] = False
    return canvas, padding


def pad_masks(masks: Sequence[Tensor | None], shape: Sequence[int]) -> Tensor:
    """(h, w) bool masks -> (B, H, W) bool of `shape`; False right and below."""
    canvas = torch.zeros(*shape, dtype=torch.bool)
    for index, mask in enumerate(masks):
        if mask is not None:
            canvas[index, : mask.shape[0], : mask.shape[1]] = mask
    return canvas

"""Samples to batches; the keys are listed in `dataset/batches.py`."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from groundwork.dataset.batches import ImageTextEvalBatch, ImageTextTrainBatch
from groundwork.dataset.image_text.dataset import EvalSample, TrainSample

_TEXTS_AT_ONCE = 4096


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts as ALBEF reads them: [CLS] and the word pieces, without the [SEP] of BERT.

    Returns ids and mask (1 = token, 0 = padding), both (n, L) int64, padded to the longest; for no
    text at all two (0, 1) tensors. A text without a word is [CLS] alone.

    Args:
        max_tokens: longer texts are cut to this many tokens, [CLS] included; None: no limit.
    """
    if not texts:
        return torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 1, dtype=torch.int64)
    pieces = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    rows = [torch.tensor([tokenizer.cls_token_id, *row][:max_tokens]) for row in pieces]
    ids = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()


def too_long(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[tuple[str, str]], limit: int
) -> Iterator[str]:
    """What is to be said of the cleaned texts, each with its source, of more than `limit` tokens,
    [CLS] included."""
    # Most words are one token each, but a word may be many: only short texts surely fit.
    left = (pair for pair in texts if len(pair[0]) >= limit)
    while block := list(islice(left, _TEXTS_AT_ONCE)):
        _, mask = tokenize(tokenizer, [text for text, _ in block])
        for (text, source), length in zip(block, mask.sum(1).tolist(), strict=True):
            if length > limit:
                yield f"{source}: {length} tokens, at most {limit} can be read: {text!r}"


def _present(values: Sequence[object]) -> torch.Tensor:
    """Indices (n,) int64 of the values that are not None.

    Made here and not from a mask on the device: finding them there would make every step wait.
    """
    return torch.tensor([i for i, v in enumerate(values) if v is not None], dtype=torch.int64)


class TrainCollate:
    """Makes a training batch of `TrainSample`s.

    Args:
        tokenizer: words to ids.
        max_tokens: limit of a phrase, [CLS] included.
        mask_size: side of the region masks; gives an empty batch of regions its shape.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int, mask_size: int) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.mask_size = mask_size

    def __call__(self, samples: Sequence[TrainSample]) -> ImageTextTrainBatch:
        phrases = [sample.phrase for sample in samples]
        paraphrases = [sample.paraphrase for sample in samples]
        present = [text for text in paraphrases if text is not None]
        masks = [sample.region_mask for sample in samples]
        regions = [mask for mask in masks if mask is not None]
        text_ids, text_mask = tokenize(self.tokenizer, phrases, self.max_tokens)
        paraphrase_ids, paraphrase_mask = tokenize(self.tokenizer, present, self.max_tokens)
        return {
            "image": torch.stack([sample.image for sample in samples]),
            "text_ids": text_ids,
            "text_mask": text_mask,
            "paraphrase_index": _present(paraphrases),
            "paraphrase_ids": paraphrase_ids,
            "paraphrase_mask": paraphrase_mask,
            "region_index": _present(masks),
            "region_mask": torch.stack(regions)
            if regions
            else torch.zeros(0, self.mask_size, self.mask_size),
            "phrase": phrases,
            "paraphrase": paraphrases,
            "image_path": [sample.image_path for sample in samples],
            "corrupt": sum(sample.corrupt for sample in samples),
            "faults": [line for sample in samples for line in sample.faults],
        }


class EvalCollate:
    """Makes an evaluation batch of `EvalSample`s; phrases have no token limit."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def __call__(self, samples: Sequence[EvalSample]) -> ImageTextEvalBatch:
        corrupt = [sample.image_path for sample in samples if sample.image is None]
        samples = [sample for sample in samples if sample.image is not None]
        images = [sample.image for sample in samples if sample.image is not None]
        phrases = [text for sample in samples for text in sample.phrase]
        text_ids, text_mask = tokenize(self.tokenizer, phrases)
        counts = torch.tensor([len(sample.phrase) for sample in samples], dtype=torch.int64)
        return {
            "image": torch.stack(images) if images else torch.zeros(0, 3, 0, 0),
            "text_ids": text_ids,
            "text_mask": text_mask,
            "phrase_image": torch.repeat_interleave(torch.arange(len(samples)), counts),
            "phrase": phrases,
            "phrase_ids": [value for sample in samples for value in sample.phrase_ids],
            "boxes": [value for sample in samples for value in sample.boxes],
            "masks": [value for sample in samples for value in sample.masks],
            "splits": [value for sample in samples for value in sample.splits],
            "record_ids": [value for sample in samples for value in sample.record_ids],
            "size": [sample.size for sample in samples],
            "image_path": [sample.image_path for sample in samples],
            "sample_index": [sample.index for sample in samples],
            "corrupt": corrupt,
            "faults": [line for sample in samples for line in sample.faults],
        }

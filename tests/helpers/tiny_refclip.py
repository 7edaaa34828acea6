"""A tiny RefCLIP with batches of random images and words, for tests."""

from dataclasses import replace

import torch

from groundwork.models.refclip.build import build_criterion, build_model
from groundwork.models.refclip.config import (
    RefclipDetectorConfig,
    RefclipModelConfig,
    WordTextConfig,
)
from groundwork.models.refclip.criterion import RefCLIPCriterion
from groundwork.models.refclip.model import RefCLIP

VOCABULARY, SIDE = 20, 96
MODEL = RefclipModelConfig(
    detector=RefclipDetectorConfig(width=2, classes=3, blocks=(1, 1, 1, 1, 1)),
    text=WordTextConfig(word_width=8, layers=1, heads=2, ffn=12, dropout=0.0, train_words=True),
    width=16, fusion_width=16, cells=4,
)  # fmt: skip


def tiny_refclip(config: RefclipModelConfig = MODEL, *, seed: int = 0) -> RefCLIP:
    """With shapes of boxes that differ from cell to cell."""
    torch.manual_seed(seed)
    return build_model(config, VOCABULARY)


def tiny_criterion(config: RefclipModelConfig = MODEL) -> RefCLIPCriterion:
    return build_criterion(config)


def each_by_itself() -> RefclipModelConfig:
    """The released behaviour of several processes."""
    return replace(MODEL, across_processes=False)


def tiny_batch(count: int = 3, *, seed: int = 0) -> dict:
    """Images of blobs with sentences of two to six words."""
    draw = torch.Generator().manual_seed(seed)
    low = torch.randn(count, 3, SIDE // 8, SIDE // 8, generator=draw)
    image = torch.nn.functional.interpolate(low, scale_factor=8) * 2
    ids = torch.randint(3, VOCABULARY, (count, 6), generator=draw)
    lengths = torch.randint(2, 7, (count, 1), generator=draw)
    ids = ids * (torch.arange(6) < lengths)
    return {
        "image": image, "text_ids": ids, "text_mask": (ids > 0).long(),
        "size": [(2 * SIDE, SIDE)] * count, "resized": [(SIDE, SIDE // 2)] * count,
        "offset": [(SIDE // 4, 0)] * count, "phrase": [f"thing {n}" for n in range(count)],
    }  # fmt: skip


def rows_of(batch: dict, rows: slice) -> dict:
    return {key: value[rows] for key, value in batch.items()}

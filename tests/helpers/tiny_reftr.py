"""A tiny RefTR with batches of random images and words, for tests."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from groundwork.models.reftr.build import build_model
from groundwork.models.reftr.config import ReftrBackboneConfig, ReftrModelConfig, ReftrTextConfig
from groundwork.models.reftr.model import RefTR

VOCABULARY = 60
TEXT = ReftrTextConfig(
    vocab_size=VOCABULARY, width=16, layers=1, heads=2, ffn=24, positions=32, dropout=0.0,
    initializer_range=0.25,
)  # fmt: skip
MODEL = ReftrModelConfig(
    backbone=ReftrBackboneConfig(name="resnet10", width=8),
    text=TEXT, width=32, heads=4, ffn=40, encoder_layers=1, decoder_layers=3, dropout=0.0,
)  # fmt: skip
MASKS = replace(MODEL, masks=True)
CLS, SEP = 2, 3


def tiny_reftr(config: ReftrModelConfig = MODEL, *, seed: int = 0) -> RefTR:
    """With a box head that has left its zeros, as after some training."""
    torch.manual_seed(seed)
    model = build_model(config)
    torch.nn.init.normal_(model.bbox_embed.layers[-1].weight, std=0.2)
    return model


def sentences(lengths: Sequence[int], draw: torch.Generator, padded: int) -> tuple:
    """Ids and mask (n, padded): [CLS], words, [SEP], zeros; `lengths` include the two."""
    place, ends = torch.arange(padded), torch.tensor(lengths)[:, None]
    ids = torch.randint(5, VOCABULARY, (len(lengths), padded), generator=draw)
    ids[:, 0] = CLS
    ids = torch.where(place == ends - 1, SEP, ids)
    mask = (place < ends).long()
    return ids * mask, mask


def tiny_batch(sizes: Sequence[tuple[int, int]] = ((96, 64), (70, 96)), *, seed: int = 0) -> dict:
    """One phrase per image; `sizes` are those of the images before padding."""
    draw = torch.Generator().manual_seed(seed)
    canvas = tuple(max(side) for side in zip(*sizes, strict=True))
    image = torch.zeros(len(sizes), 3, *canvas)
    padding = torch.ones(len(sizes), *canvas, dtype=torch.bool)
    target = torch.zeros(len(sizes), *canvas)
    for row, (height, width) in enumerate(sizes):
        image[row, :, :height, :width] = torch.randn(3, height, width, generator=draw)
        padding[row, :height, :width] = False
        target[row, height // 4 : height // 2, width // 4 : width // 2] = 1
    ids, mask = sentences([5 + row % 3 for row in range(len(sizes))], draw, 9)
    box = torch.tensor([[0.375, 0.375, 0.25, 0.25]])
    return {
        "image": image, "image_mask": padding, "text_ids": ids, "text_mask": mask,
        "target_boxes": [box.clone() for _ in sizes], "target_mask": target,
        "size": [(2 * h, 2 * w) for h, w in sizes], "resized": list(sizes),
        "phrase": [f"thing {row}" for row in range(len(sizes))],
        "image_path": [f"{row}.jpg" for row in range(len(sizes))],
    }  # fmt: skip


def tiny_phrases(counts: Sequence[int] = (3, 1), *, slots: int = 4, seed: int = 0) -> dict:
    """Several phrases per image, `counts` of them real; each is a span of its sentence."""
    batch = tiny_batch(seed=seed)
    draw = torch.Generator().manual_seed(seed + 1)
    rows = len(counts)
    ids, mask = sentences([12] * rows, draw, 14)
    start = torch.zeros(rows, slots, dtype=torch.long)
    stop = torch.ones(rows, slots, dtype=torch.long)
    phrase_ids = torch.zeros(rows, slots, 6, dtype=torch.long)
    phrase_ids[..., :2] = torch.tensor([CLS, SEP])
    for row, count in enumerate(counts):
        for slot in range(count):
            first, length = 1 + 3 * slot, 1 + slot % 3
            start[row, slot], stop[row, slot] = first, first + length
            words = [CLS, *ids[row, first : first + length].tolist(), SEP]
            phrase_ids[row, slot, : len(words)] = torch.tensor(words)
    boxes = torch.rand(sum(counts), 4, generator=draw) * 0.3 + 0.3
    return batch | {
        "text_ids": ids, "text_mask": mask,
        "phrase_text_ids": phrase_ids, "phrase_text_mask": (phrase_ids > 0).long(),
        "phrase_start": start, "phrase_stop": stop,
        "phrase_valid": torch.arange(slots) < torch.tensor(counts)[:, None],
        "target_boxes": list(boxes.split(list(counts))),
        "phrase": [f"thing {row}" for row in range(sum(counts))],
    }  # fmt: skip

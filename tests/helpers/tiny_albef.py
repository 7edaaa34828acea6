"""A tiny ALBEF with batches of random images and words, for tests of model and process groups."""

from collections.abc import Sequence

import torch

from groundwork.models.albef.build import build_criterion, build_model
from groundwork.models.albef.config import AlbefModelConfig, TextConfig
from groundwork.models.albef.criterion import ObjectiveList
from groundwork.models.albef.model import ALBEF

TEXT = TextConfig(
    vocab_size=64,
    hidden_size=32,
    num_hidden_layers=4,
    fusion_layer=2,
    num_attention_heads=2,
    intermediate_size=48,
    max_position_embeddings=32,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
MODEL = AlbefModelConfig(
    image_size=32,
    patch_size=8,
    vision_width=32,
    vision_depth=2,
    vision_heads=2,
    text=TEXT,
    embed_dim=16,
    queue_size=10,
    explanation_layer=2,
)
ALL = ("itc_itm_mlm", "selfeq", "amc")


class Tokenizer:
    """As much of a tokeniser as a criterion asks for."""

    pad_token_id, cls_token_id, mask_token_id = 0, 2, 4

    def __len__(self) -> int:
        return TEXT.vocab_size


def tiny_model(config: AlbefModelConfig = MODEL, *, momentum: bool = True, seed: int = 0) -> ALBEF:
    torch.manual_seed(seed)
    return build_model(config, momentum=momentum)


def tiny_criterion(*objectives: str) -> ObjectiveList:
    return build_criterion(MODEL.objectives, objectives, Tokenizer())


def texts(count: int, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask (count, 7): [CLS], some words, padding."""
    ids = torch.randint(5, TEXT.vocab_size, (count, 7), generator=draw)
    lengths = torch.randint(3, 8, (count, 1), generator=draw)
    place = torch.arange(7)
    ids[:, 0] = Tokenizer.cls_token_id
    mask = (place < lengths).long()
    return ids * mask, mask


def tiny_batch(
    paraphrased: Sequence[bool],
    *,
    regions: Sequence[bool] | None = None,
    seed: int = 0,
    side: int = 32,
) -> dict:
    """A sample per item of `paraphrased`; `regions` (default: all) says which have a region."""
    draw = torch.Generator().manual_seed(seed)
    has_paraphrase = torch.tensor(paraphrased, dtype=torch.bool)
    size = len(has_paraphrase)
    has_region = torch.tensor([True] * size if regions is None else regions, dtype=torch.bool)
    masks = torch.zeros(size, 24, 24)
    masks[:, 4:15, 3:12] = 1
    text_ids, text_mask = texts(size, draw)
    other_ids, other_mask = texts(size, draw)
    return {
        "image": torch.randn(size, 3, side, side, generator=draw),
        "text_ids": text_ids,
        "text_mask": text_mask,
        "paraphrase_index": has_paraphrase.nonzero().flatten(),
        "paraphrase_ids": other_ids[has_paraphrase],
        "paraphrase_mask": other_mask[has_paraphrase],
        "region_index": has_region.nonzero().flatten(),
        "region_mask": masks[has_region],
    }


def rows_of(batch: dict, rows: slice) -> dict:
    """Those samples of a batch in which every sample has a paraphrase and a region."""
    part = {key: value[rows] for key, value in batch.items()}
    every = torch.arange(len(part["image"]))
    return part | {"paraphrase_index": every, "region_index": every}


def phrase_alone(batch, row: int, image: int) -> dict:
    """The evaluation batch of one phrase with its image, of a batch of several."""
    return {
        "image": batch["image"][image : image + 1],
        "text_ids": batch["text_ids"][row : row + 1],
        "text_mask": batch["text_mask"][row : row + 1],
        "phrase_image": torch.tensor([0]),
    }

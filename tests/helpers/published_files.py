"""Small checkpoints in the layouts in which the authors published theirs, without a configuration.

Widths are multiples of 64, as heads have that many channels in every published network.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from groundwork.dataset.pieces import SentencePieces
from groundwork.dataset.words import Vocabulary
from groundwork.models import SYSTEMS
from groundwork.settings import RunConfig, load_config
from tests.helpers.script_runs import CONFIGS

TEXTS = ["the red circle left of the green square", "a blue triangle", "two small stars below"]
_ALBEF = (
    "image_size=160", "patch_size=16", "vision_width=64", "vision_depth=2", "vision_heads=1",
    "embed_dim=16", "queue_size=8", "explanation_layer=2", "explanation.block=2",
    "text.hidden_size=64", "text.num_hidden_layers=4", "text.fusion_layer=2",
    "text.num_attention_heads=1", "text.intermediate_size=48", "text.max_position_embeddings=32",
)  # fmt: skip
_REFTR = (
    "backbone.name=resnet10", "width=64", "heads=2", "ffn=48", "encoder_layers=1",
    "decoder_layers=2", "text.width=64", "text.layers=1", "text.heads=1", "text.ffn=48",
)  # fmt: skip
_WORDS = (
    "width=64", "text.word_width=16", "text.heads=1", "text.ffn=32",
)  # fmt: skip
_REFCLIP = (*_WORDS, "fusion_width=32", "detector.width=4", "detector.blocks=[1,1,1,2,1]")
_SIMREC = (*_WORDS, "head_width=8", "backbone.width=4", "backbone.repeats=[1,1,2,1]")
_ALVG = (
    "encoder.image_size=96", "encoder.layers=2", "encoder.width=64", "encoder.heads=1",
    "encoder.ffn=48", "encoder.vocab_size=420", "encoder.text_positions=62", "width=64", "heads=2",
    "ffn=48", "query_ffn=32", "mask_channels=16",
)  # fmt: skip


def _of_albef(state: dict, of_stage: str = "") -> dict:
    """With what a training run of the release keeps beside the weights; `of_stage`: the name of
    SelfEQ's first stage, and what its scripts call an optimiser."""
    optimizer = f"{of_stage}oprimizer" if of_stage else "optimizer"
    moments = {"step": 3, "exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2)}
    return {
        "model": state,
        optimizer: {"state": {0: moments}, "param_groups": [{"lr": 1e-5, "params": [0]}]},
        f"{of_stage}lr_scheduler": {"base_values": [1e-5], "metric": None, "noise_std": 1.0},
        "config": {"train_file": ["data/a.json"], "image_res": 160, "optimizer": {"lr": 1e-5}},
        "epoch": 3,
    }


def _first_release(state: dict) -> dict:
    """With one pointer for both queues, as ALBEF's pre-training files."""
    kept = {key: value for key, value in state.items() if not key.startswith("queue_ptr_")}
    return _of_albef(kept | {"queue_ptr": state["queue_ptr_img"]})


def _fine_tuned(state: dict) -> dict:
    """As ALBEF's grounding files: BERT without its head and one level higher, owners of queues."""
    kept = {
        key.replace("text_encoder.bert.", "text_encoder.").replace(
            "text_encoder_m.bert.", "text_encoder_m."
        ): value
        for key, value in state.items()
        if ".cls." not in key
    }
    return _first_release(kept | {"idx_queue": torch.full((1, 8), -100)})


def _of_reftr(dataset: str) -> Callable[[dict], dict]:
    arguments = argparse.Namespace(dataset=dataset, lr=1e-4, nheads=2, img_size=96, max_img_size=96)
    return lambda state: {"model": state, "epoch": 3, "args": arguments, "best_val_acc": 0.5}


def _of_alvg(state: dict) -> dict:
    """With the parts that the authors' network holds and never uses."""
    state = state | {"head.criterion.empty_weight": torch.tensor([1.0, 0.1])}
    return {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 7}


@dataclass(frozen=True)
class Published:
    """config: the recipe that it is of; model: its `model` section where it is smaller, data: its
    `data` section; content: state dict -> all that the file holds."""

    config: str
    model: tuple[str, ...]
    content: Callable[[dict], dict]
    data: tuple[str, ...] = ()

    def configuration(self, *more: str) -> RunConfig:
        """What would have to be given if the file were not recognised."""
        settings = [*(f"model.{one}" for one in self.model), *(f"data.{one}" for one in self.data)]
        path = CONFIGS / f"{self.config}.yaml"
        return load_config(path, [*settings, *more], purpose="evaluation")


_SIDES = ("image_size=96", "max_image_size=96")
PUBLISHED: dict[str, Published] = {
    "albef": Published("Grounding_refcoco", _ALBEF, _first_release),
    "albef_grounding": Published("Grounding_refcoco", _ALBEF, _fine_tuned),
    "albef_amc": Published("Grounding_refcoco", _ALBEF, _of_albef),
    "albef_selfeq": Published(
        "Grounding_refcoco", _ALBEF, lambda state: _of_albef(state, "relation_")
    ),
    "reftr": Published("reftr/refcoco", _REFTR, _of_reftr("refcoco_unc"), _SIDES),
    "reftr_masks": Published("reftr/refcoco_res", _REFTR, _of_reftr("refcoco_unc"), _SIDES),
    "reftr_phrases": Published("reftr/flickr30k", _REFTR, _of_reftr("flickr30k"), _SIDES),
    "refclip": Published(
        "refclip/refcoco", _REFCLIP, lambda state: {"state_dict": state, "epoch": 25}
    ),
    "refclip_referit": Published(
        "refclip/referit", _REFCLIP, lambda state: {"state_dict": state, "epoch": 25}
    ),
    "simrec": Published("simrec/refcoco", _SIMREC, lambda state: {"state_dict": state, "lr": 1e-4}),
    "alvg": Published("alvg/refcoco", _ALVG, _of_alvg, ("image_size=96",)),
    "alvg_several": Published("alvg/grefcoco", _ALVG, _of_alvg, ("image_size=96",)),
}


def tokenizer_beside(kind: str, folder: Path) -> Any:
    """Writes what the release keeps beside its checkpoints; BERT's vocabulary ships with us."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind.startswith("alvg"):
        pieces = SentencePieces.train(TEXTS * 20)
        pieces.save(folder / "beit3.spm")
        return pieces
    if kind.startswith(("refclip", "simrec")):
        words = Vocabulary.of_texts(TEXTS)
        words.save(folder / "words.txt")
        return words
    return None


def write_published(kind: str, folder: Path) -> Path:
    """A file of random weights with which what is found depends on the words."""
    published = PUBLISHED[kind]
    config, texts = published.configuration(), tokenizer_beside(kind, folder)
    system = SYSTEMS[config.system]
    torch.manual_seed(0)
    bert = [0] * 30522 if texts is None else texts
    model = system.build(config.model, _Bert(bert) if texts is None else texts).model
    with torch.no_grad():
        for parameter in model.parameters():
            wide = parameter[0].numel() if parameter.ndim > 1 else 100
            parameter.add_(torch.randn_like(parameter), alpha=wide**-0.5)
    file = folder / "published.pth"
    torch.save(published.content(system.published_state(model)), file)
    return file


class _Bert(list):
    """As much of BERT's tokeniser as building a network asks for."""

    pad_token_id = 0


def drawn(seed: int = 0) -> np.ndarray:
    """An image of coloured rectangles, (90, 120, 3) uint8."""
    draw = np.random.default_rng(seed)
    image = np.full((90, 120, 3), 128, np.uint8)
    for _ in range(6):
        top, left = draw.integers(0, 70), draw.integers(0, 95)
        image[top : top + 20, left : left + 25] = draw.integers(0, 256, 3)
    return image

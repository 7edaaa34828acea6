"""What `experiments.speed` measures: every system at its published or at toy size, on random data.

A `Workload` names a configuration, a batch and whether it is trained or evaluated; `build` gives
one step of it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from groundwork.engine.compilation import compile_parts
from groundwork.engine.distribution import distribute
from groundwork.engine.precision import computing, rounded_weights
from groundwork.engine.training import TrainingStep, to_device
from groundwork.experiments.speed import released
from groundwork.models import SYSTEMS
from groundwork.models.alvg.model import PAD
from groundwork.optim import create_optimizer
from groundwork.settings import RunConfig, load_config
from groundwork.settings.load import CONFIGS, Purpose

WORDS = 12  # tokens of a phrase, special ones included: about the longest of a batch
SIDES = {
    **dict.fromkeys(("ALBEF", "AMC", "SelfEQ"), ("model.image_size",)),
    "RefTR": ("data.image_size", "data.max_image_size"),
    **dict.fromkeys(("RefCLIP", "SimREC"), ("data.image_size",)),
    "ALVG": ("data.image_size", "model.encoder.image_size"),
}
"""The keys of a system's configuration that say how large its images are."""
VARIANTS = ("released", "fp32", "bf16", "fp32 compiled", "bf16 compiled")
"""What is measured side by side, of a system or a part of it: see `Workload.variants`."""
SEVERAL = ("reftr/flickr30k", "tiny/reftr/flickr30k")
"""Configurations of which a text has several phrases."""
FIXED = {
    "RefCLIP": ["model.cache=null"],  # its detector sees the same images in every step
    "SimREC": ["model.train_sides=[]"],  # its recipe draws another image size for every step
}
KNOWN_WORDS = 10_000  # of the vocabularies that RefCLIP and SimREC make of annotation files


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One step that is timed.

    system: as the table calls it. config: below `configs`, without suffix. training: a step of its
    first stage; otherwise an evaluation. images: of the batch. phrases: of each image; more than
    one in ALBEF's evaluation, and where a text of RefTR has several. side: of the images in pixels;
    None: the configuration's. processes: of a group, each with such a batch. threads: of each
    process; None: torch's choice.
    """

    system: str
    config: str
    training: bool
    images: int
    phrases: int = 1
    side: int | None = None
    processes: int = 1
    threads: int | None = None

    @property
    def name(self) -> str:
        joined = ", several phrases" if self.config in SEVERAL else ""
        return f"{self.system}{joined}, {'training' if self.training else 'evaluation'}"

    @property
    def expressions(self) -> int:
        return self.images * self.phrases

    @property
    def variants(self) -> list[str]:
        """What is measured side by side; the first one is what the others are compared with."""
        staged = self.system in ("ALBEF", "AMC", "SelfEQ")
        known = [one for one in VARIANTS if self.training or not one.endswith("compiled")]
        return known if staged else known[1:]


def _pair(
    system: str, config: str, *, trained: int, evaluated: int, phrases: int = 1
) -> list[Workload]:
    one = partial(Workload, system=system, config=config, phrases=phrases)
    return [one(training=False, images=evaluated), one(training=True, images=trained)]


BASE = [
    Workload(system="ALBEF", config="Grounding_refcoco", training=False, images=2, phrases=5),
    Workload(system="AMC", config="Pretrain_vg_amc", training=True, images=4),
    Workload(system="SelfEQ", config="Pretrain_vg_amc_selfeq", training=True, images=4),
    *_pair("RefTR", "reftr/refcoco", trained=2, evaluated=4),
    *_pair("RefTR", "reftr/flickr30k", trained=2, evaluated=2, phrases=5),
    *_pair("RefCLIP", "refclip/refcoco", trained=8, evaluated=8),
    *_pair("SimREC", "simrec/refcoco", trained=4, evaluated=4),
    *_pair("ALVG", "alvg/refcoco", trained=2, evaluated=2),
]
TINY_CONFIGS = {
    "reftr/refcoco": "reftr/refcoco+",
    "refclip/refcoco": "refclip/refcoco+",
    "simrec/refcoco": "simrec/refcoco+",
    "alvg/refcoco": "alvg/refcoco+_res",
}
TINY = [replace(load, config=f"tiny/{TINY_CONFIGS.get(load.config, load.config)}") for load in BASE]
WORKLOADS = {"base": BASE, "tiny": TINY}


class AnyTexts:
    """A tokeniser of which only the number of words and the special ids are asked."""

    cls_token_id, mask_token_id = 2, 3

    def __init__(self, words: int, pad_token_id: int = 0):
        self.words, self.pad_token_id = words, pad_token_id

    def __len__(self) -> int:
        return self.words


def precision_of(variant: str) -> str | None:
    """A variant's precision; None: single precision by the kernels of torch's own choice."""
    return None if variant == "released" else variant.removesuffix(" compiled")


def build_config(load: Workload) -> RunConfig:
    """The configuration of a workload."""
    purpose: Purpose = "training" if load.training else "evaluation"
    fixed = FIXED.get(load.system, [])
    sized = [] if load.side is None else [f"{key}={load.side}" for key in SIDES[load.system]]
    return load_config(CONFIGS / f"{load.config}.yaml", [*fixed, *sized], purpose=purpose)


def build(load: Workload, variant: str, device: torch.device) -> Callable[[], object]:
    """A step of a workload with random weights, on `device`; in a group, one of its process, which
    averages gradients with the others.

    Args:
        variant: a precision, maybe with what can be compiled compiled, or "released": see
            `experiments.speed.released`.
    """
    config = build_config(load)
    torch.manual_seed(config.seed)
    system = SYSTEMS[config.system]
    objectives = [stage.objective for stage in config.stages] if load.training else []
    parts = system.build(config.model, _texts(config), objectives, training=load.training)
    model, batch = parts.model.to(device), to_device(_batch(config, load), device)
    if not load.training:
        if variant == "released":
            return partial(released.explain, model.eval(), batch)
        return _evaluation(parts.evaluated.eval(), batch, device, variant)
    optimizer, precision = create_optimizer(config.optimizer, model), precision_of(variant)
    if variant == "released":
        model = released.Training(model)
    elif variant != precision:
        compile_parts(system.compilable(model))
    one = TrainingStep(model.train(), parts.criteria[0]).to(device)
    module = distribute(one, device, unused=parts.unused_parameters)
    return _training(
        module, optimizer, batch, device, precision=precision, clip_norm=config.clip_norm
    )


def _evaluation(
    model: nn.Module, batch: dict[str, object], device: torch.device, precision: str
) -> Callable[[], object]:
    weights = rounded_weights(model, precision)

    def step() -> object:
        with torch.no_grad(), computing(device, precision):
            return functional_call(model, weights, (batch,))

    return step


def _training(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: dict[str, object],
    device: torch.device,
    *,
    precision: str | None,
    clip_norm: float | None,
) -> Callable[[], object]:
    def step() -> object:
        with nullcontext() if precision is None else computing(device, precision):
            total, _ = module(batch)
        total.backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(module.parameters(), clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total.item()

    return step


def _texts(config: RunConfig) -> AnyTexts:
    model = config.model
    if config.system in ("albef", "reftr"):
        return AnyTexts(model.text.vocab_size, model.text.pad_id if config.system == "reftr" else 0)
    return AnyTexts(0, PAD) if config.system == "alvg" else AnyTexts(KNOWN_WORDS)


def _batch(config: RunConfig, load: Workload) -> dict[str, object]:
    """As the collates make it, of random numbers."""
    if config.system == "albef":
        return _image_text_batch(config, load)
    side, several = config.data.image_size, load.config in SEVERAL
    length = config.data.max_tokens if several or config.system == "alvg" else WORDS
    x, y, w, h = 5 / 12, 3 / 8, 1 / 6, 1 / 4
    count = load.images
    batch: dict[str, object] = {
        "image": torch.randn(count, 3, side, side),
        "image_mask": torch.zeros(count, side, side, dtype=torch.bool),
        "text_ids": torch.randint(4, 100, (count, length)),
        "text_mask": torch.ones(count, length, dtype=torch.int64),
        "target_boxes": [torch.tensor([[x, y, w, h]] * load.phrases)] * count,
        "target_mask": middle(count, side).bool(),
        "resized": [(side, side)] * count,
        "offset": [(0, 0)] * count,
    }
    return batch | _phrases_of(load, length) if several else batch


def _phrases_of(load: Workload, length: int) -> dict[str, object]:
    """Phrases of four words each, anywhere in texts of `length` tokens."""
    places = load.images, load.phrases
    start = torch.randint(1, length - 5, places)
    return {
        "phrase_text_ids": torch.randint(4, 100, (*places, 6)),
        "phrase_text_mask": torch.ones(*places, 6, dtype=torch.int64),
        "phrase_start": start,
        "phrase_stop": start + 4,
        "phrase_valid": torch.ones(places, dtype=torch.bool),
    }


def _image_text_batch(config: RunConfig, load: Workload) -> dict[str, object]:
    side, texts = config.model.image_size, load.expressions
    vocabulary = config.model.text.vocab_size
    ids, mask = torch.randint(vocabulary, (texts, WORDS)), torch.ones(texts, WORDS).long()
    batch: dict[str, object] = {
        "image": torch.randn(load.images, 3, side, side), "text_ids": ids, "text_mask": mask
    }  # fmt: skip
    if not load.training:
        return batch | {"phrase_image": torch.arange(load.images).repeat_interleave(load.phrases)}
    return batch | {
        "paraphrase_index": torch.arange(texts),
        "paraphrase_ids": ids.flip(1),
        "paraphrase_mask": mask,
        "region_index": torch.arange(texts),
        "region_mask": middle(texts, config.data.mask_size),
    }


def middle(size: int, side: int) -> Tensor:
    """(size, side, side) float32: 1 in a rectangle about the middle."""
    mask = torch.zeros(size, side, side)
    mask[:, side // 4 : side // 2, side // 3 : side // 2] = 1
    return mask

"""What a configuration of a box and mask system may say (`train.py`, `test.py`).

The network's part is the system's own (`models/reftr/config.py`); data, optimiser, schedule and
evaluation are the same for all. Sizes in pixels, rates per optimiser step, paths relative to the
working directory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from groundwork.models.alvg.config import AlvgModelConfig
from groundwork.models.common.checks import require, require_positive
from groundwork.models.refclip.config import RefclipModelConfig
from groundwork.models.reftr.config import ReftrModelConfig
from groundwork.models.simrec.config import SimrecModelConfig
from groundwork.settings.parsing import from_mapping, join
from groundwork.settings.schema import Opener, OptimizerConfig
from groundwork.settings.selection import SelectionConfig

ModelConfig = ReftrModelConfig | RefclipModelConfig | SimrecModelConfig | AlvgModelConfig
MODELS: dict[str, type] = {
    "reftr": ReftrModelConfig,
    "refclip": RefclipModelConfig,
    "simrec": SimrecModelConfig,
    "alvg": AlvgModelConfig,
}
"""System -> the class of its `model` section."""

BENCHMARKS = (
    "refcoco", "refcoco+", "refcocog_umd", "refcocog_google", "refclef", "flickr30k",
    "grefcoco", "mixed",
)  # fmt: skip
"""Names in the `benchmark` column of results.json; `embedded/NAME` is its embedded twin."""


System = Literal["reftr", "refclip", "simrec", "alvg"]
Format = Literal["tuples", "refer", "simrec", "instances", "flickr30k", "vg", "labels"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferringDataConfig:
    """Training and evaluation data.

    format: reader of the annotation files: "tuples" (lists of ReSC, TransVG, RefTR; their folder
        says which), "refer" (`refs(x).p` with instances.json beside it), "simrec" (anns/x.json),
        "instances" (instances.json of SeqTR, SimVG, ALVG), "flickr30k" (info-ground's folder),
        "vg" (image, caption, bbox), "labels" (of pseudo_label.py).
    train, evaluate: split -> annotation files; all of `train` is trained on.
    labels: file of pseudo_label.py that is trained on in place of `train`, whose files are then not
        opened: no annotated box of the training split is read.
    image_root, mask_root: folders that paths of images and `.npy` masks are relative to.
    collections: of the training images of mixed lists; empty: all. The others are left out.
    image_roots: folders of the images of one collection, for mixed lists: coco, vg, saiapr,
        flickr.
    evaluate_image_root: that of the images of `evaluate`; null: image_root.
    multi_phrase: a sample is a sentence with all its phrases, not one expression.
    one_per_object: a training sample is an object with one of its sentences, drawn anew in every
        epoch (RefCLIP, SimREC), not every sentence. Of pseudo-labels it is every sentence all the
        same: each has a box of its own.
    one_per_record: the same with an entry of the annotation file in the object's place (SimVG,
        ALVG): an object, in gRefCOCO's converted file all sentences of an image. Of an entry of an
        evaluation one sentence is drawn, too, always the same.
    sampling: order of an epoch and its share of each process, a rule of `dataset.sampler`, or
        "orientation": batches of images wider than high, or of others, by the sizes that the
        annotation states; either is filled up with repeats to whole batches (SimVG, ALVG).
    max_tokens: one expression is cut to this many tokens, special ones included; a longer sentence
        of several phrases is an error.
    max_phrase_tokens, max_phrases: each phrase is cut to so many tokens; a sentence of more phrases
        becomes several samples.
    integer_boxes: boxes are cut towards zero to integers, as RefTR's released code does: corners,
        or in lists of x, y, width and height (of format "tuples") these before they are added.
    last_pixel_boxes: true boxes are clipped to [0, W - 1] x [0, H - 1], in training and evaluation,
        as SimVG's and ALVG's released code does.
    stated_sizes: an image of another size than its record states is an error; false: the image
        counts, as in SimVG and ALVG.
    merged_boxes: the lists hold one box around all boxes of a phrase (ReSC's Flickr30k); the
        results are named so.
    resize: "aspect" keeps it, within image_size (shorter side) and max_image_size (longer side);
        "square" stretches to image_size; "letterbox" keeps it, in the middle of a grey square of
        image_size.
    resampling: whose rules resize images (bilinear) and masks (nearest pixel): "torchvision",
        which smooths before it shrinks (RefTR), or "opencv" (SimVG, ALVG; letterbox always).
    normalize: "imagenet" subtracts its mean and divides by its deviation, "unit" leaves [0, 1].
    jitter: training images are made brighter or darker.
    scale_jitter: they are seen from nearer or farther (SimVG's large-scale jitter; needs boxes).
    fixed_length: pad texts to their limits, as released, not to the longest of the batch; outputs
        do not depend on it.
    workers: loading processes per process; 0 loads in the process itself.
    text_encoder: tokeniser: name on the hub, or a folder with vocab.txt, or that file; or "words":
        whole words of the annotation files (all of `train` and `evaluate`, and of format "simrec"
        all splits of the files, as released), which are kept in the checkpoints; or a words.txt.
        ALVG: a SentencePiece model such as beit3.spm, or "pieces": a small one trained on the
        training files, kept likewise.
    cache_dir: folder for the memory-mapped record tables; None = in memory, read anew by each run.
    allow_outside_paths: whether an annotation file may name images that are not below image_root.
    tolerate_corrupt: images that cannot be decoded are replaced (training) or left out
        (evaluation), and counted.
    opener: how images are opened, one of `dataset.images.OPENERS`; "opencv" is the released rule.
    strict: stop at the first record that cannot be used as annotated; otherwise it is used as the
        release uses it, and counted in the log.
    """

    format: Format = "tuples"
    train: dict[str, tuple[str, ...]] = field(default_factory=dict)
    evaluate: dict[str, tuple[str, ...]] = field(default_factory=dict)
    labels: str | None = None
    image_root: str = ""
    mask_root: str | None = None
    image_roots: dict[str, str] = field(default_factory=dict)
    collections: tuple[str, ...] = ()
    evaluate_image_root: str | None = None
    multi_phrase: bool = False
    one_per_object: bool = False
    one_per_record: bool = False
    sampling: Literal["global", "interleaved", "blocks", "orientation"] = "global"
    max_tokens: int = 40
    max_phrase_tokens: int = 22
    max_phrases: int = 16
    integer_boxes: bool = False
    last_pixel_boxes: bool = False
    stated_sizes: bool = True
    merged_boxes: bool = False
    resize: Literal["aspect", "square", "letterbox"] = "aspect"
    resampling: Literal["torchvision", "opencv"] = "torchvision"
    normalize: Literal["imagenet", "unit"] = "imagenet"
    image_size: int = 640
    max_image_size: int = 640
    jitter: bool = True
    scale_jitter: bool = False
    fixed_length: bool = False
    workers: int = 4
    text_encoder: str = "bert-base-uncased"
    cache_dir: str | None = None
    allow_outside_paths: bool = False
    tolerate_corrupt: bool = False
    opener: Opener = "shown"
    strict: bool = False

    def __post_init__(self) -> None:
        require_positive(self, "image_size", "max_image_size", "max_phrases")
        for name in ("max_tokens", "max_phrase_tokens"):
            value = getattr(self, name)
            require(value >= 3, f"{name} is {value}; it must leave room for [CLS], a token, [SEP]")
        require(
            not (self.multi_phrase and (self.one_per_object or self.one_per_record)),
            "data.multi_phrase and data.one_per_object: a sample has one sentence of its object; "
            "set one of them to false",
        )
        require(self.workers >= 0, f"workers is {self.workers}; use 0 to load in the main process")
        for name in ("train", "evaluate"):
            for split, files in getattr(self, name).items():
                require(bool(files), f"data.{name}.{split} names no file")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferringOptimizerConfig(OptimizerConfig):
    """AdamW with rates of its own for parts of a model.

    rates: other peak rates for the parameters whose name contains a key, the first key that fits
        ("lang_backbone": 1e-5); they stay where they are when `lr` is changed. At 0 those
        parameters stay as they are.
    factors: the same as multiples of `lr`, which move with it ("mask_head": 10); after `rates`.
    weight_decay: on all parameters, biases and norms included (the released rule); 0 makes it Adam.
    amsgrad: its variant with the largest second moment (ALVG).
    """

    lr: float = 1e-4
    weight_decay: float = 1e-4
    rates: dict[str, float] = field(default_factory=dict)
    factors: dict[str, float] = field(default_factory=dict)
    amsgrad: bool = False

    def __post_init__(self) -> None:
        # `super()` without arguments does not find the class that slots=True makes anew.
        OptimizerConfig.__post_init__(self)
        for name, rate in self.rates.items():
            require(rate >= 0, f"rates.{name} is {rate}; it must not be negative")
        for name, factor in self.factors.items():
            require(factor > 0, f"factors.{name} is {factor}; it must be greater than 0")
        both = ", ".join(sorted(self.rates.keys() & self.factors.keys()))
        require(not both, f"rates and factors both name {both}; a part has one or the other")

    @property
    def peaks(self) -> dict[str, float]:
        """The peak rates of the parts of a model that have their own, in the order of groups."""
        return self.rates | {name: factor * self.lr for name, factor in self.factors.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferringScheduleConfig:
    """The learning rate, changed with every optimiser step (`scheduler.stepwise_rate`).

    name: "step" (a tenth after every drop_epochs[0] epochs), "multistep" (a tenth at each of
        drop_epochs), "cosine", or "cosine_rates" (RefCLIP, SimREC: from warmup_lr to the peak, then
        along a cosine to min_lr), or "epochs" (ALVG: changes between epochs only; a tenth from the
        epoch before each of drop_epochs on).
    warmup_epochs: length of the linear warm-up of all but "step", in epochs; may be a fraction.
    drop_epochs: see name.
    floor: of the factor on the peak, also in the warm-up ("multistep", "cosine").
    warmup_lr, min_lr: first and last rate ("cosine_rates").
    """

    name: Literal["step", "multistep", "cosine", "cosine_rates", "epochs"] = "step"
    warmup_epochs: float = 0.0
    drop_epochs: tuple[float, ...] = ()
    floor: float = 0.01
    warmup_lr: float = 1e-7
    min_lr: float = 1e-6

    def __post_init__(self) -> None:
        require(self.warmup_epochs >= 0, "warmup_epochs must not be negative")
        require(min(self.warmup_lr, self.min_lr) >= 0, "warmup_lr, min_lr must not be negative")
        require(0 <= self.floor <= 1, f"floor is {self.floor}; it must lie in [0, 1]")
        require(
            self.name.startswith("cosine") == (not self.drop_epochs),
            f"schedule {self.name} with drop_epochs {list(self.drop_epochs)}: step needs one, "
            "multistep at least one, cosine none",
        )
        require(
            self.name != "step" or (len(self.drop_epochs) == 1 and not self.warmup_epochs),
            "schedule step takes one drop_epochs and no warm-up; use multistep",
        )
        require(all(epoch > 0 for epoch in self.drop_epochs), "drop_epochs must be positive")


@dataclass(frozen=True, kw_only=True, slots=True)
class CurriculumConfig:
    """Some epochs on other data before those of data.train, such as images of a single object.

    train: as data.train. epochs: how many; they come on top of the run's.
    steps: at most this many optimiser steps per epoch; None = all of this data.
    format, image_root: of these files; None = those of data.
    """

    train: dict[str, tuple[str, ...]]
    epochs: int
    steps: int | None = None
    format: Format | None = None
    image_root: str | None = None

    def __post_init__(self) -> None:
        require_positive(self, "epochs", "steps")
        require(bool(self.train), "curriculum: train names no split")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """How a run is carried out, whatever it trains.

    epochs: on data.train. steps: at most this many optimiser steps per epoch; None = all data.
    batch_size: samples per process and forward; eval_batch_size: None = the same.
    accumulate: forwards per optimiser step. clip_norm: largest gradient norm; None = no clipping.
    ema: cap of the decay of a running mean of the weights, which is what is evaluated and saved
        (RefCLIP and SimREC 0.9997); None = none.
    precision: of the forward pass (weights stay fp32).
    seed: of everything random; rank r uses seed + r.
    log_every: steps between log lines.
    save_every_steps: steps between extra checkpoints; None = at epoch ends only.
    keep: epoch checkpoints that stay on disk, the newest ones; None = all.
    """

    optimizer: ReferringOptimizerConfig = field(default_factory=ReferringOptimizerConfig)
    schedule: ReferringScheduleConfig
    epochs: int
    steps: int | None = None
    batch_size: int = 8
    eval_batch_size: int | None = None
    accumulate: int = 1
    clip_norm: float | None = 0.1
    ema: float | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: int = 42
    log_every: int = 50
    save_every_steps: int | None = None
    keep: int | None = None

    def __post_init__(self) -> None:
        require_positive(self, "epochs", "steps", "batch_size", "eval_batch_size", "accumulate")
        require_positive(self, "clip_norm", "log_every", "save_every_steps", "keep")
        require(self.ema is None or 0 <= self.ema < 1, f"ema is {self.ema}; it must be in [0, 1)")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferringConfig(RunConfig):
    """One run of a box and mask system.

    system: whose `model` it is. benchmark: one of BENCHMARKS, or embedded/NAME.
    select: how the best checkpoints are chosen; null: no evaluation while training.
    inclusive_thresholds: beside the metrics of all systems there are those of ALVG's protocol, in
        which an IoU of exactly the threshold counts: "Acc@0.5 (>=)", "Prec@0.5 (resized, >=)".
    curriculum: what is trained first, in this order.
    """

    system: System = "reftr"
    benchmark: str
    data: ReferringDataConfig
    model: ModelConfig = field(default_factory=ReftrModelConfig)
    select: SelectionConfig | None = None
    inclusive_thresholds: bool = False
    curriculum: tuple[CurriculumConfig, ...] = ()

    def __post_init__(self) -> None:
        RunConfig.__post_init__(self)
        require(
            self.benchmark.removeprefix("embedded/") in BENCHMARKS,
            f"benchmark {self.benchmark!r} does not exist; legal: {', '.join(BENCHMARKS)}, and the "
            "same with embedded/ before it",
        )
        require(
            not (self.model.masks and self.data.multi_phrase),
            "model.masks and data.multi_phrase: masks are learnt from one expression per image; "
            "set one of them to false",
        )
        require(
            isinstance(self.model, MODELS[self.system]),
            f"model is that of another system than {self.system}",
        )
        annotated = [s for s in self.curriculum if (s.format or self.data.format) != "labels"]
        require(
            self.data.labels is None or not annotated,
            "data.labels and curriculum: its files hold annotated boxes; give pseudo-labels of "
            "them with format: labels, or set curriculum: []",
        )
        limit = self.model.max_text_tokens
        require(
            limit is None or self.data.max_tokens <= limit,
            f"data.max_tokens {self.data.max_tokens} exceeds model.max_text_tokens {limit}",
        )
        self._check_selection()

    @property
    def several_targets(self) -> bool:
        """Expressions may have any number of targets, or none."""
        return getattr(self.model, "several_targets", False)

    @property
    def total_epochs(self) -> int:
        """Epochs of the curriculum and of data.train, over which the schedule runs."""
        return self.epochs + sum(stage.epochs for stage in self.curriculum)

    @property
    def stages(self) -> "tuple[ReferringConfig, ...]":
        """The configuration as it would be with the data of each stage alone, in their order: the
        curriculum, then data.train or the pseudo-labels in its place."""
        last = self
        if self.data.labels is not None:
            train: dict[str, tuple[str, ...]] = {"train": (self.data.labels,)}
            last = replace(self, data=replace(self.data, train=train, format="labels", labels=None))
        return (*map(self.of_stage, self.curriculum), last)

    def of_stage(self, stage: CurriculumConfig) -> "ReferringConfig":
        """The configuration as it would be with a stage's data alone."""
        data = replace(
            self.data,
            train=stage.train,
            labels=None,
            format=stage.format or self.data.format,
            image_root=self.data.image_root if stage.image_root is None else stage.image_root,
        )
        return replace(
            self, data=data, epochs=stage.epochs, steps=stage.steps, curriculum=(), select=None
        )

    def _check_selection(self) -> None:
        if self.select is None:
            return
        for split in self.select.splits:
            self._check_held_out(split)

    def _check_held_out(self, split: str) -> None:
        require(
            split in self.data.evaluate,
            f"select.splits: {split!r} is not in data.evaluate ({', '.join(self.data.evaluate)}); "
            "name its annotation files there, or set select: null",
        )
        parts = (self.data.train, *(stage.train for stage in self.curriculum))
        trained = {file for part in parts for files in part.values() for file in files}
        shared = self.data.format == "tuples" and trained & set(self.data.evaluate[split])
        require(
            not shared and not any(split in part for part in parts),
            f"select.splits: {split!r} is trained on, so it cannot choose a checkpoint; hold it "
            "out, or set select: null",
        )


def with_model(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The keys of a configuration with its `model` section read as that of its system.

    Raises:
        ValueError: anything in the section that is wrong.
    """
    model = MODELS.get(raw.get("system", "reftr"))
    if model is None:  # the error about the system itself comes from reading the rest
        return dict(raw)
    section = raw.get("model")
    return {**raw, "model": from_mapping(model, section or {}, join(where, "model"))}

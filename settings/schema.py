"""What a configuration may say: frozen dataclasses that check themselves.

The YAML files in this folder hold exactly these keys. `settings.load_config` reads them; the flat
files of the released AMC and SelfEQ repositories are translated first (`settings/released.py`).
Sizes in pixels, rates in [0, 1], learning rates per optimiser step, paths relative to the working
directory.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

from groundwork.benchmarks import BENCHMARKS
from groundwork.models.albef.config import (
    OBJECTIVES,
    AmcConfig,
    ItcItmMlmConfig,
    ModelConfig,
    ObjectivesConfig,
    SelfEqConfig,
    TextConfig,
)
from groundwork.models.common.checks import require, require_a_weight, require_positive

__all__ = [
    "OBJECTIVES",
    "AmcConfig",
    "DataConfig",
    "EvalDataConfig",
    "ExplanationConfig",
    "GroundingConfig",
    "ItcItmMlmConfig",
    "ModelConfig",
    "ObjectivesConfig",
    "OptimizerConfig",
    "PretrainConfig",
    "ScheduleConfig",
    "SelfEqConfig",
    "StageConfig",
    "TextConfig",
]


Opener = Literal["shown", "pillow", "opencv"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Training data.

    train_file: annotation files of the stages with `data: train`; several are joined.
    relation_file: annotation files with paraphrases (`relation`), for the stages with
        `data: relation`.
    image_root: folder that image paths are relative to ("" = the working directory).
    allow_outside_paths: whether an annotation file may name images that are not below image_root.
    format: "vg" (captions with boxes) or "coco" (phrases without boxes).
    max_words: a cleaned caption is cut to this many words.
    max_tokens: then to this many tokens, [CLS] included.
    mask_size: side of the square region masks, in mask pixels.
    workers: loading processes per training process; 0 loads in the training process.
    flip_swaps_words: a mirrored image also swaps "left" and "right" in its text (released: false).
    crop: "whole" (AMC, SelfEQ): resized, flipped, grey, colours jittered; "random" (ALBEF's
        own pre-training): a random part, flipped, RandAugment.
    augment: all of that (a stage may say otherwise); false only resizes.
    colour_jitter: false leaves the colours of whole images as they are: only flips.
    jitter_rule: whole images: "torchvision", or "released", which adds to the saturation.
    randaugment_rule: random parts: "mended", or "released": AutoContrast and Sharpness wrap.
    paraphrase_rule: "whole_words": a synonym replaces whole words, and where it cannot there is no
        paraphrase; "released": it replaces text, and there always is one.
    all_boxes: the region of a phrase is all of its boxes; false (released, whose lists have one box
        each) draws one.
    tolerate_corrupt: images that cannot be decoded are replaced by another, and counted in the log.
    opener: how images are opened, one of `dataset.images.OPENERS`; "pillow" is the released rule.
    strict: stop at the first record that cannot be used as annotated; otherwise it is used as the
        release uses it, and counted in the log.
    sampling: order of an epoch and its share of each process: "global" (the same global batches
        however many processes share them), or a released rule of `dataset.sampler`.
    text_encoder: tokeniser: name on the hub, or a folder with vocab.txt, or that file.
    cache_dir: folder for the memory-mapped record tables; None = in memory, read anew by each run.
    """

    train_file: tuple[str, ...] = ()
    relation_file: tuple[str, ...] = ()
    image_root: str = ""
    allow_outside_paths: bool = False
    format: Literal["vg", "coco"] = "vg"
    max_words: int = 50
    max_tokens: int = 25
    mask_size: int = 256
    workers: int = 4
    flip_swaps_words: bool = True
    crop: Literal["whole", "random"] = "whole"
    augment: bool = True
    colour_jitter: bool = True
    jitter_rule: Literal["released", "torchvision"] = "torchvision"
    randaugment_rule: Literal["released", "mended"] = "mended"
    paraphrase_rule: Literal["released", "whole_words"] = "whole_words"
    all_boxes: bool = False
    tolerate_corrupt: bool = False
    opener: Opener = "shown"
    strict: bool = False
    sampling: Literal["global", "interleaved", "blocks"] = "global"
    text_encoder: str = "bert-base-uncased"
    cache_dir: str | None = None

    def __post_init__(self) -> None:
        require_positive(self, "max_words", "mask_size")
        require(self.max_tokens >= 2, "max_tokens must leave room for [CLS] and a token")
        require(self.workers >= 0, f"workers is {self.workers}; use 0 to load in the main process")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW.

    name: the only legal one, so that a file that asks for another is refused.
    lr: peak learning rate. weight_decay: on weight matrices only, not on biases and 1-d weights.
    betas, eps: as in the paper of Adam.
    """

    name: Literal["adamw"] = "adamw"
    lr: float = 1e-5
    weight_decay: float = 0.02
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        require_positive(self, "lr", "eps")
        require(
            self.weight_decay >= 0, f"weight_decay is {self.weight_decay}; it must not be negative"
        )
        require(all(0 <= b < 1 for b in self.betas), f"betas {self.betas} must lie in [0, 1)")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """Learning rate over time (see `scheduler.learning_rate`).

    name: "cosine_epochs" changes per epoch (the released rule); "cosine_steps" with every step.
    min_lr, warmup_lr: last and first learning rate.
    warmup_epochs, step_size: cosine_epochs: epoch 0 warms up for warmup_epochs * step_size
        iterations.
    warmup_steps: cosine_steps: length of the linear warm-up in optimiser steps.
    epochs: length of the cosine in epochs; None = those of the run, or of the stage it belongs to.
    """

    name: Literal["cosine_epochs", "cosine_steps"] = "cosine_epochs"
    min_lr: float = 1e-6
    warmup_lr: float = 1e-6
    warmup_epochs: int = 20
    warmup_steps: int = 0
    step_size: int = 100
    epochs: int | None = None

    def __post_init__(self) -> None:
        require_positive(self, "step_size", "epochs")
        for name in ("min_lr", "warmup_lr", "warmup_epochs", "warmup_steps"):
            value = getattr(self, name)
            require(value >= 0, f"{name} is {value}; it must not be negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class StageConfig:
    """Some epochs of the run with the same objectives.

    objective: one or several of OBJECTIVES. epochs: how many epochs.
    data: which files: "train" or "relation"; None = relation if selfeq is trained, else train.
    augment: overrides data.augment; None keeps it.
    optimizer, schedule: a second optimiser of this stage with its schedule; None = the run's.
    steps: at most this many optimiser steps per epoch; None = all data.
    train_file: overrides the annotation files of this stage; None keeps them.
    """

    objective: tuple[str, ...]
    epochs: int
    data: Literal["train", "relation"] | None = None
    augment: bool | None = None
    optimizer: OptimizerConfig | None = None
    schedule: ScheduleConfig | None = None
    steps: int | None = None
    train_file: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        legal = ", ".join(OBJECTIVES)
        require(bool(self.objective), f"objective is empty; name one or several of {legal}")
        for name in self.objective:
            require(name in OBJECTIVES, f"objective {name!r} does not exist; legal: {legal}")
        require(len(set(self.objective)) == len(self.objective), "objective names one twice")
        require_positive(self, "epochs", "steps")
        with_paraphrases = "selfeq" in self.objective
        if self.data is None:
            object.__setattr__(self, "data", "relation" if with_paraphrases else "train")
        require(
            self.data == "relation" or not with_paraphrases,
            "selfeq needs paraphrases, which only relation files hold; set data: relation",
        )

    @property
    def uses_regions(self) -> bool:
        """Whether any objective looks at boxes."""
        return "amc" in self.objective


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainConfig:
    """One training run of ALBEF.

    stages: what is trained, in this order. batch_size: samples per process and forward.
    accumulate: forwards per optimiser step. clip_norm: largest gradient norm; None = no clipping.
    precision: of the forward pass (weights stay fp32).
    ema: cap of the decay of a running mean of the weights, which is then what is saved; None: the
        weights themselves are.
    seed: of everything random; rank r uses seed + r.
    log_every: steps between log lines.
    save_every_steps: steps between extra checkpoints; None = at epoch ends only.
    keep: epoch checkpoints that stay on disk, the newest ones; None = all.
    released_files: SelfEQ's epochs are called checkpoint_relation_NN.pth and name their optimiser
        as the released code does; log.txt has its line per epoch, steps.txt our own lines.
    """

    data: DataConfig
    stages: tuple[StageConfig, ...]
    model: ModelConfig = field(default_factory=ModelConfig)
    objectives: ObjectivesConfig = field(default_factory=ObjectivesConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    batch_size: int = 64
    accumulate: int = 1
    clip_norm: float | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    ema: float | None = None
    seed: int = 42
    log_every: int = 50
    save_every_steps: int | None = None
    keep: int | None = None
    released_files: bool = False

    def __post_init__(self) -> None:
        require_positive(self, "batch_size", "accumulate", "clip_norm", "log_every")
        require(self.ema is None or 0 <= self.ema < 1, f"ema is {self.ema}; it must be in [0, 1)")
        require_positive(self, "save_every_steps", "keep")
        require(bool(self.stages), "stages is empty; add one such as {objective: amc, epochs: 30}")
        for index, stage in enumerate(self.stages):
            self._check_stage(f"stages.{index}", stage)
        positions = self.model.text.max_position_embeddings
        require(
            self.data.max_tokens <= positions,
            f"data.max_tokens {self.data.max_tokens} exceeds model.text.max_position_embeddings "
            f"{positions}",
        )
        self._fill_schedule_lengths()

    @property
    def epochs(self) -> int:
        """Epochs of all stages together."""
        return sum(stage.epochs for stage in self.stages)

    def _check_stage(self, where: str, stage: StageConfig) -> None:
        files = {"train": self.data.train_file, "relation": self.data.relation_file}
        require(
            bool(stage.train_file or files[str(stage.data)]),
            f"{where} trains {' + '.join(stage.objective)} on {stage.data} data, but "
            f"data.{stage.data}_file is empty; name the annotation files there",
        )
        require(
            not stage.uses_regions or self.data.format != "coco",
            f"{where}: amc needs boxes, and files of data.format coco have none; use selfeq, or "
            "data.format: vg",
        )
        require(
            not stage.uses_regions or self.data.crop == "whole",
            f"{where}: amc needs boxes, which a random part of an image loses; set "
            "data.crop: whole",
        )
        for name in stage.objective:
            require_a_weight(self.objectives.weights_of(name), f"{where}: {name}")

    def _fill_schedule_lengths(self) -> None:
        def fill(schedule: ScheduleConfig, epochs: int) -> ScheduleConfig:
            return schedule if schedule.epochs else replace(schedule, epochs=epochs)

        stages = tuple(
            replace(stage, schedule=fill(stage.schedule, stage.epochs)) if stage.schedule else stage
            for stage in self.stages
        )
        object.__setattr__(self, "schedule", fill(self.schedule, self.epochs))
        object.__setattr__(self, "stages", stages)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalDataConfig:
    """Evaluation data; which keys are needed depends on the reader of the benchmark.

    test_file: RefCOCO+, RefCLEF: lists of image, text and ref_id. Flickr30k: not read,
        its files follow from flickr_data and the splits.
    refcoco_data: RefCOCO+, RefCLEF: REFER root, such that refcoco+/refs(unc).p lies below it.
    split_by: RefCOCO+, RefCLEF: which of REFER's refs(SPLIT_BY).p the lists' references are of.
    det_file: RefCOCO+: proposals per image; None leaves the proposal metric out.
    flickr_data: Flickr30k: folder with {split}.txt, bounding_boxes_{split}.json and
        sentences_{split}.json.
    flickr_lists: Flickr30k: folder with {split}.txt; None = flickr_data.
    image_root, allow_outside_paths, opener, strict, text_encoder, workers: as in training.
    splits: which splits; empty = all that the benchmark reports.
    max_words: phrases are cut to this many words; None = the benchmark's rule.
    tolerate_corrupt: leave images out that cannot be decoded, and say so in the log and the note.
    """

    test_file: tuple[str, ...] = ()
    refcoco_data: str | None = None
    split_by: Literal["unc", "berkeley"] = "unc"
    det_file: str | None = None
    flickr_data: str | None = None
    flickr_lists: str | None = None
    image_root: str = ""
    allow_outside_paths: bool = False
    splits: tuple[str, ...] = ()
    max_words: int | None = None
    text_encoder: str = "bert-base-uncased"
    workers: int = 4
    tolerate_corrupt: bool = False
    opener: Opener = "shown"
    strict: bool = False

    def __post_init__(self) -> None:
        require_positive(self, "max_words")
        require(self.workers >= 0, f"workers is {self.workers}; use 0 to load in the main process")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplanationConfig:
    """Which heat map is evaluated.

    mode: "itm" explains the match logit by cross-attention, "itc" the similarity by vision
        self-attention.
    block: text layer (itm) or vision block (itc), counted from 0; None = model.explanation_layer.
    """

    mode: Literal["itm", "itc"] = "itm"
    block: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundingModelConfig(ModelConfig):
    """The model at the size of images that is evaluated, not trained."""

    image_size: int = 384


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundingConfig:
    """One evaluation by heat maps.

    benchmark: a row of benchmarks.py. batch_size: images per forward, each with all its
        phrases.
    seed: of the bootstrap intervals and of the choice of images in the report.
    """

    benchmark: str
    data: EvalDataConfig
    model: GroundingModelConfig = field(default_factory=GroundingModelConfig)
    explanation: ExplanationConfig = field(default_factory=ExplanationConfig)
    batch_size: int = 32
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: int = 42

    def __post_init__(self) -> None:
        require_positive(self, "batch_size")
        self._check_benchmark()
        block, mode = self.explanation.block, self.explanation.mode
        if block is None:
            return
        text = self.model.text
        legal = (
            range(text.fusion_layer, text.num_hidden_layers)
            if mode == "itm"
            else range(self.model.vision_depth)
        )
        require(
            block in legal,
            f"explanation.block {block} does not exist for {mode} maps; choose "
            f"{legal.start}..{legal.stop - 1}",
        )

    def _check_benchmark(self) -> None:
        require(
            self.benchmark in BENCHMARKS,
            f"benchmark {self.benchmark!r} does not exist; legal: {', '.join(BENCHMARKS)}",
        )
        row = BENCHMARKS[self.benchmark]
        for key in row.needs:
            given = bool(getattr(self.data, key))
            require(given, f"benchmark {self.benchmark} needs data.{key}, which is empty")
        for split in self.data.splits:
            legal = ", ".join(row.splits)
            message = f"data.splits: {self.benchmark} has no split {split!r}; legal: {legal}"
            require(split in row.splits, message)

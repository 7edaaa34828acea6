"""A run: what is trained on what, how it is carried out, how its best checkpoint is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from groundwork.benchmarks import BENCHMARKS
from groundwork.models.common.checks import require, require_a_weight
from groundwork.models.common.system import (
    ImageTextSettings,
    ModelSettings,
    ObjectiveSettings,
)
from groundwork.settings.data import (
    Files,
    ImageTextDataConfig,
    ReferringDataConfig,
)
from groundwork.settings.selection import SelectionConfig
from groundwork.settings.training import StageConfig, TrainingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig(TrainingConfig):
    """A run of any system, and its evaluation.

    system: a key of `models.SYSTEMS`, whose `model` section it is.
    benchmark: what is evaluated on, a key of `benchmarks.BENCHMARKS`; None: nothing is.
    select: how the best checkpoints are chosen; null: no evaluation while training.
    released_files: SelfEQ's epochs are called checkpoint_relation_NN.pth and name their optimiser
        as the released code does; log.txt has its line per epoch, steps.txt our own lines.
    inclusive_thresholds: beside the metrics of all systems there are those of ALVG's protocol, in
        which an IoU of exactly the threshold counts: "Acc@0.5 (>=)", "Prec@0.5 (resized, >=)".
    heatmaps: what makes the maps of an evaluation: the "system", or "perturbation" by superpixels,
        which any system can be asked by.
    """

    system: str
    benchmark: str | None = None
    data: ImageTextDataConfig | ReferringDataConfig
    model: ModelSettings
    select: SelectionConfig | None = None
    released_files: bool = False
    inclusive_thresholds: bool = False
    heatmaps: Literal["system", "perturbation"] = "system"

    def __post_init__(self) -> None:
        TrainingConfig.__post_init__(self)
        require(
            self.benchmark is None or self.benchmark in BENCHMARKS,
            f"benchmark {self.benchmark!r} does not exist; legal: {', '.join(BENCHMARKS)}",
        )
        limit = self.model.max_text_tokens
        require(
            not self.stages or limit is None or self.data.max_tokens <= limit,
            f"data.max_tokens {self.data.max_tokens} exceeds the model's {limit} text positions",
        )
        self._check_data()
        for index, stage in enumerate(self.stages):
            self._check_stage(f"stages.{index}", stage)
        for split in self.select.splits if self.select else ():
            self._check_held_out(split)

    @property
    def note(self) -> str:
        """What rows of results say about the maps, and how the model was asked for them."""
        return "perturbation map" if self.heatmaps == "perturbation" else self.model.note

    @property
    def evaluated_splits(self) -> tuple[str, ...]:
        """What an evaluation reports: the splits of data.evaluate, or the benchmark's."""
        if self.data.evaluate or not isinstance(self.data, ImageTextDataConfig):
            return tuple(self.data.evaluate)
        reported = BENCHMARKS[self.benchmark].splits if self.benchmark else ()
        return self.data.splits or reported

    @property
    def of_stages(self) -> tuple[RunConfig, ...]:
        """The run as it would be with each stage alone, in their order: `data.train` holds its
        files, or the pseudo-labels in their place."""
        return tuple(map(self._of_stage, map(self._labelled, self.stages)))

    def learns_from(self, stage: StageConfig) -> frozenset[str]:
        """What the samples of a stage must have for its objectives: "boxes", "paraphrases"."""
        if isinstance(self.model, ImageTextSettings):
            kinds = (self.model.objectives[name].learns_from for name in stage.objective)
            return frozenset().union(*kinds)
        return frozenset({"boxes"} if self.model.needs_boxes else ())

    def _reads_labels(self, stage: StageConfig) -> bool:
        """Do pseudo-labels take the place of what a stage reads? Of the last one's, and of boxes
        and masks wherever a stage has no files of its own."""
        own = stage.train is not None or bool(stage.splits)
        boxes = isinstance(self.data, ReferringDataConfig)
        return stage is self.stages[-1] or (boxes and not own)

    def _labelled(self, stage: StageConfig) -> StageConfig:
        if self.data.labels is None or not self._reads_labels(stage):
            return stage
        train: dict[str, Files] = {"train": (self.data.labels,)}
        return replace(stage, train=train, splits=(), format="labels")

    def _files(self, stage: StageConfig) -> dict[str, Files]:
        if stage.train is not None:
            return stage.train
        if not stage.splits:
            if not isinstance(self.data, ImageTextDataConfig):
                return self.data.train
            return self.data.splits_for(self.learns_from(stage))
        known = self.data.train
        for split in stage.splits:
            legal = ", ".join(known)
            require(split in known, f"splits: data.train has no {split!r}; legal: {legal}")
        return {split: known[split] for split in stage.splits}

    def _of_stage(self, stage: StageConfig) -> RunConfig:
        data = replace(
            self.data,
            train=self._files(stage),
            labels=None,
            format=stage.format or self.data.format,
            image_root=self.data.image_root if stage.image_root is None else stage.image_root,
            evaluate_image_root=self.data.evaluation_images,
        )
        if isinstance(data, ReferringDataConfig) and stage.sentences_at_once is not None:
            data = replace(data, sentences_at_once=stage.sentences_at_once)
        # Its data are those that it is left with, whatever its objectives learn from.
        alone = replace(stage, train=data.train, splits=())
        return replace(self, data=data, stages=(alone,), select=None)

    def _check_data(self) -> None:
        data = self.data
        if isinstance(data, ReferringDataConfig):
            wanted = self.model.normalisation
            require(
                wanted in (None, data.normalize),
                f"data.normalize is {data.normalize}; the model's timm_backbone takes images with"
                f" {wanted}",
            )
            self._check_phrases("data", data.joins_phrases)
        elif self.benchmark is not None and not data.evaluate:
            row = BENCHMARKS[self.benchmark]
            for key in row.needs:
                given = bool(getattr(data, key))
                require(given, f"benchmark {row.name} needs data.{key}, which is empty")
            for split in data.splits:
                legal = ", ".join(row.splits)
                message = f"data.splits: {row.name} has no split {split!r}; legal: {legal}"
                require(split in row.splits, message)
        annotated = [
            stage
            for stage in self.stages
            if not self._reads_labels(stage) and (stage.format or data.format) != "labels"
        ]
        require(
            data.labels is None or not annotated,
            "data.labels and earlier stages: their files hold annotated boxes; give pseudo-labels "
            "of them with format: labels, or leave these stages out",
        )

    def _check_phrases(self, where: str, several: bool) -> None:
        what = f"{self.system} with masks" if self.model.masks else self.system
        require(
            self.model.several_phrases or not several,
            f"data.multi_phrase, {where}.sentences_at_once: {what} learns from one expression per"
            " image; set them to false and 1",
        )

    def _check_stage(self, where: str, stage: StageConfig) -> None:
        legal: Mapping[str, ObjectiveSettings] = {}
        if isinstance(self.model, ImageTextSettings):
            legal = self.model.objectives
            require(
                bool(stage.objective),
                f"{where}: objective is empty; name one or several of {', '.join(legal)}",
            )
        for name in stage.objective:
            require(
                name in legal,
                f"{where}: objective {name!r} does not exist; legal: {', '.join(legal) or 'none'}",
            )
            require_a_weight(legal[name].losses(legal), f"{where}: {name}")
        data, what = self.data, " + ".join(stage.objective)
        if not isinstance(data, ImageTextDataConfig):
            if stage.sentences_at_once is not None:
                self._check_phrases(where, data.multi_phrase or stage.sentences_at_once > 1)
            return
        require(
            stage.sentences_at_once is None,
            f"{where}: sentences_at_once is for box and mask systems; leave it out",
        )
        if data.labels is None or stage is not self.stages[-1]:
            self._check_files(where, stage)
        boxes = "boxes" in self.learns_from(stage)
        require(
            not boxes or (stage.format or data.format) != "coco",
            f"{where}: {what} needs boxes, and files of format coco have none; use selfeq, or "
            "data.format: vg",
        )
        require(
            not boxes or data.crop == "whole",
            f"{where}: {what} needs boxes, which a random part of an image loses; set data.crop: "
            "whole",
        )

    def _check_files(self, where: str, stage: StageConfig) -> None:
        try:
            self._files(stage)
        except ValueError as error:
            raise ValueError(f"{where} trains {' + '.join(stage.objective)}: {error}") from None

    def _check_held_out(self, split: str) -> None:
        legal = self.evaluated_splits
        require(
            split in legal,
            f"select.splits: {split!r} is not in data.evaluate ({', '.join(legal)}); "
            "name its annotation files there, or set select: null",
        )
        parts = (self.data.train, *(stage.train or {} for stage in self.stages))
        trained = {file for part in parts for files in part.values() for file in files}
        evaluated = set(self.data.evaluate.get(split, ()))
        shared = self.data.format == "tuples" and trained & evaluated
        require(
            not shared and not any(split in part for part in parts),
            f"select.splits: {split!r} is trained on, so it cannot choose a checkpoint; hold it "
            "out, or set select: null",
        )

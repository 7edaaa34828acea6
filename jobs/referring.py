"""Samples of box and mask systems for the jobs: an expression or a sentence per sample."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from groundwork import utils
from groundwork.dataset.batches import ReferringEvalBatch
from groundwork.dataset.images import ImagePlace
from groundwork.dataset.loader import TrainLoader, split_loader, train_loader
from groundwork.dataset.pseudo_labels import Unlabelled
from groundwork.dataset.record import Record, Records
from groundwork.dataset.referring.collate import ReferringCollate
from groundwork.dataset.referring.dataset import ReferringDataset, ReferringRules
from groundwork.dataset.referring.joined import JoinedSentences
from groundwork.dataset.referring.text import ReferringText
from groundwork.dataset.referring.transforms import ReferringTransform
from groundwork.dataset.sources import read_splits, source_files
from groundwork.geometry import Box, Grounding, iou
from groundwork.jobs.evaluation import below
from groundwork.jobs.samples import Evaluation
from groundwork.jobs.tokenizers import Tokenizer
from groundwork.models import SYSTEMS
from groundwork.report.predictions import Prediction, Run, runs_of
from groundwork.settings.data import ReferringDataConfig
from groundwork.settings.run import RunConfig


class Referring:
    """The form of samples of box and mask systems (`jobs.samples.FormOfSamples`)."""

    def train_loader(self, alone: RunConfig, tokenizer: Tokenizer) -> TrainLoader:
        """The training loader of a stage for this process."""
        text = text_rules(alone, tokenizer, training=True)
        return train_loader(
            build_dataset(alone, text, alone.data.train, training=True),
            collate(alone, text, training=True),
            alone.batch_size,
            world_size=utils.world_size(),
            rank=utils.rank(),
            seed=alone.seed,
            sampling=alone.data.sampling,
            workers=alone.data.workers,
        )

    def evaluation(
        self, config: RunConfig, splits: Sequence[str], tokenizer: Tokenizer
    ) -> Evaluation:
        """Some splits; no sample comes twice, no batch holds two splits."""
        text = text_rules(config, tokenizer)
        files = {split: config.data.evaluate[split] for split in splits}
        return evaluation_of(config, text, build_dataset(config, text, files, training=False))

    def unlabelled(self, config: RunConfig, tokenizer: Tokenizer) -> Evaluation:
        """All of data.train, seen as in an evaluation, so that nothing is jittered or drawn."""
        text = text_rules(config, tokenizer)
        dataset = build_dataset(config, text, config.data.train, training=False, labelled=False)
        return evaluation_of(config, text, dataset)

    def records(
        self, config: RunConfig, splits: Sequence[str]
    ) -> Iterable[tuple[ImagePlace, Record]]:
        """The records of some splits, each with its image file."""
        files = {split: config.data.evaluate[split] for split in splits}
        rules = data_rules(config, training=False)
        for record in read_splits(files, config.data.format, config.data.cache_dir):
            yield rules.path(record), record

    def evaluation_files(self, config: RunConfig, splits: Sequence[str]) -> list[Path]:
        """Every annotation file that the evaluation reads."""
        files = {split: config.data.evaluate[split] for split in splits}
        return [Path(file) for file in source_files(files, config.data.format)]

    def describe(self, config: RunConfig, checkpoint: Path | None, splits: Sequence[str]) -> Run:
        """The columns that all rows of an evaluation share."""
        data, system = data_of(config), SYSTEMS[config.system]
        side = data.max_image_size if data.resize == "aspect" else data.image_size
        return Run(
            system=system.title,
            objective=task_of(config),
            checkpoint=checkpoint.name if checkpoint else "",
            benchmark=config.benchmark or "own",
            derived=system.derived,
            splits=tuple(splits),
            image_root=data.evaluation_images,
            opener=data.opener,
            note=", ".join(filter(None, (f"{side} px", config.note))),
            seed=config.seed,
            merged_boxes=data.merged_boxes,
            resampling=data.resampling,
            inclusive=config.inclusive_thresholds,
        )


def data_of(config: RunConfig) -> ReferringDataConfig:
    """The section `data` of a run of this form."""
    assert isinstance(config.data, ReferringDataConfig)
    return config.data


def task_of(config: RunConfig) -> str:
    """What the model was trained for: boxes of one or of several phrases, or masks."""
    model = config.model
    if not model.needs_boxes:
        return "REC without boxes"
    if model.several_targets:
        return "GREC, GRES" if model.masks else "GREC"
    if model.masks:
        return "RES"
    return "multi-phrase" if data_of(config).multi_phrase else "REC"


def text_rules(config: RunConfig, tokenizer: Tokenizer, *, training: bool = False) -> ReferringText:
    """How this configuration makes expressions tokens."""
    data = data_of(config)
    several = data.joins_phrases if training else data.multi_phrase
    return ReferringText(tokenizer, several, data.max_tokens, data.max_phrase_tokens)


def build_dataset(
    config: RunConfig,
    text: ReferringText,
    files: Mapping[str, Sequence[str]],
    *,
    training: bool,
    labelled: bool = True,
) -> ReferringDataset:
    """The samples of some splits, for training or for evaluation; `labelled` False: annotated
    boxes, masks and classes are taken away as soon as they have been read."""
    records = records_of(config, text, files, training=training)
    return ReferringDataset(
        records if labelled else Unlabelled(records),
        data_transform(config, training=training),
        text,
        data_rules(config, training=training, labelled=labelled),
    )


def records_of(
    config: RunConfig, text: ReferringText, files: Mapping[str, Sequence[str]], *, training: bool
) -> Records:
    """The records of some splits as a data set takes them, for training or for evaluation."""
    data, records = data_of(config), listed_records(config, files)
    if not training or data.sentences_at_once == 1:
        return records
    return JoinedSentences(
        records, most=data.sentences_at_once, max_phrases=data.max_phrases, text=text
    )


def listed_records(config: RunConfig, files: Mapping[str, Sequence[str]]) -> Records:
    """The records of some splits as the annotation files have them."""
    data = data_of(config)
    return read_splits(files, data.format, data.cache_dir, integer_boxes=data.integer_boxes)


def data_transform(config: RunConfig, *, training: bool) -> ReferringTransform:
    """How this configuration brings images to the network's size."""
    data = data_of(config)
    return ReferringTransform(
        data.image_size,
        data.max_image_size,
        data.resize,
        jitter=data.jitter and training,
        normalize=data.normalize == "imagenet",
        resampling=data.resampling,
    )


def data_rules(config: RunConfig, *, training: bool, labelled: bool = True) -> ReferringRules:
    """What a data set of this configuration makes of its records; arguments as `build_dataset`."""
    data, model = data_of(config), config.model
    return ReferringRules(
        image_root=data.image_root if training or not labelled else data.evaluation_images,
        image_roots=data.image_roots,
        collections=data.collections if training else (),
        mask_root=data.mask_root,
        several_targets=model.several_targets,
        one_per_record=data.one_per_record and labelled,
        one_orientation=data.sampling == "orientation" and training,
        masks=model.masks and labelled,
        max_phrases=data.max_phrases,
        integer_boxes=data.integer_boxes,
        last_pixel_boxes=data.last_pixel_boxes,
        stated_sizes=data.stated_sizes,
        boxes=(model.needs_boxes or not training) and labelled,
        one_per_object=data.one_per_object and training and data.format != "labels",
        scale_jitter=data.scale_jitter and training,
        tolerate_corrupt=data.tolerate_corrupt,
        allow_outside_paths=data.allow_outside_paths,
        opener=data.opener,
        strict=data.strict,
        seed=config.seed,
    )


def collate(config: RunConfig, text: ReferringText, *, training: bool) -> ReferringCollate:
    """Makes the batches of this configuration."""
    data = data_of(config)
    return ReferringCollate(
        text,
        training=training,
        masks=config.model.masks,
        fixed_length=data.fixed_length,
        max_phrases=data.max_phrases,
    )


def evaluation_of(config: RunConfig, text: ReferringText, dataset: ReferringDataset) -> Evaluation:
    """A data set with its batches and what its groundings become."""
    root, several = config.data.evaluation_images, config.model.several_targets
    loader = split_loader(
        dataset,
        collate(config, text, training=False),
        config.eval_batch_size or config.batch_size,
        list(dataset.split_sizes.values()),
        world_size=utils.world_size(),
        rank=utils.rank(),
        workers=config.data.workers,
    )
    return Evaluation(
        loader,
        lambda batch, row, found: to_prediction(batch, row, found, root, several=several),
        dataset.expressions,
    )


def to_prediction(
    batch: ReferringEvalBatch,
    row: int,
    grounding: Grounding,
    image_root: str,
    *,
    several: bool = False,
) -> Prediction:
    """One expression of an evaluation batch with its truth and its grounding; `several`: it may
    have any number of targets."""
    image, small = int(batch["phrase_image"][row]), grounding.resized_mask
    prediction = Prediction.of(
        grounding,
        id=batch["expression_ids"][row],
        image=below(batch["image_path"][image], image_root),
        split=batch["splits"][image],
        boxes=batch["boxes"][row],
        true_mask=batch["masks"][row],
    )
    return replace(
        prediction,
        resized_mask=runs_of(small),
        resized_size=None if small is None else small.shape,
        alternatives={
            name: best_box(boxes, batch["boxes"][row])
            for name, boxes in grounding.candidates.items()
        },
        confidence=grounding.confidence,
        several=several,
        found=tuple(map(tuple, grounding.boxes.tolist())) if several else (),
        attention=grounding.attention,
    )


def best_box(candidates: np.ndarray, truth: np.ndarray) -> Box:
    """Of (n, 4) candidates the one with the highest IoU with any of (m, 4) true boxes."""
    x1, y1, x2, y2 = candidates[int(iou(candidates, truth).max(axis=1).argmax())].tolist()
    return (x1, y1, x2, y2)

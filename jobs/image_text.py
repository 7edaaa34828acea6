"""Image-text samples for the jobs: stages of phrases with regions and paraphrases, and evaluations
by heat maps."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from groundwork import metrics, utils
from groundwork.benchmarks import BENCHMARKS, Benchmark
from groundwork.dataset.batches import ImageTextEvalBatch
from groundwork.dataset.formats import detections, flickr30k, refer
from groundwork.dataset.formats.refer_agreement import Agreement
from groundwork.dataset.image_text.collate import EvalCollate, TrainCollate, too_long
from groundwork.dataset.image_text.dataset import EvalDataset, TrainDataset
from groundwork.dataset.image_text.transforms import CropTransform, EvalTransform, TrainTransform
from groundwork.dataset.images import ImagePlace, resolve_image
from groundwork.dataset.loader import TrainLoader, eval_loader, train_loader
from groundwork.dataset.needs import BOX, PARAPHRASE
from groundwork.dataset.pseudo_labels import Unlabelled
from groundwork.dataset.record import Phrase, Record, Records, RecordTable
from groundwork.dataset.sources import read_splits, source_files
from groundwork.dataset.text import PARAPHRASE_RULES
from groundwork.geometry import Grounding
from groundwork.jobs.evaluation import below
from groundwork.jobs.samples import Evaluation
from groundwork.jobs.tokenizers import Tokenizer
from groundwork.models import SYSTEMS
from groundwork.models.common.checkpoint import read_checkpoint
from groundwork.models.common.heatmap import enlarge
from groundwork.models.common.system import ImageTextSettings
from groundwork.report.predictions import Prediction, Run
from groundwork.settings.data import ImageTextDataConfig
from groundwork.settings.run import RunConfig

logger = logging.getLogger("groundwork")
READERS = {"refcoco+": refer.read_refcoco_plus, "refclef": refer.read_refclef}
LONG_REMEDY = "lower data.max_words, or shorten the phrase in the annotation file"


class ImageText:
    """The form of samples of systems explained by heat maps (`jobs.samples.FormOfSamples`)."""

    def train_loader(self, alone: RunConfig, tokenizer: Tokenizer) -> TrainLoader:
        """The training loader of a stage for this process."""
        data, _ = parts_of(alone)
        records = read_splits(data.train, data.format, data.cache_dir)
        require_data(records, alone)
        dataset = TrainDataset(
            records,
            data.image_root,
            training_transform(alone),
            data.training_words,
            alone.seed,
            flip_swaps_words=data.flip_swaps_words,
            all_boxes=data.all_boxes,
            paraphrase_rule=data.paraphrase_rule,
            tolerate_corrupt=data.tolerate_corrupt,
            allow_outside_paths=data.allow_outside_paths,
            opener=data.opener,
            strict=data.strict,
        )
        return train_loader(
            dataset,
            TrainCollate(word_pieces(tokenizer), data.max_tokens, data.mask_size),
            alone.batch_size,
            world_size=utils.world_size(),
            rank=utils.rank(),
            seed=alone.seed,
            sampling=data.sampling,
            workers=data.workers,
        )

    def evaluation(
        self, config: RunConfig, splits: Sequence[str], tokenizer: Tokenizer
    ) -> Evaluation:
        """The expressions of some splits, an image with all its phrases per sample."""
        agreement = Agreement()
        dataset = evaluation_dataset(config, records_of(config, splits, agreement), agreement)
        return evaluation_of(config, dataset, tokenizer)

    def unlabelled(self, config: RunConfig, tokenizer: Tokenizer) -> Evaluation:
        """All of data.train, or without it of the evaluated splits, seen as in an evaluation."""
        data, agreement = config.data, Agreement()
        if not data.train:
            found = Unlabelled(records_of(config, config.evaluated_splits, agreement))
            return evaluation_of(config, evaluation_dataset(config, found, agreement), tokenizer)
        records = Unlabelled(read_splits(data.train, data.format, data.cache_dir))
        seen = replace(config, data=replace(data, evaluate_image_root=data.image_root))
        return evaluation_of(seen, evaluation_dataset(seen, records), tokenizer)

    def records(
        self, config: RunConfig, splits: Sequence[str]
    ) -> Iterable[tuple[ImagePlace, Record]]:
        """The records of some splits, each with its image file."""
        data = config.data
        for record in records_of(config, splits, Agreement()):
            yield (
                resolve_image(
                    data.evaluation_images,
                    record.image,
                    record.source,
                    allow_outside=data.allow_outside_paths,
                ),
                record,
            )

    def evaluation_files(self, config: RunConfig, splits: Sequence[str]) -> list[Path]:
        """Every annotation file that the evaluation reads."""
        data, _ = parts_of(config)
        if data.evaluate:
            files = {split: data.evaluate[split] for split in splits}
            return [Path(file) for file in source_files(files, data.format)]
        found = [*map(Path, data.test_file), *([Path(data.det_file)] if data.det_file else [])]
        benchmark = benchmark_of(config)
        if benchmark.reader == "flickr30k":
            found += flickr30k.files(annotations_of(config), splits, data.flickr_lists)
        else:
            name = benchmark.name.removeprefix("embedded/")
            found += refer.files(annotations_of(config), name, data.split_by)
        return [file for file in dict.fromkeys(found) if file.is_file()]

    def describe(self, config: RunConfig, checkpoint: Path | None, splits: Sequence[str]) -> Run:
        """The columns that all rows of an evaluation share."""
        system = SYSTEMS[config.system]
        return Run(
            system=system.title,
            objective=trained_with(checkpoint) if checkpoint else "",
            checkpoint=checkpoint.name if checkpoint else "",
            benchmark=benchmark_of(config).name,
            derived=system.derived,
            splits=tuple(splits),
            image_root=config.data.evaluation_images,
            opener=config.data.opener,
            note=config.note,
            seed=config.seed,
        )


def parts_of(config: RunConfig) -> tuple[ImageTextDataConfig, ImageTextSettings]:
    """The sections `data` and `model` of a run of this form."""
    data, model = config.data, config.model
    assert isinstance(data, ImageTextDataConfig) and isinstance(model, ImageTextSettings)
    return data, model


def word_pieces(tokenizer: Tokenizer) -> PreTrainedTokenizerBase:
    """Raises ValueError for a tokeniser that this form of samples has no use for."""
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ValueError("data.text_encoder: give a BERT's vocabulary, such as bert-base-uncased")
    return tokenizer


def benchmark_of(config: RunConfig) -> Benchmark:
    """The row of the benchmark that is evaluated on.

    Raises:
        ValueError: the configuration names none.
    """
    if config.benchmark is None:
        raise ValueError(f"benchmark: none is named; give one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[config.benchmark]


def annotations_of(config: RunConfig) -> str:
    """The folder of the benchmark's published annotations."""
    data, _ = parts_of(config)
    flickr = benchmark_of(config).reader == "flickr30k"
    folder = data.flickr_data if flickr else data.refcoco_data
    assert folder is not None  # `RunConfig` has looked
    return folder


def read_records(
    config: RunConfig, splits: Sequence[str], agreement: Agreement
) -> Iterable[Record]:
    """All records of the evaluated files, of other splits, too, where a file holds several;
    `agreement` learns how lists of RefCOCO+ and RefCLEF fit to their references."""
    data, _ = parts_of(config)
    benchmark = benchmark_of(config)
    if data.evaluate:
        return read_splits({s: data.evaluate[s] for s in splits}, data.format, data.cache_dir)
    if benchmark.reader == "flickr30k":
        return chain.from_iterable(
            flickr30k.read(annotations_of(config), split, data.flickr_lists, empty=True)
            for split in splits
        )
    read = READERS[benchmark.name.removeprefix("embedded/")]
    return chain.from_iterable(
        read(file, annotations_of(config), data.split_by, agreement) for file in data.test_file
    )


def records_of(config: RunConfig, splits: Sequence[str], agreement: Agreement) -> list[Record]:
    """The records of some splits; arguments as of `read_records`.

    Raises:
        ValueError: there are none.
    """
    records = [r for r in read_records(config, splits, agreement) if r.split in splits]
    if not records:
        raise ValueError(
            f"{config.benchmark}: the annotation files have no expression of {', '.join(splits)}"
        )
    return records


def evaluation_dataset(
    config: RunConfig, records: Records, agreement: Agreement | None = None
) -> EvalDataset:
    """Records by the protocol of the benchmark; where none is named, by what holds for most."""
    data, model = parts_of(config)
    benchmark = BENCHMARKS.get(config.benchmark or "", Benchmark(name="own"))
    return EvalDataset(
        records,
        data.evaluation_images,
        EvalTransform(model.image_size, benchmark.resize),
        data.max_words or benchmark.max_words,
        stated_size=benchmark.stated_size,
        tolerate_corrupt=data.tolerate_corrupt,
        allow_outside_paths=data.allow_outside_paths,
        opener=data.opener,
        strict=data.strict,
        known_faults=agreement.faults if agreement else None,
    )


def evaluation_of(config: RunConfig, dataset: EvalDataset, tokenizer: Tokenizer) -> Evaluation:
    """A data set with its batches and what its groundings become.

    Raises:
        ValueError: a phrase has more tokens than the model has positions: an evaluation cuts at
            words only.
    """
    (data, model), pieces = parts_of(config), word_pieces(tokenizer)
    if model.max_text_tokens is not None:
        for message in too_long(pieces, dataset.texts(), model.max_text_tokens):
            raise ValueError(f"{message}; {LONG_REMEDY}")
    proposals = detections.read(data.det_file) if data.det_file else None

    def prediction(batch: ImageTextEvalBatch, row: int, grounding: Grounding) -> Prediction:
        # Proposals are filed by image id, which is what such records are called by.
        boxes = proposals.get(batch["record_ids"][row]) if proposals else None
        return to_prediction(batch, row, grounding, data.evaluation_images, boxes)

    loader = eval_loader(
        dataset,
        EvalCollate(pieces),
        config.eval_batch_size or config.batch_size,
        world_size=utils.world_size(),
        rank=utils.rank(),
        workers=data.workers,
    )
    return Evaluation(loader, prediction, dataset.expressions)


def to_prediction(
    batch: ImageTextEvalBatch,
    row: int,
    grounding: Grounding,
    image_root: str,
    proposals: np.ndarray | None = None,
) -> Prediction:
    """One phrase of an evaluation batch with its truth and its grounding."""
    index, proposal = None, None
    if proposals is not None:
        heatmap = torch.from_numpy(grounding.heatmap)[None]
        index, proposal = metrics.best_proposal(
            enlarge(heatmap, grounding.size)[0].numpy(), proposals
        )
    prediction = Prediction.of(
        grounding,
        id=f"{batch['record_ids'][row]}/{batch['phrase_ids'][row]}",
        image=below(batch["image_path"][int(batch["phrase_image"][row])], image_root),
        split=batch["splits"][row],
        boxes=batch["boxes"][row],
        true_mask=batch["masks"][row],
    )
    return replace(prediction, proposal=proposal, proposal_index=index)


def trained_with(file: Path) -> str:
    """The objectives of the run that wrote a checkpoint, joined by "+"; "" for published files."""
    config = read_checkpoint(file).get("config")
    stages = config.get("stages", ()) if isinstance(config, dict) else ()
    return "+".join(dict.fromkeys(name for stage in stages for name in stage["objective"]))


def training_transform(alone: RunConfig) -> TrainTransform | CropTransform:
    """What a stage does with its images."""
    (data, model), (stage,) = parts_of(alone), alone.stages
    augment = data.augment if stage.augment is None else stage.augment
    if data.crop == "random":
        return CropTransform(
            model.image_size, data.mask_size, augment=augment, operations=data.randaugment_rule
        )
    return TrainTransform(
        model.image_size,
        data.mask_size,
        augment=augment,
        colour_jitter=data.colour_jitter,
        jitter_rule=data.jitter_rule,
        regions="boxes" in alone.learns_from(stage),
    )


def require_data(records: RecordTable, alone: RunConfig) -> None:
    """Say how many phrases lack what the objectives of a stage learn from.

    Raises:
        ValueError: all do.
    """
    files = ", ".join(file for split in alone.data.train.values() for file in split)
    learns_from, notes = alone.learns_from(alone.stages[0]), []
    if "boxes" in learns_from:
        having, phrases = records.phrases_with("boxes")
        notes.append(BOX.note(phrases - having, phrases, files))
    if "paraphrases" in learns_from:
        has = paraphrasable(alone)
        found = Counter(has(phrase) for record in records for phrase in record.phrases)
        notes.append(PARAPHRASE.note(found[False], found.total(), files))
    for note in filter(None, notes):
        if utils.is_main():
            logger.warning("%s", note)


def paraphrasable(config: RunConfig) -> Callable[[Phrase], bool]:
    """Does a phrase have a paraphrase by the configured rule?"""
    data, _ = parts_of(config)
    rule, words = PARAPHRASE_RULES[data.paraphrase_rule], data.training_words
    return lambda phrase: any(rule(phrase, word, words) is not None for word in phrase.synonyms)

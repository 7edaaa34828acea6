"""Evaluating box and mask systems: the job behind test.py, and the validation of train.py."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from groundwork import engine, utils
from groundwork.dataset.loader import split_loader
from groundwork.dataset.pseudo_labels import Unlabelled
from groundwork.dataset.referring.collate import ReferringCollate
from groundwork.dataset.referring.dataset import ReferringDataset, ReferringRules
from groundwork.dataset.referring.text import ReferringText
from groundwork.dataset.referring.transforms import ReferringTransform
from groundwork.dataset.sources import read_splits, source_files
from groundwork.geometry import Box, Grounding, iou
from groundwork.jobs import STRICT_HELP
from groundwork.jobs.evaluation import (
    MANIFEST,
    Remarks,
    below,
    checkpoint_files,
    evaluate_checkpoints,
    require_predictions,
)
from groundwork.jobs.folders import RESULTS_HELP, results_folder
from groundwork.jobs.launch_flags import add_launch_flags, adopt_launch_flags
from groundwork.jobs.rooms import ROOMS
from groundwork.jobs.tokenizers import Tokenizer, load_texts, require_same_words
from groundwork.report.predictions import Prediction, Run, runs_of
from groundwork.report.results import score_rows
from groundwork.settings import ReferringConfig, load_config, to_dict
from groundwork.settings.roots import root_overrides

logger = logging.getLogger("groundwork")
Postprocess = Callable[[Any, dict[str, Any]], list[Grounding]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that train.py and test.py share."""
    parser.add_argument("--config", required=True, help="YAML file, such as configs/reftr/*.yaml")
    parser.add_argument("--text_encoder", help="tokeniser: hub name, folder, or vocab.txt")
    parser.add_argument("--device", help="cuda, cuda:1, cpu; default: cuda if there is one")
    parser.add_argument("--seed", type=int, help="overrides the config's seed")
    parser.add_argument("--strict", action="store_true", help=STRICT_HELP)
    parser.add_argument("--data", help="root of the data; trees of the repositories are known")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="override config values"
    )
    add_launch_flags(parser)


def load_settings(args: argparse.Namespace) -> ReferringConfig:
    """The configuration that the shared arguments ask for."""
    overrides = [*root_overrides(args.data), *args.set]
    if args.text_encoder:
        overrides.append(f"data.text_encoder={args.text_encoder}")
    if args.seed is not None:
        overrides.append(f"seed={args.seed}")
    if args.strict:
        overrides.append("data.strict=true")
    return load_config(args.config, "referring", overrides)


def main(argv: Sequence[str] | None, *, description: str) -> list[dict]:
    """Evaluate a checkpoint, or every checkpoint of a folder, on all splits of the configuration.

    Returns:
        The rows of results.json about these checkpoints.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument(
        "--checkpoint",
        "--eval-weights",
        "--load-from",
        required=True,
        help="a .pth file, or a folder of them; the other names are RefCLIP's and ALVG's",
    )
    parser.add_argument("--output_dir", "--work-dir", help=RESULTS_HELP)
    parser.add_argument("--split", nargs="+", help="only these splits of data.evaluate")
    parser.add_argument("--again", action="store_true", help="evaluate what has results already")
    args = parser.parse_args(argv)
    adopt_launch_flags(args)
    device = utils.init_distributed(args.device)
    utils.setup_logging()
    try:
        settings = load_settings(args)
        splits = args.split or list(settings.data.evaluate)
        checkpoint = Path(args.checkpoint)
        output_dir = Path(args.output_dir or results_folder(args.config))
        return run(settings, checkpoint, output_dir, device, splits=splits, again=args.again)
    finally:
        utils.close_distributed()


def run(
    config: ReferringConfig,
    checkpoints: Path,
    output_dir: Path,
    device: torch.device,
    *,
    splits: Sequence[str],
    again: bool,
) -> list[dict]:
    """`main` with everything parsed."""
    room, files = ROOMS[config.system], chosen_files(config, splits)
    tokenizer = load_texts(config, checkpoint_files(checkpoints)[0])
    model, _, postprocess = room.build(config.model, tokenizer)
    model.to(device).eval()
    loader = evaluation_loader(config, tokenizer, files)
    annotations = source_files(files, config.data.format)
    utils.write_manifest(
        output_dir, to_dict(config), seed=config.seed, files=annotations, name=MANIFEST
    )

    def predict_with(file: Path) -> tuple[list[Prediction], Remarks]:
        require_same_words(tokenizer, file)
        logger.info("%s", room.load(model, file))
        return predict(config, model, postprocess, loader, device)

    return evaluate_checkpoints(
        checkpoints,
        output_dir,
        lambda file: describe(config, file.name, splits),
        predict_with,
        settings=to_dict(config),
        annotations=annotations,
        again=again,
    )


def chosen_files(config: ReferringConfig, splits: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The annotation files of some splits of data.evaluate.

    Raises:
        ValueError: no splits, or one that the configuration does not have.
    """
    known = config.data.evaluate
    if not splits:
        raise ValueError("data.evaluate names no split; give its annotation files there")
    for split in splits:
        if split not in known:
            raise ValueError(
                f"split {split!r}: the configuration has no annotation of it in data.evaluate, "
                f"which names {', '.join(known) or 'none'}"
            )
    return {split: known[split] for split in splits}


def describe(config: ReferringConfig, checkpoint: str, splits: Sequence[str]) -> Run:
    """The columns that all rows of an evaluation share."""
    data = config.data
    side = data.max_image_size if data.resize == "aspect" else data.image_size
    room = ROOMS[config.system]
    return Run(
        system=room.title,
        objective=task_of(config),
        checkpoint=checkpoint,
        benchmark=config.benchmark,
        derived=room.derived,
        splits=tuple(splits),
        image_root=evaluation_images(config),
        opener=data.opener,
        note=f"{side} px",
        seed=config.seed,
        merged_boxes=data.merged_boxes,
        resampling=data.resampling,
        inclusive=config.inclusive_thresholds,
    )


def task_of(config: ReferringConfig) -> str:
    """What the model was trained for: boxes of one or of several phrases, or masks."""
    if not config.model.needs_boxes:
        return "REC without boxes"
    if config.several_targets:
        return "GREC, GRES" if config.model.masks else "GREC"
    if config.model.masks:
        return "RES"
    return "multi-phrase" if config.data.multi_phrase else "REC"


def evaluation_images(config: ReferringConfig) -> str:
    """The folder of the images that are evaluated."""
    own = config.data.evaluate_image_root
    return config.data.image_root if own is None else own


def text_rules(config: ReferringConfig, tokenizer: Tokenizer) -> ReferringText:
    """How this configuration makes expressions tokens."""
    data = config.data
    return ReferringText(tokenizer, data.multi_phrase, data.max_tokens, data.max_phrase_tokens)


def build_dataset(
    config: ReferringConfig,
    text: ReferringText,
    files: Mapping[str, Sequence[str]],
    *,
    training: bool,
    labelled: bool = True,
) -> ReferringDataset:
    """The samples of some splits, for training or for evaluation; `labelled` False: annotated
    boxes, masks and classes are taken away as soon as they have been read."""
    data = config.data
    records = read_splits(files, data.format, data.cache_dir, integer_boxes=data.integer_boxes)
    return ReferringDataset(
        records if labelled else Unlabelled(records),
        data_transform(config, training=training),
        text,
        data_rules(config, training=training, labelled=labelled),
    )


def data_transform(config: ReferringConfig, *, training: bool) -> ReferringTransform:
    """How this configuration brings images to the network's size."""
    data = config.data
    return ReferringTransform(
        data.image_size,
        data.max_image_size,
        data.resize,
        jitter=data.jitter and training,
        normalize=data.normalize == "imagenet",
        resampling=data.resampling,
    )


def data_rules(config: ReferringConfig, *, training: bool, labelled: bool = True) -> ReferringRules:
    """What a data set of this configuration makes of its records; arguments as `build_dataset`."""
    data = config.data
    return ReferringRules(
        image_root=data.image_root if training else evaluation_images(config),
        image_roots=data.image_roots,
        collections=data.collections if training else (),
        mask_root=data.mask_root,
        several_targets=config.several_targets,
        one_per_record=data.one_per_record,
        one_orientation=data.sampling == "orientation" and training,
        masks=config.model.masks and labelled,
        max_phrases=data.max_phrases,
        integer_boxes=data.integer_boxes,
        last_pixel_boxes=data.last_pixel_boxes,
        stated_sizes=data.stated_sizes,
        boxes=(config.model.needs_boxes or not training) and labelled,
        one_per_object=data.one_per_object and training and data.format != "labels",
        scale_jitter=data.scale_jitter and training,
        tolerate_corrupt=data.tolerate_corrupt,
        allow_outside_paths=data.allow_outside_paths,
        opener=data.opener,
        strict=data.strict,
        seed=config.seed,
    )


def collate(config: ReferringConfig, text: ReferringText, *, training: bool) -> ReferringCollate:
    """Makes the batches of this configuration."""
    data = config.data
    return ReferringCollate(
        text,
        training=training,
        masks=config.model.masks,
        fixed_length=data.fixed_length,
        max_phrases=data.max_phrases,
    )


def evaluation_loader(
    config: ReferringConfig,
    tokenizer: Tokenizer,
    files: Mapping[str, Sequence[str]],
) -> DataLoader:
    """Batches of some splits for this process; no sample comes twice, no batch holds two splits."""
    text = text_rules(config, tokenizer)
    return loader_of(config, text, build_dataset(config, text, files, training=False))


def loader_of(
    config: ReferringConfig, text: ReferringText, dataset: ReferringDataset
) -> DataLoader:
    """`evaluation_loader` for a data set that is there."""
    return split_loader(
        dataset,
        collate(config, text, training=False),
        config.eval_batch_size or config.batch_size,
        list(dataset.split_sizes.values()),
        world_size=utils.world_size(),
        rank=utils.rank(),
        workers=config.data.workers,
    )


def predict(
    config: ReferringConfig,
    model: nn.Module,
    postprocess: Postprocess,
    loader: DataLoader,
    device: torch.device,
) -> tuple[list[Prediction], Remarks]:
    """Ground every expression.

    Returns:
        The predictions of all processes in the order of the data set, and what is to be said of
        them.
    """
    mine: list[tuple[int, Prediction]] = []
    remarks = Remarks()
    batches = engine.evaluate(
        model,
        postprocess,
        loader,
        device=device,
        precision=config.precision,
        progress=lambda found: tqdm(
            found, desc=config.benchmark, disable=not utils.is_main(), mininterval=1.0
        ),
    )
    for batch, groundings in batches:
        remarks.add(batch)
        for row, grounding in enumerate(groundings):
            images, several = evaluation_images(config), config.several_targets
            prediction = to_prediction(batch, row, grounding, images, several=several)
            mine.append((batch["sample_index"][int(batch["phrase_image"][row])], prediction))
    everyone = [item for part in utils.all_gather_objects(mine) for item in part]
    remarks = remarks.gathered()
    predictions = [prediction for _, prediction in sorted(everyone, key=lambda item: item[0])]
    require_predictions(predictions, remarks)
    return predictions, remarks


def to_prediction(
    batch: dict, row: int, grounding: Grounding, image_root: str, *, several: bool = False
) -> Prediction:
    """One expression of an evaluation batch with its truth and its grounding; `several`: it may
    have any number of targets."""
    image, small = int(batch["phrase_image"][row]), grounding.resized_mask
    return Prediction(
        id=batch["expression_ids"][row],
        image=below(batch["image_path"][image], image_root),
        split=batch["splits"][image],
        phrase=grounding.phrase,
        size=grounding.size,
        point=grounding.point,
        boxes=tuple(map(tuple, batch["boxes"][row].tolist())),
        score=float(grounding.scores[0]) if len(grounding.scores) else None,
        box=tuple(grounding.boxes[0].tolist()) if len(grounding.boxes) else None,
        mask=runs_of(grounding.mask),
        true_mask=runs_of(batch["masks"][row]),
        resized_mask=runs_of(small),
        resized_size=None if small is None else small.shape,
        heatmap=grounding.heatmap,
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


def metric_values(about: Run, predictions: Sequence[Prediction]) -> dict[str, float]:
    """The system's own metrics by name, in percent or the metric's unit: means over the splits, of
    those that all splits have."""
    found: dict[str, list[float]] = {}
    for row in score_rows(about, predictions):
        if isinstance(row["value"], float):
            found.setdefault(str(row["metric"]), []).append(row["value"])
    number = len(about.splits)
    return {
        name: math.fsum(values) / number for name, values in found.items() if len(values) == number
    }

"""Grounding by heat maps: the job behind the three grounding_eval_singlegpu*.py scripts."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from groundwork import engine, metrics, utils
from groundwork.benchmarks import BENCHMARKS, Benchmark
from groundwork.dataset.formats import detections, flickr30k, refer
from groundwork.dataset.formats.refer_agreement import Agreement
from groundwork.dataset.image_text.collate import too_long
from groundwork.dataset.image_text.dataset import EvalDataset
from groundwork.dataset.image_text.transforms import EvalTransform
from groundwork.dataset.loader import make_eval_loader
from groundwork.dataset.record import Record
from groundwork.dataset.text import load_tokenizer
from groundwork.geometry import Grounding
from groundwork.jobs import STRICT_HELP, check_vocabulary
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
from groundwork.jobs.released_log import write_released_log
from groundwork.models.albef import checkpoint
from groundwork.models.albef.build import build_grounding
from groundwork.models.common.checkpoint import read_checkpoint
from groundwork.models.common.heatmap import enlarge
from groundwork.report.predictions import Prediction, Run, runs_of
from groundwork.settings import load_config, to_dict
from groundwork.settings.roots import root_overrides
from groundwork.settings.schema import GroundingConfig

logger = logging.getLogger("groundwork")

LONG_REMEDY = "lower data.max_words, or shorten the phrase in the annotation file"
READERS = {"refcoco+": refer.read_refcoco_plus, "refclef": refer.read_refclef}


def parse_args(argv: Sequence[str] | None, *, description: str, config: str) -> argparse.Namespace:
    """The released scripts' arguments, and `--set` and `--again`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default=config, help="YAML file; a released one is accepted")
    parser.add_argument("--checkpoint", required=True, help="a .pth file, or a folder of them")
    parser.add_argument("--output_dir", help=RESULTS_HELP)
    parser.add_argument("--gradcam_mode", choices=("itm", "itc"), help="what is explained (itm)")
    parser.add_argument("--block_num", type=int, help="text layer (itm) or image block (itc) (8)")
    parser.add_argument("--text_encoder", help="tokeniser: hub name, folder, or vocab.txt")
    parser.add_argument("--device", help="cuda, cuda:1, cpu; default: cuda if there is one")
    parser.add_argument("--seed", type=int, help="of the intervals and of the images shown")
    parser.add_argument("--strict", action="store_true", help=STRICT_HELP)
    parser.add_argument("--again", action="store_true", help="evaluate what has results already")
    parser.add_argument("--data", help="root of the data; trees of the repositories are known")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="override config")
    parser.add_argument("--evaluate", action="store_true", help="as released: it always does")
    add_launch_flags(parser)
    return parser.parse_args(argv)


def main(
    argv: Sequence[str] | None, *, description: str, config: str, benchmark: str
) -> list[dict]:
    """Evaluate a checkpoint, or every checkpoint of a folder.

    Args:
        description: of the script. config: its default configuration.
        benchmark: for configurations that do not name one.

    Returns:
        The rows of results.json about these checkpoints.
    """
    args = parse_args(argv, description=description, config=config)
    overrides = [*root_overrides(args.data), *args.set]
    for key, value in (
        ("data.text_encoder", args.text_encoder),
        ("explanation.mode", args.gradcam_mode),
        ("explanation.block", args.block_num),
        ("seed", args.seed),
        ("data.strict", "true" if args.strict else None),
    ):
        if value is not None:
            overrides.append(f"{key}={value}")
    utils.setup_logging()
    settings = load_config(args.config, "grounding", overrides, defaults={"benchmark": benchmark})
    adopt_launch_flags(args)
    device = utils.choose_device(args.device)
    output_dir = Path(args.output_dir or results_folder(args.config))
    return run(settings, Path(args.checkpoint), output_dir, device, again=args.again)


def run(
    config: GroundingConfig,
    checkpoints: Path,
    output_dir: Path,
    device: torch.device,
    *,
    again: bool = False,
) -> list[dict]:
    """`main` with everything parsed."""
    checkpoint_files(checkpoints)  # a wrong path is said before the data are read
    tokenizer = load_tokenizer(config.data.text_encoder)
    check_vocabulary(config, tokenizer)
    dataset = build_dataset(config)
    require_positions(dataset, tokenizer, config)
    proposals = detections.read(config.data.det_file) if config.data.det_file else {}
    loader = make_eval_loader(dataset, tokenizer, config.batch_size, workers=config.data.workers)
    files = annotation_files(config)
    utils.write_manifest(
        output_dir,
        to_dict(config),
        seed=config.seed,
        files=files,
        name=MANIFEST,
        tokens=checkpoint.TOKENS,
    )
    rows = evaluate_checkpoints(
        checkpoints,
        output_dir,
        lambda file: describe(config, file),
        lambda file: predict(config, file, loader, proposals, device),
        settings=to_dict(config),
        annotations=files,
        again=again,
    )
    write_released_log(output_dir, rows)
    return rows


def require_positions(
    dataset: EvalDataset, tokenizer: PreTrainedTokenizerBase, config: GroundingConfig
) -> None:
    """Raises ValueError, naming its record, for a phrase with more tokens than the model has
    position embeddings: an evaluation cuts at words only."""
    for message in too_long(tokenizer, dataset.texts(), config.model.text.max_position_embeddings):
        raise ValueError(f"{message}; {LONG_REMEDY}")


def max_words(config: GroundingConfig) -> int:
    """Words at which the evaluation cuts a phrase."""
    return config.data.max_words or BENCHMARKS[config.benchmark].max_words


def build_dataset(config: GroundingConfig) -> EvalDataset:
    """The expressions of the configured benchmark and splits, by the benchmark's protocol."""
    benchmark, data = BENCHMARKS[config.benchmark], config.data
    splits = data.splits or benchmark.splits
    agreement = Agreement()
    read = read_records(benchmark, config, agreement)
    records = [record for record in read if record.split in splits]
    if not records:
        raise ValueError(
            f"{config.benchmark}: the annotation files have no expression of {', '.join(splits)}"
        )
    return EvalDataset(
        records,
        data.image_root,
        EvalTransform(config.model.image_size, benchmark.resize),
        max_words(config),
        stated_size=benchmark.stated_size,
        tolerate_corrupt=data.tolerate_corrupt,
        allow_outside_paths=data.allow_outside_paths,
        opener=data.opener,
        strict=data.strict,
        known_faults=agreement.faults,
    )


def annotation_files(config: GroundingConfig) -> list[Path]:
    """Every annotation file that the evaluation reads, for the manifest."""
    benchmark, data = BENCHMARKS[config.benchmark], config.data
    files = [*map(Path, data.test_file), *([Path(data.det_file)] if data.det_file else [])]
    if benchmark.reader == "flickr30k":
        files += flickr30k.files(
            data.flickr_data, data.splits or benchmark.splits, data.flickr_lists
        )
    else:
        name = benchmark.name.removeprefix("embedded/")
        files += refer.files(data.refcoco_data, name, data.split_by)
    return [file for file in dict.fromkeys(files) if file.is_file()]


def read_records(
    benchmark: Benchmark, config: GroundingConfig, agreement: Agreement | None = None
) -> Iterable[Record]:
    """All records of the configured files, split by split or file by file; `agreement` learns how
    lists of RefCOCO+ and RefCLEF fit to their references."""
    data = config.data
    if benchmark.reader == "flickr30k":
        return chain.from_iterable(
            flickr30k.read(data.flickr_data, split, data.flickr_lists, empty=True)
            for split in data.splits or benchmark.splits
        )
    read = READERS[benchmark.name.removeprefix("embedded/")]
    return chain.from_iterable(
        read(file, data.refcoco_data, data.split_by, agreement) for file in data.test_file
    )


def describe(config: GroundingConfig, file: Path) -> Run:
    """The columns that all rows about this checkpoint share."""
    explanation = config.explanation
    block = config.model.explanation_layer if explanation.block is None else explanation.block
    return Run(
        system="ALBEF",
        objective=trained_with(file),
        checkpoint=file.name,
        benchmark=config.benchmark,
        derived=("box", "mask"),
        splits=config.data.splits or BENCHMARKS[config.benchmark].splits,
        image_root=config.data.image_root,
        opener=config.data.opener,
        note=f"{explanation.mode} map of block {block}",
        seed=config.seed,
    )


def trained_with(file: Path) -> str:
    """The objectives of the run that wrote a checkpoint, joined by "+"; "" for published files."""
    config = read_checkpoint(file).get("config")
    stages = config.get("stages", ()) if isinstance(config, dict) else ()
    return "+".join(dict.fromkeys(name for stage in stages for name in stage["objective"]))


def predict(
    config: GroundingConfig,
    file: Path,
    loader: torch.utils.data.DataLoader,
    proposals: dict[str, np.ndarray],
    device: torch.device,
) -> tuple[list[Prediction], Remarks]:
    """Ground every phrase with the checkpoint in `file`.

    Returns:
        The predictions, and what is to be said of them.
    """
    remarks = Remarks()

    def readable(batches: Iterable[dict]) -> Iterator[dict]:
        with tqdm(batches, desc=file.name, unit="batch", mininterval=1.0) as progress:
            for batch in progress:
                remarks.add(batch)
                if batch["image_path"]:
                    yield batch

    explainer, postprocess = build_grounding(
        config, mode=config.explanation.mode, layer=config.explanation.block
    )
    logger.info("%s", checkpoint.load(explainer.model, file))
    batches = engine.evaluate(
        explainer.to(device),
        postprocess,
        loader,
        device=device,
        precision=config.precision,
        progress=readable,
    )
    predictions: list[Prediction] = []
    for batch, groundings in batches:
        images = [below(path, config.data.image_root) for path in batch["image_path"]]
        owners = batch["phrase_image"].tolist()
        for row, grounding in enumerate(groundings):
            # Proposals are filed by image id, which is what such records are called by.
            boxes = proposals.get(batch["record_ids"][row]) if proposals else None
            predictions.append(to_prediction(batch, row, images[owners[row]], grounding, boxes))
    require_predictions(predictions, remarks)
    return predictions, remarks


def to_prediction(
    batch: dict, row: int, image: str, grounding: Grounding, proposals: np.ndarray | None
) -> Prediction:
    """One phrase of an evaluation batch with its truth and its grounding."""
    index, proposal = None, None
    if proposals is not None:
        heatmap = torch.from_numpy(grounding.heatmap)[None]
        index, proposal = metrics.best_proposal(
            enlarge(heatmap, grounding.size)[0].numpy(), proposals
        )
    return Prediction(
        id=f"{batch['record_ids'][row]}/{batch['phrase_ids'][row]}",
        image=image,
        split=batch["splits"][row],
        phrase=grounding.phrase,
        size=grounding.size,
        point=grounding.point,
        boxes=tuple(map(tuple, batch["boxes"][row].tolist())),
        score=float(grounding.scores[0]) if len(grounding.scores) else None,
        box=tuple(grounding.boxes[0].tolist()) if len(grounding.boxes) else None,
        proposal=proposal,
        proposal_index=index,
        mask=runs_of(grounding.mask),
        true_mask=runs_of(batch["masks"][row]),
        heatmap=grounding.heatmap,
    )

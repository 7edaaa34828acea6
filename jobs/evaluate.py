"""Evaluating any system: the job behind test.py and the grounding_eval_singlegpu*.py scripts."""

import argparse
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from groundwork import engine, utils
from groundwork.dataset.batches import EvalBatch
from groundwork.files.manifest import write_manifest
from groundwork.geometry import Grounding
from groundwork.jobs import arguments
from groundwork.jobs.evaluation import (
    MANIFEST,
    Remarks,
    checkpoint_files,
    evaluate_checkpoints,
    require_predictions,
)
from groundwork.jobs.folders import RESULTS_HELP, RUNS, results_folder, run_folder
from groundwork.jobs.forms import FORMS
from groundwork.jobs.released_log import write_released_log
from groundwork.jobs.samples import Evaluation
from groundwork.jobs.tokenizers import Tokenizer, load_texts, require_same_words
from groundwork.models import SYSTEMS
from groundwork.models.common.explain import METHODS
from groundwork.models.common.explain.perturbation import Perturbation
from groundwork.models.common.system import Parts
from groundwork.report.pages import markdown, write_report
from groundwork.report.predictions import Prediction, Run
from groundwork.report.results import Row, merge_rows, score_rows, update_rows
from groundwork.settings import RunConfig, to_dict

logger = logging.getLogger("groundwork")
PERTURBATION = "perturbation"
EXPLAIN_HELP = (
    "how heat maps are made: perturbation by superpixels for any system; the others read them off "
    "ALBEF's attentions"
)


def main(
    argv: Sequence[str] | None,
    *,
    description: str = "",
    config: str | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> list[Row]:
    """Evaluate a checkpoint, or every checkpoint of a folder.

    Args:
        description: of the script. config: its default configuration, if it has one: then it is a
            released script, whose flags are added.
        defaults: dotted keys that its configurations may leave open.

    Returns:
        The rows of results.json about these checkpoints.
    """
    args = parse_args(argv, description=description, config=config)
    with arguments.processes(args) as device:
        together = Path(args.output_dir or "runs/compared") if len(args.config) > 1 else None
        rows: list[Row] = []
        for file, checkpoint in zip(args.config, args.checkpoint, strict=True):
            settings = arguments.load(args, config=file, purpose="evaluation", defaults=defaults)
            folder = Path(args.output_dir or results_folder(file))
            if together is not None:
                folder = together / run_folder(file).relative_to(RUNS)
            splits = args.split or settings.evaluated_splits
            new = run(settings, Path(checkpoint), folder, device, splits=splits, again=args.again)
            rows = merge_rows(rows, new)
        if together is not None and utils.is_main():
            update_rows(together / "results.json", rows)
            write_report(together, rows, [], title="Compared")
            logger.info("report: %s\n%s", together / "index.html", markdown(rows))
        return rows


def parse_args(
    argv: Sequence[str] | None, *, description: str, config: str | None = None
) -> argparse.Namespace:
    """What the command says."""
    parser = arguments.parser(description, config=config, several=True)
    parser.add_argument(
        "--checkpoint",
        "--eval-weights",
        "--load-from",
        nargs="+",
        required=True,
        help="a .pth file, or a folder of them; of several configurations one each",
    )
    parser.add_argument("--output_dir", "--work-dir", help=RESULTS_HELP)
    parser.add_argument("--split", nargs="+", help="only these of the evaluated splits")
    parser.add_argument("--again", action="store_true", help="evaluate what has results already")
    parser.add_argument("--explain", choices=(*METHODS, PERTURBATION), help=EXPLAIN_HELP)
    if config is not None:
        released = parser.add_argument_group("released flags")
        released.add_argument("--gradcam_mode", choices=("itm", "itc"), help="what is explained")
        released.add_argument("--block_num", type=int, help="text layer (itm) or image block (itc)")
        released.add_argument("--evaluate", action="store_true", help="it always does")
    args = parser.parse_args(argv)
    if len(args.config) != len(args.checkpoint):
        parser.error(f"{len(args.config)} --config and {len(args.checkpoint)} --checkpoint")
    for key, name in (("mode", "gradcam_mode"), ("block", "block_num")):
        if getattr(args, name, None) is not None:
            args.set.append(f"model.explanation.{key}={getattr(args, name)}")
    if args.explain == PERTURBATION:
        args.set.append(f"heatmaps={PERTURBATION}")
    elif args.explain:
        args.set.append(f"model.explanation.method={args.explain}")
    return args


def run(
    config: RunConfig,
    checkpoints: Path,
    output_dir: Path,
    device: torch.device,
    *,
    splits: Sequence[str],
    again: bool = False,
) -> list[Row]:
    """`main` with everything parsed."""
    require_splits(config, splits)
    system = SYSTEMS[config.system]
    form = FORMS[system.samples]
    first = checkpoint_files(checkpoints)[0]  # a wrong path is said before the data are read
    tokenizer = load_texts(config, first)
    parts = built(config, tokenizer, device)
    evaluation = form.evaluation(config, splits, tokenizer)
    files = form.evaluation_files(config, splits)
    write_manifest(
        output_dir, to_dict(config), seed=config.seed, files=files, name=MANIFEST, **system.beside
    )

    def predict_with(file: Path) -> tuple[list[Prediction], Remarks]:
        require_same_words(tokenizer, file)
        logger.info("%s", system.load(parts.model, file))
        return predict(config, parts, evaluation, device, name=file.name)

    rows = evaluate_checkpoints(
        checkpoints,
        output_dir,
        lambda file: form.describe(config, file, splits),
        predict_with,
        settings=to_dict(config),
        annotations=files,
        again=again,
    )
    if utils.is_main() and system.samples == "image_text":
        write_released_log(output_dir, rows)
    return rows


def built(config: RunConfig, tokenizer: Tokenizer, device: torch.device) -> Parts:
    """The system, ready to be evaluated once its weights are loaded."""
    parts = SYSTEMS[config.system].build(config.model, tokenizer, training=False)
    if config.heatmaps == PERTURBATION:
        perturbation = Perturbation(parts)
        parts = replace(parts, evaluated=perturbation, postprocess=perturbation.postprocess)
    parts.evaluated.to(device).eval()
    return parts


def require_splits(config: RunConfig, splits: Sequence[str]) -> None:
    """Raises ValueError: no splits, or one that the configuration does not have."""
    known = config.evaluated_splits
    if not splits:
        raise ValueError("data.evaluate names no split; give its annotation files there")
    for split in splits:
        if split not in known:
            raise ValueError(
                f"split {split!r}: the configuration has no annotation of it in data.evaluate, "
                f"which names {', '.join(known) or 'none'}"
            )


def groundings(
    config: RunConfig, parts: Parts, evaluation: Evaluation, device: torch.device, *, name: str
) -> Iterator[tuple[EvalBatch, list[Grounding]]]:
    """(batch, its groundings) of every batch of this process that has an image."""
    return engine.evaluate(
        parts.evaluated,
        parts.postprocess,
        evaluation.loader,
        device=device,
        precision=config.precision,
        progress=lambda found: tqdm(
            found, desc=name, unit="batch", disable=not utils.is_main(), mininterval=1.0
        ),
    )


def predict(
    config: RunConfig,
    parts: Parts,
    evaluation: Evaluation,
    device: torch.device,
    *,
    name: str = "validation",
) -> tuple[list[Prediction], Remarks]:
    """Ground every expression.

    Returns:
        The predictions of all processes in the order of the data set, and what is to be said of
        them.
    """
    mine: list[tuple[int, Prediction]] = []
    remarks = Remarks()
    for batch, found in groundings(config, parts, evaluation, device, name=name):
        remarks.add(batch)
        for row, grounding in enumerate(found):
            sample = batch["sample_index"][int(batch["phrase_image"][row])]
            mine.append((sample, evaluation.prediction(batch, row, grounding)))
    everyone = [item for part in utils.all_gather_objects(mine) for item in part]
    remarks = remarks.gathered()
    predictions = [prediction for _, prediction in sorted(everyone, key=lambda item: item[0])]
    require_predictions(predictions, remarks)
    return predictions, remarks


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

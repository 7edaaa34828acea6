"""Evaluating any system: the job behind test.py and the grounding_eval_singlegpu*.py scripts."""

import argparse
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from groundwork import engine, utils
from groundwork.dataset.batches import EvalBatch
from groundwork.files.manifest import reading, write_manifest
from groundwork.geometry import Grounding
from groundwork.jobs import arguments
from groundwork.jobs.benchmark_files import require_benchmark
from groundwork.jobs.evaluation import (
    MANIFEST,
    Remarks,
    checkpoint_files,
    evaluate_checkpoints,
    require_predictions,
)
from groundwork.jobs.folders import (
    RESULTS_HELP,
    RUNS,
    names_apart,
    require_writable,
    results_folder,
    run_folder,
)
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
Answered = tuple[EvalBatch, list[Grounding]]
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
        jobs = planned(args, together, defaults)
        names = names_apart([file for job in jobs for file in checkpoint_files(job.checkpoints)])
        for job in jobs:
            rows = merge_rows(rows, run(job, device, names=names, again=args.again))
        if together is not None and utils.is_main():
            update_rows(together / "results.json", rows)
            write_report(together, rows, [], title="Compared")
            logger.info("report: %s\n%s", together / "index.html", markdown(rows))
        return rows


@dataclass(frozen=True)
class Planned:
    """One of the evaluations of a command: configuration, file or folder of checkpoints, splits,
    and the folder that receives results.json, the report, and predictions per checkpoint."""

    config: RunConfig
    checkpoints: Path
    splits: Sequence[str]
    output_dir: Path


def planned(
    args: argparse.Namespace, together: Path | None, defaults: Mapping[str, Any] | None
) -> list[Planned]:
    """What the command asks for, all of it looked at before the first is begun; `together`: the
    folder of several configurations' table.

    Raises:
        FileNotFoundError, ValueError: a configuration, a checkpoint or a split that there is not;
            a folder that cannot be written to; two evaluations whose rows would be the same ones.
    """
    jobs: list[Planned] = []
    about: dict[tuple[str, str | None, Path], str] = {}
    for source, checkpoint in zip(args.config, args.checkpoint, strict=True):
        config = arguments.load(args, config=source, purpose="evaluation", defaults=defaults)
        splits = args.split or config.evaluated_splits
        require_splits(config, splits, source)
        for file in checkpoint_files(Path(checkpoint)):
            key = (config.system, config.benchmark, file.absolute())
            if key in about:
                raise ValueError(
                    f"--config {about[key]} and {source} evaluate {file} on one benchmark, so that"
                    " a table cannot tell their rows apart; evaluate them one at a time, each with"
                    " an --output_dir of its own"
                )
            about[key] = source
        folder = Path(args.output_dir or results_folder(source))
        if together is not None:
            folder = together / run_folder(source).relative_to(RUNS)
        require_writable(folder)
        jobs.append(Planned(config, Path(checkpoint), splits, folder))
    return jobs


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
    job: Planned, device: torch.device, *, names: Mapping[Path, str], again: bool = False
) -> list[Row]:
    """One of the evaluations of `main`; `names`: what its rows call the checkpoint files."""
    config, splits, output_dir = job.config, job.splits, job.output_dir
    system = SYSTEMS[config.system]
    form = FORMS[system.samples]
    tokenizer = load_texts(config, checkpoint_files(job.checkpoints)[0])
    parts = built(config, tokenizer, device)
    files = form.evaluation_files(config, splits)
    with reading(files) as data:
        evaluation = form.evaluation(config, splits, tokenizer)

    def predict_with(file: Path) -> tuple[list[Prediction], Remarks]:
        require_same_words(tokenizer, file)
        logger.info("%s", system.load(parts.model, file))
        return predict(config, parts, evaluation, device, name=file.name)

    rows = evaluate_checkpoints(
        job.checkpoints,
        output_dir,
        lambda file: replace(form.describe(config, file, splits), checkpoint=names[file]),
        predict_with,
        settings=to_dict(config),
        annotations=files,
        again=again,
    )
    # Last: an evaluation that fails leaves nothing that looks like one.
    write_manifest(
        output_dir, to_dict(config), seed=config.seed, data=data, name=MANIFEST, **system.beside
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


def require_splits(config: RunConfig, splits: Sequence[str], source: str) -> None:
    """Raises ValueError: no splits, one that the configuration `source` does not have, or a
    benchmark that its files are not of."""
    known = config.evaluated_splits
    if not splits:
        raise ValueError(f"{source}: data.evaluate names no split; give its annotation files there")
    for split in splits:
        if split not in known:
            raise ValueError(
                f"{source}: split {split!r}: the configuration has no annotation of it in "
                f"data.evaluate, which names {', '.join(known) or 'none'}"
            )
    require_benchmark(config, source)


def groundings(
    config: RunConfig, parts: Parts, evaluation: Evaluation, device: torch.device, *, name: str
) -> Iterator[Answered]:
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
    until: Callable[[Iterable[Answered]], Iterable[Answered]] = iter,
) -> tuple[list[Prediction], Remarks]:
    """Ground every expression.

    Args:
        until: is around the answered batches, and may raise what ends the evaluation.

    Returns:
        The predictions of all processes in the order of the data set, and what is to be said of
        them.
    """
    mine: list[tuple[int, Prediction]] = []
    remarks = Remarks()
    for batch, found in until(groundings(config, parts, evaluation, device, name=name)):
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

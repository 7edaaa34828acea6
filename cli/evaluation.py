"""Evaluating checkpoints one after the other: what all evaluation scripts do with predictions."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import engine
import utils
from report.pages import Samples, markdown, write_report
from report.predictions import Prediction, Run, file_name, read_predictions, write_predictions
from report.results import chance_rows, merge_rows, score_rows, update_rows

logger = logging.getLogger("groundwork")
# Beside a training run, whose log and manifest it must not touch.
LOG, MANIFEST = "evaluations.txt", "evaluation_manifest.json"
_HOW_IT_IS_READ = ("workers", "cache_dir")
"""Keys of a configuration's `data` that no number depends on."""


@dataclass
class Remarks:
    """What is to be said about an evaluation.

    corrupt: paths of pictures that could not be decoded and were left out.
    faults: what cannot be used as annotated and was used as released, a line each.
    """

    corrupt: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, batch: dict[str, Any]) -> None:
        """Take note of an evaluation batch."""
        self.corrupt += batch["corrupt"]
        self.faults += batch["faults"]

    def gathered(self) -> Remarks:
        """Those of all processes; every one must call this."""
        parts = utils.all_gather_objects(self)
        return Remarks(
            [path for part in parts for path in part.corrupt],
            [line for part in parts for line in part.faults],
        )


def checkpoint_files(path: Path) -> list[Path]:
    """The file itself, or the `*.pth` files of a folder in name order.

    Raises:
        FileNotFoundError: neither.
    """
    files = [path] if path.is_file() else sorted(path.glob("*.pth"))
    if not files:
        raise FileNotFoundError(
            f"--checkpoint {path}: no such file, and no folder with *.pth files"
        )
    return files


def evaluate_checkpoints(
    checkpoints: Path,
    output_dir: Path,
    describe: Callable[[Path], Run],
    predict: Callable[[Path], tuple[list[Prediction], Remarks]],
    *,
    settings: Mapping[str, Any],
    annotations: Iterable[Path | str],
    again: bool,
) -> list[dict]:
    """Evaluate a checkpoint, or every one of a folder; write predictions, rows and report.

    In a process group everybody predicts and the main process writes.

    Args:
        checkpoints: a file or a folder.
        output_dir: receives results.json, the report, and a folder of predictions per checkpoint.
        describe: checkpoint -> the columns that all rows about it share.
        predict: checkpoint -> all predictions (of all processes), and what is to be said of them.
        settings: the configuration as plain dicts. annotations: the files that are read. With the
            weights they decide whether an earlier evaluation is the same one.
        again: evaluate also what has results.

    Returns:
        The rows of results.json about these checkpoints.
    """
    files = checkpoint_files(checkpoints)
    log = utils.JsonLines(output_dir / LOG)
    rows: list[dict] = []
    samples: list[Samples] = []
    identity_of = evaluation_identity(settings, annotations)
    for file in files:
        folder = output_dir / file.stem
        about = describe(file)
        about = replace(about, identity=identity_of(file, about))
        earlier = None if again else earlier_evaluation(folder, about)
        if earlier is not None:
            logger.info("%s: already evaluated, see %s (--again evaluates anew)", file, folder)
            about, predictions = earlier
        else:
            began = time.perf_counter()
            predictions, remarks = predict(file)
            seconds = time.perf_counter() - began
            about = with_remarks(about, remarks, folder)
            if utils.is_main():
                write_predictions(folder, about, predictions)
            log.append(log_line(about, predictions, remarks, seconds))
        new = score_rows(about, predictions) + chance_rows(about, predictions)
        rows = merge_rows(rows, new)
        if utils.is_main():
            update_rows(output_dir / "results.json", new)
        samples.append(Samples(about, predictions, Path(about.image_root)))
    if utils.is_main():
        write_report(output_dir, rows, samples, title=about.benchmark, seed=about.seed)
    logger.info("report: %s\n%s", output_dir / "index.html", markdown(rows))
    return rows


def evaluation_identity(
    settings: Mapping[str, Any], annotations: Iterable[Path | str]
) -> Callable[[Path, Run], str]:
    """(checkpoint, what is evaluated) -> what tells this evaluation from every other: a hash of the
    content of weights, configuration and annotation files."""
    data = {key: value for key, value in settings["data"].items() if key not in _HOW_IT_IS_READ}
    shared = [json.dumps({**settings, "data": data}, sort_keys=True, default=str)]
    shared += [content_hash(file) for file in annotations]

    def identity(file: Path, about: Run) -> str:
        parts = [*shared, json.dumps(asdict(about), sort_keys=True), content_hash(file)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    return identity


def content_hash(path: Path | str) -> str:
    """SHA-256 of a whole file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def earlier_evaluation(folder: Path, about: Run) -> tuple[Run, list[Prediction]] | None:
    """What `folder` holds of the very same evaluation."""
    path = folder / f"predictions_{file_name(about.benchmark)}.jsonl"
    if not path.is_file():
        return None
    run, predictions = read_predictions(path)
    if run.identity == about.identity:
        return run, predictions
    logger.info(
        "%s holds an evaluation of other weights, settings or annotations, which this replaces",
        path,
    )
    return None


def with_remarks(about: Run, remarks: Remarks, folder: Path) -> Run:
    """The run with a note on what was left out or not used as annotated, which the log names."""
    note = about.note
    if remarks.corrupt:
        logger.warning(
            "%d images cannot be decoded and are left out, with their phrases: %s",
            len(remarks.corrupt),
            ", ".join(remarks.corrupt),
        )
        note += f", {len(remarks.corrupt)} corrupt images left out"
    faults = engine.FaultLog(folder)
    faults.add(remarks.faults)
    if count := faults.write():
        note += f", {count} expressions not as annotated"
    return replace(about, note=note)


def require_predictions(predictions: Sequence[Prediction], remarks: Remarks) -> None:
    """Raises ValueError if every picture was corrupt, so that there is nothing to score."""
    if not predictions:
        raise ValueError(
            f"no image can be decoded, {', '.join(remarks.corrupt[:1])} for one; fetch them again"
        )


def below(path: str, folder: str) -> str:
    """A path relative to `folder` if it lies there; predictions can then move with their images."""
    inside = Path(path).is_relative_to(folder)
    return str(Path(path).relative_to(folder)) if inside else path


def log_line(
    about: Run, predictions: Sequence[Prediction], remarks: Remarks, seconds: float
) -> dict:
    """What `evaluations.txt` says about one checkpoint: every metric per split."""
    where = {"checkpoint": about.checkpoint, "benchmark": about.benchmark, "note": about.note}
    line: dict[str, object] = dict(where)
    for row in score_rows(about, predictions):
        line[f"{row['split']} {row['metric']}"] = row["value"]
    if remarks.corrupt:
        line["corrupt_images_left_out"] = len(remarks.corrupt)
    if remarks.faults:
        line["expressions_not_as_annotated"] = len(set(remarks.faults))
    return line | {"phrases": len(predictions), "phrases_per_second": len(predictions) / seconds}

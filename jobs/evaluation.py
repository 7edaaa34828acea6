"""Evaluating checkpoints one after the other: what all evaluation scripts do with predictions."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from groundwork import engine, utils
from groundwork.dataset.batches import EvalBatch
from groundwork.files.json_lines import JsonLines
from groundwork.files.lock import held
from groundwork.report.detail import write_detail
from groundwork.report.pages import Samples, markdown, write_report
from groundwork.report.prediction_files import file_name, read_predictions, write_predictions
from groundwork.report.predictions import Prediction, Run
from groundwork.report.results import (
    Row,
    chance_rows,
    forget_rows,
    merge_rows,
    score_rows,
    update_rows,
)

logger = logging.getLogger("groundwork")
# Beside a training run, whose log and manifest it must not touch.
LOG, MANIFEST = "evaluations.txt", "evaluation_manifest.json"
TRAINING_LOG = "log.txt"
# Hits and misses that the page shows of a checkpoint: of one of a folder of many fewer.
_FEW, _IMAGES, _IMAGES_OF_MANY = 3, 9, 3
# Seconds that another evaluation may take to write its results to the same folder.
_PATIENCE = 60.0
_NO_NUMBERS = ("workers", "cache_dir", "splits")
"""Keys of a configuration's `data` that no number of a split depends on."""


@dataclass
class Remarks:
    """What is to be said about an evaluation.

    corrupt: paths of images that could not be decoded and were left out.
    faults: what cannot be used as annotated and was used as released, a line each.
    """

    corrupt: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, batch: EvalBatch) -> None:
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
) -> list[Row]:
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
    log = JsonLines(output_dir / LOG)
    rows: list[Row] = []
    samples: list[Samples] = []
    pages: list[str] = []
    each = _IMAGES if len(files) <= _FEW else _IMAGES_OF_MANY
    identified = evaluation_identity(settings, annotations)
    for file in files:
        about = identified(file, describe(file))
        folder = (output_dir / about.checkpoint).with_suffix("")
        earlier = stored_evaluation(folder, about.benchmark)
        if earlier is not None and earlier[0].identity == about.identity and not again:
            logger.info("%s: already evaluated, see %s (--again evaluates anew)", file, folder)
            about, predictions = earlier
        else:
            if utils.is_main() and output_dir.is_dir():
                forget_others(output_dir, about, earlier)
            about, predictions, line = evaluated_anew(file, about, folder, predict, identified)
            # The log first: what is in the folder counts as done, and is not said again.
            log.append(line)
            if utils.is_main():
                with alone(output_dir):
                    write_predictions(folder, about, predictions)
        new = score_rows(about, predictions) + chance_rows(about, predictions)
        rows = merge_rows(rows, new)
        if utils.is_main():
            with alone(output_dir):
                update_rows(output_dir / "results.json", new)
            pages.append(write_page_of(about, predictions, folder, file))
        samples.append(Samples.of(about, predictions, each=each, seed=about.seed))
    if utils.is_main():
        write_report(output_dir, rows, samples, title=about.benchmark, pages=pages)
    logger.info("report: %s\n%s", output_dir / "index.html", markdown(rows))
    return rows


def evaluated_anew(
    file: Path,
    about: Run,
    folder: Path,
    predict: Callable[[Path], tuple[list[Prediction], Remarks]],
    identified: Callable[[Path, Run], Run],
) -> tuple[Run, list[Prediction], dict[str, object]]:
    """The evaluation of one checkpoint, and what the log says about it.

    Raises:
        ValueError: the file is another one by now, so that nobody knows of which weights it is.
    """
    began = time.perf_counter()
    predictions, remarks = predict(file)
    seconds = time.perf_counter() - began
    if identified(file, about).origin != about.origin:
        raise ValueError(
            f"{file} was replaced while it was evaluated, perhaps by a training that goes on;"
            " evaluate it again"
        )
    about = with_remarks(about, remarks, folder)
    return about, predictions, log_line(about, predictions, remarks, seconds)


def alone(output_dir: Path) -> AbstractContextManager[None]:
    """Keeps other evaluations in one folder from writing what this one has read."""
    return held(output_dir, "writes results", patience=_PATIENCE)


def write_page_of(
    about: Run, predictions: Sequence[Prediction], folder: Path, checkpoint: Path
) -> str:
    """The page of one evaluation, with the curves of the training run that the checkpoint is of;
    returns its path beside the folder."""
    name, curves = f"{file_name(about.benchmark)}.html", checkpoint.with_name(TRAINING_LOG)
    log = curves if curves.is_file() else None
    write_detail(folder / name, about, predictions, log=log)
    return f"{folder.name}/{name}"


def evaluation_identity(
    settings: Mapping[str, Any], annotations: Iterable[Path | str]
) -> Callable[[Path, Run], Run]:
    """(checkpoint, what is evaluated) -> the latter with what tells it from every other evaluation:
    hashes of the content of weights, configuration and annotation files."""
    data = {key: value for key, value in settings["data"].items() if key not in _NO_NUMBERS}
    configuration = json.dumps({**settings, "data": data}, sort_keys=True, default=str)
    read = [content_hash(file) for file in annotations]

    def identified(file: Path, about: Run) -> Run:
        origin = text_hash(configuration, content_hash(file))
        asked = json.dumps(asdict(about), sort_keys=True)
        return replace(about, origin=origin, identity=text_hash(origin, asked, *read))

    return identified


def text_hash(*parts: str) -> str:
    """SHA-256 of some texts in a row."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def content_hash(path: Path | str) -> str:
    """SHA-256 of a whole file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def stored_evaluation(folder: Path, benchmark: str) -> tuple[Run, list[Prediction]] | None:
    """What `folder` holds of an evaluation on the benchmark."""
    path = folder / f"predictions_{file_name(benchmark)}.jsonl"
    return read_predictions(path) if path.is_file() else None


def forget_others(
    output_dir: Path, about: Run, earlier: tuple[Run, list[Prediction]] | None
) -> None:
    """Take the rows of results.json away that are about another checkpoint or configuration of the
    same name; of the same one, those of other splits stay."""
    same = earlier is not None and earlier[0].origin == about.origin
    forgotten = 0
    if not same:
        with alone(output_dir):
            forgotten = forget_rows(output_dir / "results.json", about.checkpoint, about.benchmark)
    if forgotten or (earlier is not None and earlier[0].identity not in ("", about.identity)):
        logger.info(
            "%s holds an evaluation of other weights, settings or annotations as %s, which this"
            " replaces",
            output_dir, about.checkpoint,
        )  # fmt: skip


def with_remarks(about: Run, remarks: Remarks, folder: Path) -> Run:
    """The run with a note on what was left out or not used as annotated, which the log names.

    One that left images out is no other evaluation's equal: the same command asks again whether
    they are there by now.
    """
    note, identity = about.note, about.identity
    if remarks.corrupt:
        logger.warning(
            "%d images cannot be decoded and are left out, with their phrases: %s",
            len(remarks.corrupt),
            ", ".join(remarks.corrupt),
        )
        note += f", {len(remarks.corrupt)} corrupt images left out"
        identity = ""
    faults = engine.FaultLog(folder)
    faults.add(remarks.faults)
    if count := faults.write():
        note += f", {count} expressions not as annotated"
    return replace(about, note=note, identity=identity)


def require_predictions(predictions: Sequence[Prediction], remarks: Remarks) -> None:
    """Raises ValueError if every image was corrupt, so that there is nothing to score."""
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
) -> dict[str, object]:
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

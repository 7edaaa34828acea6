"""Rows of results.json: made from predictions, merged, read and written.

A row is {system, objective, checkpoint, benchmark, split, metric, value, low, high, n, derived,
note}; see metrics.py. `rescore` computes the rows from a predictions file alone, with the same
function that the evaluation used, so a score can be checked or extended without the model and
its pictures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import metrics
import utils
from report.predictions import Prediction, Run, read_predictions

Row = dict[str, object]
ROW_KEY = ("system", "objective", "checkpoint", "benchmark", "split", "metric")
# None only where `Metric.concerns` excludes the prediction.
Measure = Callable[[Prediction], float | None]


class Metric(NamedTuple):
    """How one metric is taken from a prediction.

    concerns: does the prediction have what the metric needs; measure: its value; native: the
    output that the system must give itself for the row not to be called derived; scale: 100 for
    percent, 1 for a metric with a unit of its own.
    """

    concerns: Callable[[Prediction], bool]
    measure: Measure
    native: str = "point"
    scale: float = 100


def _always(_: Prediction) -> bool:
    return True


def _has_paraphrase(prediction: Prediction) -> bool:
    return prediction.paraphrase_point is not None


METRICS: dict[str, Metric] = {
    "pointing": Metric(_always, lambda p: p.hit),
    "proposal@0.5": Metric(
        lambda p: p.proposal_index is not None, lambda p: p.proposal_correct, native=""
    ),
    "box@0.5": Metric(
        lambda p: p.box is not None, lambda p: metrics.box_correct(p.box, p.boxes), native="box"
    ),
    "paraphrase pointing": Metric(_has_paraphrase, lambda p: p.paraphrase_hit),
    "same object": Metric(_has_paraphrase, lambda p: p.same_object),
    "both correct": Metric(_has_paraphrase, lambda p: p.hit and p.paraphrase_hit),
    "map correlation": Metric(
        lambda p: p.correlation is not None, lambda p: p.correlation, native="", scale=1
    ),
}


def score_rows(run: Run, predictions: Sequence[Prediction]) -> list[Row]:
    """Every metric that the predictions allow, per split, as rows of results.json.

    A metric concerns an evaluation if any prediction has what it needs. "box@0.5" then counts
    predictions without a box as misses. Intervals are clustered by picture.

    Raises:
        ValueError: neither predictions nor `run.splits`.
    """
    rows: list[Row] = []
    for name, metric in METRICS.items():
        chosen = [prediction for prediction in predictions if metric.concerns(prediction)]
        if not chosen and name != "pointing":
            continue
        if name == "box@0.5":
            chosen = list(predictions)
        derived = metric.native in run.derived
        rows += _rows(run, name, chosen, metric.measure, scale=metric.scale, derived=derived)
    return rows


def chance_rows(run: Run, predictions: Sequence[Prediction]) -> list[Row]:
    """What the centre of the picture and a random point would score: systems centre, random."""
    trivial: dict[str, Measure] = {
        "centre": lambda p: metrics.centre_hit(p.size, p.boxes),
        "random": lambda p: metrics.random_hit_probability(p.size, p.boxes),
    }
    rows: list[Row] = []
    for system, measure in trivial.items():
        chance = replace(run, system=system, objective="", checkpoint="", note="")
        rows += _rows(chance, "pointing", predictions, measure)
    return rows


def _rows(
    run: Run,
    metric: str,
    predictions: Sequence[Prediction],
    measure: Measure,
    *,
    scale: float = 100,
    derived: bool = False,
) -> list[Row]:
    keys = {name: getattr(run, name) for name in ("system", "objective", "checkpoint", "benchmark")}
    return metrics.accuracy_rows(
        [cast(float, measure(prediction)) for prediction in predictions],
        [prediction.split for prediction in predictions],
        keys={**keys, "metric": metric, "derived": derived, "note": run.note},
        groups=[prediction.image for prediction in predictions],
        expected_splits=run.splits or None,
        seed=run.seed,
        scale=scale,
    )


def predictions_files(path: Path | str) -> list[Path]:
    """The predictions files of a folder and its sub-folders in name order, or the file itself.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(path)
    found = [path] if path.is_file() else sorted(path.rglob("predictions_*.jsonl"))
    if not found:
        raise FileNotFoundError(f"no predictions_*.jsonl in {path}; evaluate a checkpoint first")
    return found


def rescore(path: Path | str) -> list[Row]:
    """All rows of a predictions file, or of every one in a folder, chance rows included.

    Points, boxes and proposals are scored anew against the stored truth; no stored verdict is
    trusted and no model is needed.
    """
    rows: list[Row] = []
    for file in predictions_files(path):
        run, predictions = read_predictions(file, heatmaps=False)
        rows = merge_rows(rows, score_rows(run, predictions) + chance_rows(run, predictions))
    return rows


def merge_rows(
    old: Iterable[Mapping[str, object]], new: Iterable[Mapping[str, object]]
) -> list[Row]:
    """Rows of both; of rows with the same key the newest, at the place of the oldest."""
    merged: dict[tuple[object, ...], Row] = {}
    for row in (*old, *new):
        merged[tuple(row[name] for name in ROW_KEY)] = dict(row)
    return list(merged.values())


def read_rows(path: Path | str) -> list[Row]:
    """The rows of a results.json.

    Raises:
        FileNotFoundError, ValueError: absent, or not a list of rows; names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no results file {path}; run an evaluation first")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        merge_rows([], rows)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a list of result rows ({error!r}); delete it") from error
    return rows


def update_rows(path: Path | str, rows: Iterable[Mapping[str, object]]) -> list[Row]:
    """Merge rows into a results.json, which is replaced in one step; returns all its rows."""
    path = Path(path)
    merged = merge_rows(read_rows(path) if path.exists() else [], rows)
    utils.write_text(path, json.dumps(merged, indent=1, allow_nan=False) + "\n")
    return merged

"""Rows of results.json: made from predictions, merged, read and written.

A row is {system, objective, checkpoint, benchmark, split, metric, value, low, high, n, derived,
note}; see `metrics`. `rescore` computes the rows from a predictions file alone, with the same
function that the evaluation used, so a score can be checked or extended without the model and
its images.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

from groundwork import metrics
from groundwork.files.foreign import parse_json, read_text
from groundwork.files.safe import write_text
from groundwork.geometry import Box, enclosing_box
from groundwork.report.prediction_files import predictions_files, read_predictions
from groundwork.report.predictions import Prediction, Run

Row = dict[str, object]
ROW_KEY = ("system", "objective", "checkpoint", "benchmark", "split", "metric")
ANY_BOX, MERGED_BOX = " (any box)", " (merged box)"
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
# None only where `Metric.given` and `Metric.counts` exclude the prediction.
Measure = Callable[[Prediction], float | None]


class Metric(NamedTuple):
    """How one metric is taken from predictions.

    given: does the prediction have what the metric needs; an evaluation in which none does has no
    such row. counts: which predictions enter the mean then, those that lack it as misses; None:
    those that have it. measure: the value; weight: of a weighted mean. native: the output that the
    system must give itself for the row not to be called derived; scale: 100 for percent, 1 for a
    metric with a unit of its own.
    """

    given: Callable[[Prediction], bool]
    measure: Measure
    native: str = "point"
    scale: float = 100
    counts: Callable[[Prediction], bool] | None = None
    weight: Measure | None = None


def _always(_: Prediction) -> bool:
    return True


def _has_paraphrase(prediction: Prediction) -> bool:
    return prediction.paraphrase_point is not None


def _has_box(prediction: Prediction) -> bool:
    return prediction.box is not None


def _merged(prediction: Prediction) -> tuple[Box, ...]:
    return (enclosing_box(prediction.boxes),) if prediction.boxes else ()


def _box_metrics(
    protocol: str, truth: Callable[[Prediction], tuple[Box, ...]], *, inclusive: bool
) -> dict[str, Metric]:
    def metric(measure: Measure) -> Metric:
        return Metric(_has_box, measure, "box", counts=_always)

    found = {
        f"Acc@0.5{protocol}": metric(lambda p: metrics.box_correct(p.box, truth(p))),
        f"box IoU{protocol}": metric(lambda p: metrics.box_iou(p.box, truth(p))),
    }
    if inclusive:
        found[f"Acc@0.5{protocol} (>=)"] = metric(
            lambda p: metrics.box_correct(p.box, truth(p), inclusive=True)
        )
    return found


def _has_masks(prediction: Prediction) -> bool:
    return prediction.mask is not None and prediction.true_mask is not None


def _has_true_mask(prediction: Prediction) -> bool:
    return prediction.true_mask is not None


def _means_nothing(prediction: Prediction) -> bool:
    return not prediction.boxes


def _means_something(prediction: Prediction) -> bool:
    return bool(prediction.boxes)


def _precision(threshold: float) -> Metric:
    return Metric(
        _has_masks,
        lambda p: metrics.reaches(p.mask_iou, threshold),
        "mask",
        counts=_has_true_mask,
    )


def _resized_metrics(run: Run, *, several: bool) -> dict[str, Metric]:
    """Those of masks in the network's size, where published codes take them."""

    def overlap_iou(prediction: Prediction) -> float:
        return metrics.mask_iou(prediction.resized_overlap(run.resampling))

    def metric(measure: Measure, weight: Measure | None = None) -> Metric:
        return Metric(
            lambda p: _has_true_mask(p) and p.resized_mask is not None,
            measure,
            "mask",
            counts=_has_true_mask,
            weight=weight,
        )

    def precision(threshold: float) -> Metric:
        return metric(lambda p: metrics.reaches(overlap_iou(p), threshold, inclusive=True))

    if several:
        union = metric(overlap_iou, weight=lambda p: p.resized_overlap(run.resampling)[1])
        return {"gIoU (resized)": metric(overlap_iou), "cIoU (resized)": union}
    found = {"mIoU (resized)": metric(overlap_iou)}
    if run.inclusive:
        found |= {f"Prec@{number} (resized, >=)": precision(number) for number in THRESHOLDS}
    return found


POINTING = Metric(_always, lambda p: p.hit)
PROPOSAL_METRICS: dict[str, Metric] = {
    "proposal@0.5": Metric(
        lambda p: p.proposal_index is not None, lambda p: p.proposal_correct, native=""
    ),
}
MASK_METRICS: dict[str, Metric] = {
    "mIoU": Metric(_has_masks, lambda p: p.mask_iou, "mask", counts=_has_true_mask),
    # The mean of the IoUs weighted by their unions is the sum of intersections over that of unions.
    "oIoU": Metric(
        _has_masks,
        lambda p: p.mask_iou,
        "mask",
        counts=_has_true_mask,
        weight=lambda p: p.mask_overlap[1],
    ),
    **{f"Prec@{number}": _precision(number) for number in THRESHOLDS},
}
SEVERAL_METRICS: dict[str, Metric] = {
    # gRefCOCO's own names; N-acc is the share of expressions of nothing for which nothing is found,
    # T-acc that of the others for which something is.
    "F1": Metric(_always, lambda p: p.all_found, "box"),
    "N-acc": Metric(_means_nothing, lambda p: not p.found, "box"),
    "T-acc": Metric(_means_something, lambda p: bool(p.found), "box"),
    "gIoU": MASK_METRICS["mIoU"],
    "cIoU": MASK_METRICS["oIoU"],
    "N-acc (mask)": Metric(
        lambda p: _has_masks(p) and _means_nothing(p), lambda p: p.empty_mask, "mask"
    ),
    "T-acc (mask)": Metric(
        lambda p: _has_masks(p) and _means_something(p), lambda p: not p.empty_mask, "mask"
    ),
}
PARAPHRASE_METRICS: dict[str, Metric] = {
    "paraphrase pointing": Metric(_has_paraphrase, lambda p: p.paraphrase_hit),
    "same object": Metric(_has_paraphrase, lambda p: p.same_object),
    "both correct": Metric(_has_paraphrase, lambda p: p.hit and p.paraphrase_hit),
    "map correlation": Metric(
        lambda p: p.correlation is not None, lambda p: p.correlation, native="", scale=1
    ),
}


def _map_metric(name: str) -> Metric:
    return Metric(
        lambda p: p.map_scores is not None, lambda p: getattr(p.map_scores, name), native=""
    )


MAP_METRICS: dict[str, Metric] = {
    "map energy": _map_metric("energy"),
    "map IoU (best)": _map_metric("best_iou"),
    "map IoU (half)": _map_metric("half_iou"),
    "pointing (expected)": _map_metric("expected_hit"),
    "shared maxima": _map_metric("shared"),
}
"""How the heat maps themselves fit to the boxes; the pointing game looks at one pixel."""


def _alternative_metrics(predictions: Sequence[Prediction]) -> dict[str, Metric]:
    """How right other boxes would have been, such as the best of those that were to choose from."""

    def accuracy(name: str) -> Metric:
        return Metric(
            lambda p: name in p.alternatives,
            lambda p: metrics.box_correct(p.alternatives[name], p.boxes),
            native="",
        )

    names = dict.fromkeys(name for prediction in predictions for name in prediction.alternatives)
    return {f"Acc@0.5 ({name})": accuracy(name) for name in names}


def _has_several_boxes(predictions: Iterable[Prediction]) -> bool:
    return any(len(prediction.boxes) > 1 for prediction in predictions)


def _pointing(run: Run, predictions: Sequence[Prediction]) -> str:
    """The name of the pointing game: a box around all boxes of a phrase is hit more easily than one
    of them."""
    merged = run.merged_boxes and not _has_several_boxes(predictions)
    return "pointing" + (MERGED_BOX if merged else "")


def metrics_of(run: Run, predictions: Sequence[Prediction]) -> dict[str, Metric]:
    """The metrics that may concern an evaluation, in the order of the table.

    Where phrases have several true boxes, both protocols in use for Flickr30k are named: a hit with
    any of the boxes, or with the box around all of them. Expressions of any number of targets have
    gRefCOCO's metrics and no others.
    """
    if any(prediction.several for prediction in predictions):
        return SEVERAL_METRICS | _resized_metrics(run, several=True)
    if _has_several_boxes(predictions):
        protocols = {ANY_BOX: lambda p: p.boxes, MERGED_BOX: _merged}
    else:
        protocols = {MERGED_BOX if run.merged_boxes else "": lambda p: p.boxes}
    boxes: dict[str, Metric] = {}
    for name, truth in protocols.items():
        boxes |= _box_metrics(name, truth, inclusive=run.inclusive)
    boxes |= _alternative_metrics(predictions)
    masks = MASK_METRICS | _resized_metrics(run, several=False)
    points = {_pointing(run, predictions): POINTING, **PROPOSAL_METRICS}
    return points | boxes | masks | PARAPHRASE_METRICS


def score_rows(run: Run, predictions: Sequence[Prediction], *, maps: bool = False) -> list[Row]:
    """Every metric that the predictions allow, per split, as rows of results.json; with `maps`
    those of heat maps, too, which take some milliseconds each.

    A metric concerns an evaluation if any prediction has what it needs. Box metrics then count
    predictions without a box as misses, mask metrics those without a mask as empty ones. Intervals
    are clustered by image.

    Raises:
        ValueError: neither predictions nor `run.splits`.
    """
    rows: list[Row] = []
    wanted = metrics_of(run, predictions) | (MAP_METRICS if maps else {})
    for name, metric in wanted.items():
        given = [prediction for prediction in predictions if metric.given(prediction)]
        if given and metric.counts is not None:
            given = [prediction for prediction in predictions if metric.counts(prediction)]
        if given or metric is POINTING:
            rows += _rows(run, name, given, metric)
    return rows


def chance_rows(run: Run, predictions: Sequence[Prediction]) -> list[Row]:
    """What the centre of the image and a random point would score: systems centre, random. For
    expressions of any number of targets what finding nothing would: system nothing."""
    if any(prediction.several for prediction in predictions):
        silent = replace(run, system="nothing", objective="", checkpoint="", note="", derived=())
        empty = [replace(one, found=(), mask=None) for one in predictions]
        return _rows(silent, "F1", empty, SEVERAL_METRICS["F1"])
    trivial: dict[str, Measure] = {
        "centre": lambda p: metrics.centre_hit(p.size, p.boxes),
        "random": lambda p: metrics.random_hit_probability(p.size, p.boxes),
    }
    rows: list[Row] = []
    name = _pointing(run, predictions)
    for system, measure in trivial.items():
        chance = replace(run, system=system, objective="", checkpoint="", note="")
        rows += _rows(chance, name, predictions, Metric(_always, measure, native=""))
    return rows


def _rows(run: Run, name: str, predictions: Sequence[Prediction], metric: Metric) -> list[Row]:
    keys = {key: getattr(run, key) for key in ("system", "objective", "checkpoint", "benchmark")}
    derived = metric.native in run.derived
    weight = metric.weight
    return metrics.accuracy_rows(
        [cast(float, metric.measure(prediction)) for prediction in predictions],
        [prediction.split for prediction in predictions],
        keys={**keys, "metric": name, "derived": derived, "note": run.note},
        groups=[prediction.image for prediction in predictions],
        weights=weight and [cast(float, weight(prediction)) for prediction in predictions],
        expected_splits=run.splits or None,
        seed=run.seed,
        scale=metric.scale,
    )


def rescore(path: Path | str, *, maps: bool = False) -> list[Row]:
    """All rows of a predictions file, or of every one in a folder, chance rows included; with
    `maps` those of the saved heat maps, too.

    Points, boxes and proposals are scored anew against the stored truth; no stored verdict is
    trusted and no model is needed.
    """
    rows: list[Row] = []
    for file in predictions_files(path):
        run, predictions = read_predictions(file, heatmaps=maps)
        new = score_rows(run, predictions, maps=maps) + chance_rows(run, predictions)
        rows = merge_rows(rows, new)
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
    rows = parse_json(read_text(path), str(path), "delete it")
    try:
        merge_rows([], rows)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a list of result rows ({error!r}); delete it") from error
    return rows


def forget_rows(path: Path | str, checkpoint: str, benchmark: str) -> int:
    """Drop the rows about a checkpoint on a benchmark from a results.json, if there is one; returns
    how many there were."""
    path = Path(path)
    rows = read_rows(path) if path.exists() else []
    kept = [row for row in rows if (row["checkpoint"], row["benchmark"]) != (checkpoint, benchmark)]
    if len(kept) < len(rows):
        _save_rows(path, kept)
    return len(rows) - len(kept)


def update_rows(path: Path | str, rows: Iterable[Mapping[str, object]]) -> list[Row]:
    """Merge rows into a results.json, which is replaced in one step; returns all its rows."""
    path = Path(path)
    merged = merge_rows(read_rows(path) if path.exists() else [], rows)
    _save_rows(path, merged)
    return merged


def _save_rows(path: Path, rows: Sequence[Row]) -> None:
    write_text(path, json.dumps(rows, indent=1, allow_nan=False) + "\n")

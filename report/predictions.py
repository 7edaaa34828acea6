"""The predictions of an evaluation, one per expression, and their files.

Files of one evaluation, `<benchmark>` with "/" written as "_":
  predictions_<benchmark>.jsonl   first line {"run": ...}, then one prediction per line
  heatmaps_<benchmark>.npz        the maps in the order of the predictions, float16, compressed
  attentions_<benchmark>.npz      other maps, of systems that have two kinds
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from groundwork import metrics, utils
from groundwork.geometry import (
    Box,
    Point,
    Resampling,
    Size,
    mask_to_runs,
    resize_mask,
    runs_to_mask,
)
from groundwork.metrics import several

Parsed = TypeVar("Parsed")
MAPS = ("heatmap", "attention")
"""The maps of a prediction, which have files of their own."""


@dataclass(frozen=True)
class Run:
    """What was evaluated on what; the columns that all rows of an evaluation share.

    derived: which of "point", "box", "mask" the system does not give itself.
    splits: the splits to report, in order; empty for those that occur.
    image_root: folder that `Prediction.image` is relative to, for the image sheet.
    merged_boxes: the annotation has one box around all boxes of a phrase, as ReSC's Flickr30k
        lists; says which of Flickr30k's protocols the rows follow.
    seed: of the bootstrap.
    opener: how its images were opened, see `dataset.images.OPENERS`.
    identity: hash of weights, configuration and annotation files, origin: of the first two alone;
        "" if it is not known.
    resampling: whose nearest pixel brings true masks to the network's size.
    inclusive: the rows of ALVG's protocol, which counts an IoU of exactly the threshold, stand
        beside the others.
    """

    system: str
    objective: str
    checkpoint: str
    benchmark: str
    derived: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    image_root: str = ""
    note: str = ""
    seed: int = 0
    merged_boxes: bool = False
    opener: str = "pillow"
    identity: str = ""
    origin: str = ""
    resampling: Resampling = "torchvision"
    inclusive: bool = False


@dataclass(frozen=True)
class Prediction:
    """One expression, its truth and what a system made of it.

    boxes: true boxes xyxy, without any of which nothing is right unless `several`; point: the
    predicted (x, y); score: match score; box: predicted box; proposal and proposal_index: the
    chosen one of the given proposals, (None, -1) when none scored, (None, None) when there were
    none to choose from; paraphrase, paraphrase_point, correlation: the same object in other words,
    the point predicted for it and the correlation of the two maps; objects: boxes of all objects of
    the image; mask, true_mask: run lengths (`counts` of `geometry.mask_to_runs`) of the predicted
    and of the true mask in `size`; resized_mask: those of the predicted mask in `resized_size` (h,
    w), the image's size in the network; heatmap: (h, w), kept in the .npz file; alternatives:
    other boxes by what they are, such as the best one (by the truth) of those that the system chose
    from; confidence: named numbers that say how sure the system is; several: any number of boxes
    was asked for, and `found` are those predicted, the best first, of `boxes` there may be none;
    attention: another map (h, w), kept in a file of its own.
    """

    id: str
    image: str
    split: str
    phrase: str
    size: Size
    point: Point
    boxes: tuple[Box, ...]
    score: float | None = None
    box: Box | None = None
    proposal: Box | None = None
    proposal_index: int | None = None
    paraphrase: str | None = None
    paraphrase_point: Point | None = None
    correlation: float | None = None
    objects: tuple[Box, ...] = ()
    mask: str | None = None
    true_mask: str | None = None
    resized_mask: str | None = None
    resized_size: Size | None = None
    heatmap: np.ndarray | None = field(default=None, compare=False, repr=False)
    alternatives: Mapping[str, Box] = field(default_factory=dict)
    confidence: Mapping[str, float] = field(default_factory=dict)
    several: bool = False
    found: tuple[Box, ...] = ()
    attention: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def hit(self) -> bool:
        """The pointing game: strictly inside any true box."""
        return metrics.pointing_any(self.point, self.boxes)

    @property
    def all_found(self) -> bool:
        """Every target found and nothing else (`several`)."""
        return several.all_found(self.found, self.boxes)

    @property
    def empty_mask(self) -> bool:
        """Is the predicted mask empty?"""
        return self.mask is None or not runs_to_mask(self.mask, self.size).any()

    @property
    def paraphrase_hit(self) -> bool:
        """The pointing game for the paraphrase."""
        return self.paraphrase_point is not None and metrics.pointing_any(
            self.paraphrase_point, self.boxes
        )

    @property
    def proposal_iou(self) -> float:
        """IoU of the chosen proposal with the best true box; 0 without one."""
        if self.proposal is None:
            return 0.0
        scores = (metrics.proposal_iou(self.proposal, box) for box in self.boxes)
        return max(scores, default=0.0)

    @property
    def proposal_correct(self) -> bool:
        """Does the chosen proposal reach IoU 0.5 with any true box?"""
        return any(metrics.proposal_correct(self.proposal, box) for box in self.boxes)

    @cached_property
    def mask_overlap(self) -> tuple[int, int]:
        """(intersection, union) in pixels of predicted and true mask; (0, 0) without a true one."""
        if self.true_mask is None:
            return 0, 0
        predicted = None if self.mask is None else runs_to_mask(self.mask, self.size)
        return metrics.mask_overlap(predicted, runs_to_mask(self.true_mask, self.size))

    @property
    def mask_iou(self) -> float:
        """IoU of predicted and true mask in the original image."""
        return metrics.mask_iou(self.mask_overlap)

    def resized_overlap(self, resampling: Resampling) -> tuple[int, int]:
        """`mask_overlap` in the network's size, to which the true mask is brought by the nearest
        pixel; (0, 0) without a true mask or that size."""
        if self.true_mask is None or self.resized_size is None:
            return 0, 0
        size = self.resized_size
        truth = resize_mask(runs_to_mask(self.true_mask, self.size), size, resampling)
        found = None if self.resized_mask is None else runs_to_mask(self.resized_mask, size)
        return metrics.mask_overlap(found, truth)

    @property
    def same_object(self) -> bool:
        """Do phrase and paraphrase point into one object? Without `objects`: into a true box."""
        return self.paraphrase_point is not None and metrics.same_object(
            self.point, self.paraphrase_point, self.objects or self.boxes
        )


def runs_of(mask: np.ndarray | None) -> str | None:
    """The run lengths of an (H, W) mask as `Prediction` holds them; None without a mask."""
    return None if mask is None else mask_to_runs(mask)["counts"]


def file_name(benchmark: str) -> str:
    """The part of a file name that stands for a benchmark such as embedded/refcoco+."""
    return benchmark.replace("/", "_").replace("\\", "_").replace(" ", "_")


def write_predictions(
    folder: Path | str, run: Run, predictions: Sequence[Prediction], *, heatmaps: bool = True
) -> Path:
    """Save predictions (and, if they have any, their heat maps); returns the .jsonl path.

    Raises:
        ValueError: a number is not finite, which JSON cannot hold.
    """
    path = Path(folder) / f"predictions_{file_name(run.benchmark)}.jsonl"
    lines = [_dump({"run": asdict(run)}, "the run")]
    lines += [_dump(_prediction_line(item), item.id) for item in predictions]
    for kind in MAPS:
        maps = [getattr(prediction, kind) for prediction in predictions]
        if heatmaps and any(one is not None for one in maps):
            _write_heatmaps(_map_path(path, kind), maps)
        else:
            _map_path(path, kind).unlink(missing_ok=True)
    utils.write_text(path, "\n".join(lines) + "\n")
    return path


def read_predictions(path: Path | str, *, heatmaps: bool = True) -> tuple[Run, list[Prediction]]:
    """Read what `write_predictions` saved; heat maps come back as float32 where they were saved.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is not a prediction, named by file and number.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no predictions file {path}; run the evaluation that writes it")
    # Not splitlines(): a phrase may hold other characters that count as line ends.
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    run = _parse(path, 1, lines[0], _run_of)
    predictions = [
        _parse(path, number, line, _prediction_of) for number, line in enumerate(lines[1:], 2)
    ]
    for kind in MAPS:
        maps_path = _map_path(path, kind)
        if not (heatmaps and maps_path.is_file()):
            continue
        maps = _read_heatmaps(maps_path)
        if len(maps) != len(predictions):
            raise ValueError(
                f"{maps_path} holds {len(maps)} maps, {path} {len(predictions)} predictions; "
                "they are not of the same evaluation, evaluate again"
            )
        fields: list[dict[str, Any]] = [{kind: one} for one in maps]
        pairs = zip(predictions, fields, strict=True)
        predictions = [replace(prediction, **field) for prediction, field in pairs]
    return run, predictions


def _prediction_line(prediction: Prediction) -> dict[str, Any]:
    # Verdicts are written for people and other programs; reading ignores them.
    names = [name for name in Prediction.__dataclass_fields__ if name not in MAPS]
    line = {name: getattr(prediction, name) for name in names}
    line = {name: value for name, value in line.items() if value not in (None, (), {})}
    line["boxes"] = prediction.boxes  # of an expression that means nothing: none
    if prediction.several:
        line["all_found"] = prediction.all_found
    else:
        del line["several"]
        line["hit"] = prediction.hit
    if prediction.proposal is not None:
        line["proposal_iou"] = prediction.proposal_iou
    if prediction.paraphrase_point is not None:
        line["paraphrase_hit"] = prediction.paraphrase_hit
    return line


def _prediction_of(line: Mapping[str, Any]) -> Prediction:
    names = set(Prediction.__dataclass_fields__) - set(MAPS)
    values = {name: value for name, value in line.items() if name in names}
    return Prediction(**{name: _tuples(value) for name, value in values.items()})


def _run_of(line: Mapping[str, Any]) -> Run:
    return Run(**{name: _tuples(value) for name, value in line["run"].items()})


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _dump(line: dict[str, Any], name: str) -> str:
    try:
        return json.dumps(line, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError as error:
        raise ValueError(f"prediction {name} cannot be saved: {error}") from error


def _plain(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"cannot save a {type(value).__name__} in a predictions file")


def _parse(path: Path, number: int, line: str, build: Callable[[Any], Parsed]) -> Parsed:
    try:
        return build(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}:{number} is not a line of a predictions file ({error}); evaluate again"
        ) from error


def _map_path(path: Path, kind: str) -> Path:
    return path.with_name(f"{kind}s_" + path.stem.removeprefix("predictions_") + ".npz")


def _write_heatmaps(path: Path, maps: Sequence[np.ndarray | None]) -> None:
    arrays = [np.zeros((0, 0)) if heatmap is None else np.asarray(heatmap) for heatmap in maps]
    # Gradients make maps of any magnitude; divided by their largest value they fit float16.
    scales = np.array([np.abs(array).max(initial=0) for array in arrays], dtype=np.float32)
    values = [array / (scale or 1) for array, scale in zip(arrays, scales, strict=True)]
    with utils.atomic_write(path) as partial, partial.open("wb") as file:
        np.savez_compressed(
            file,
            values=np.concatenate([value.ravel() for value in values]).astype(np.float16),
            shapes=np.array([array.shape for array in arrays], dtype=np.int64),
            scales=scales,
        )


def _read_heatmaps(path: Path) -> list[np.ndarray | None]:
    with np.load(path) as data:
        values, shapes, scales = data["values"], data["shapes"], data["scales"]
    ends = shapes.prod(axis=1).cumsum()
    maps: list[np.ndarray | None] = []
    for end, shape, scale in zip(ends, shapes, scales, strict=True):
        part = values[end - shape.prod() : end].astype(np.float32) * scale
        maps.append(part.reshape(shape) if part.size else None)
    return maps

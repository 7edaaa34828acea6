"""The files of an evaluation's predictions, `<benchmark>` with "/" written as "_":

predictions_<benchmark>.jsonl   first line {"run": ...}, then one prediction per line
heatmaps_<benchmark>.npz        the maps in the order of the predictions, float16, compressed
attentions_<benchmark>.npz      other maps, of systems that have two kinds
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from groundwork.files.foreign import JSON, read_text
from groundwork.files.safe import atomic_write, write_text
from groundwork.report.predictions import Prediction, Run

Parsed = TypeVar("Parsed")
MAPS = ("heatmap", "attention")
"""The maps of a prediction, which have files of their own."""


def file_name(benchmark: str) -> str:
    """The part of a file name that stands for a benchmark such as embedded/refcoco+."""
    return benchmark.replace("/", "_").replace("\\", "_").replace(" ", "_")


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


def write_predictions(folder: Path | str, run: Run, predictions: Sequence[Prediction]) -> Path:
    """Save predictions (and, if they have any, their maps); returns the .jsonl path.

    Raises:
        ValueError: a number is not finite, which JSON cannot hold.
    """
    path = Path(folder) / f"predictions_{file_name(run.benchmark)}.jsonl"
    lines = [_dump({"run": asdict(run)}, "the run")]
    lines += [_dump(_prediction_line(item), item.id) for item in predictions]
    # First, so that maps are never beside the predictions of other weights, should this be killed.
    path.unlink(missing_ok=True)
    for kind in MAPS:
        maps = [getattr(prediction, kind) for prediction in predictions]
        if any(one is not None for one in maps):
            _write_maps(_map_path(path, kind), maps)
        else:
            _map_path(path, kind).unlink(missing_ok=True)
    write_text(path, "\n".join(lines) + "\n")
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
    lines = read_text(path).rstrip("\n").split("\n")
    run = _parse(path, 1, lines[0], _run_of)
    predictions = [
        _parse(path, number, line, _prediction_of) for number, line in enumerate(lines[1:], 2)
    ]
    for kind in MAPS:
        maps_path = _map_path(path, kind)
        if not (heatmaps and maps_path.is_file()):
            continue
        maps = _read_maps(maps_path)
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
        return build(JSON.decode(line))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path}:{number} is not a line of a predictions file ({error}); evaluate again"
        ) from error


def _map_path(path: Path, kind: str) -> Path:
    return path.with_name(f"{kind}s_" + path.stem.removeprefix("predictions_") + ".npz")


def _write_maps(path: Path, maps: Sequence[np.ndarray | None]) -> None:
    arrays = [np.zeros((0, 0)) if heatmap is None else np.asarray(heatmap) for heatmap in maps]
    # Gradients make maps of any magnitude; divided by their largest value they fit float16.
    scales = np.array([np.abs(array).max(initial=0) for array in arrays], dtype=np.float32)
    values = [array / (scale or 1) for array, scale in zip(arrays, scales, strict=True)]
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez_compressed(
            file,
            values=np.concatenate([value.ravel() for value in values]).astype(np.float16),
            shapes=np.array([array.shape for array in arrays], dtype=np.int64),
            scales=scales,
        )


def _read_maps(path: Path) -> list[np.ndarray | None]:
    with np.load(path) as data:
        values, shapes, scales = data["values"], data["shapes"], data["scales"]
    ends = shapes.prod(axis=1).cumsum()
    maps: list[np.ndarray | None] = []
    for end, shape, scale in zip(ends, shapes, scales, strict=True):
        part = values[end - shape.prod() : end].astype(np.float32) * scale
        maps.append(part.reshape(shape) if part.size else None)
    return maps

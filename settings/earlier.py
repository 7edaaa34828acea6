"""Keys, values and files of version 0.2 that have moved: what was written for it still works."""

import logging
from typing import Any

from groundwork.settings.parsing import join, merged, section

logger = logging.getLogger(__name__)

_HEAT_MAPS = {"objectives", "explanation", "flickr_data", "test_file", "train_file"}
_HEAT_MAPS |= {"relation_file", "refcoco_data"}


def earlier_name(name: str) -> str:
    """Where a small recipe lies that version 0.2 called `name`, a path below configs/."""
    return f"tiny/{name.removesuffix('_tiny')}"


def renamed(raw: dict[str, Any], where: str) -> dict[str, Any]:
    """A mapping with today's keys; what was renamed is said in the log.

    `objectives` and `explanation` are parts of `model`; `curriculum` is the stages before the last;
    data.train_file and data.relation_file are splits of data.train; `system` is named.
    """
    raw = dict(raw)
    moved: list[str] = []
    data, stages = dict(section(raw.get("data"), join(where, "data"))), raw.get("stages")
    stages = stages if isinstance(stages, list) else []
    if "system" not in raw:
        of_albef = any(isinstance(stage, dict) and "objective" in stage for stage in stages)
        of_albef |= bool(_HEAT_MAPS & (raw.keys() | data.keys()))
        raw |= {"system": "albef"} if of_albef else {"system": "reftr"} if data else {}
    data = _data(data, moved, where)
    raw |= {"data": data} if data else {}
    for key in ("objectives", "explanation"):
        if key in raw:
            moved.append(f"{key} is model.{key}")
            model = section(raw.get("model"), join(where, "model"))
            raw["model"] = {**model, key: merged(model.get(key), raw.pop(key))}
    model = section(raw.get("model"), join(where, "model"))
    explanation = section(model.get("explanation"), join(where, "model.explanation"))
    if explanation.get("region") == "half":
        moved.append("model.explanation.region half is largest")
        raw["model"] = {**model, "explanation": {**explanation, "region": "largest"}}
    if "curriculum" in raw:
        moved.append("curriculum is the stages before the last")
        first = raw.pop("curriculum")
        if not isinstance(first, list):
            raise ValueError(f"{where}: curriculum: expected a list of stages, got {first!r}")
        raw["stages"] = stages = [*first, *(stages[-1:] or [{}])]
    if stages:
        raw["stages"] = [_stage(one, moved) if isinstance(one, dict) else one for one in stages]
    if moved:
        logger.info("%s: keys of version 0.2: %s", where, "; ".join(dict.fromkeys(moved)))
    return raw


def _data(data: dict[str, Any], moved: list[str], where: str) -> dict[str, Any]:
    for key, split in (("train_file", "train"), ("relation_file", "relation")):
        if key in data:
            moved.append(f"data.{key} is data.train.{split}")
            if files := data.pop(key):  # checkpoints hold an empty list where there were none
                train = section(data.get("train"), join(where, "data.train"))
                data["train"] = {**train, split: files}
    if "pictures" in data:
        moved.append("data.pictures is data.crop")
        data["crop"] = "random" if data.pop("pictures") == "cropped" else "whole"
    return data


def _stage(stage: dict[str, Any], moved: list[str]) -> dict[str, Any]:
    stage = dict(stage)
    if "data" in stage:
        moved.append("a stage's data is its splits")
        stage["splits"] = [stage.pop("data")]
    if "train_file" in stage:
        moved.append("a stage's train_file is its train.train")
        if files := stage.pop("train_file"):
            stage["train"] = {"train": files}
            stage.pop("splits", None)
    return stage

"""The flat YAML files of the released ALBEF, AMC and SelfEQ repositories, translated to the schema
of this project.

One table (`ALIASES`) names every released key. A file is a released one if it has a key that only
they have. Reading it also turns on the released quirks, so that it trains what it trained there.
"""

import logging
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path, PurePath
from typing import Any

from groundwork.benchmarks import BENCHMARKS
from groundwork.files.foreign import parse_json, read_text
from groundwork.files.safe import require_file_name
from groundwork.models.albef.config import TextConfig
from groundwork.settings.parsing import join, merged, section, set_by_path, unknown_key
from groundwork.settings.run import RunConfig
from groundwork.settings.silent import without_effect

logger = logging.getLogger(__name__)

_OWN_KEYS = (*(f.name for f in fields(RunConfig)), "epochs", "steps", "objectives", "explanation")
NO_EFFECT = "no effect: "
"""Begins the entry of a released key that changes nothing; the reason follows."""

_ONE_RATE = NO_EFFECT + "the peak learning rate is the optimizer's lr"

_OPTIMIZER = {
    "opt": "name",
    "lr": "lr",
    "weight_decay": "weight_decay",
    "opt_betas": "betas",
    "opt_eps": "eps",
    "momentum": NO_EFFECT + "AdamW has betas instead",
}
_SCHEDULE = {
    "sched": "name",
    "lr": _ONE_RATE,
    "epochs": "epochs",
    "min_lr": "min_lr",
    "warmup_lr": "warmup_lr",
    "warmup_epochs": "warmup_epochs",
    "decay_rate": NO_EFFECT + "there is one cosine cycle, so nothing decays between cycles",
    "cooldown_epochs": NO_EFFECT + "the stages say how many epochs are trained",
}
_MODEL = {
    "image_res": "model.image_size",
    "vision_width": "model.vision_width",
    "embed_dim": "model.embed_dim",
    "queue_size": "model.queue_size",
    "momentum": "model.momentum",
    "temp": "model.temperature",
    "bert_config": "model.text",
}
_DISTILL = NO_EFFECT + "alpha says how much is distilled; 0 is none"
_WARM_UP = NO_EFFECT + "the schedule says how long the warm-up is"
_COCO_FILE = NO_EFFECT + "image sizes come from instances.json or the images themselves"

ALIASES: dict[str, dict[str, Any]] = {
    "training": {
        **_MODEL,
        "train_file": "data.train.train",
        "relation_file": "data.train.relation",
        "image_root": "data.image_root",
        "max_words": "data.max_words",
        "alpha": "model.objectives.itc_itm_mlm.alpha",
        "mlm_probability": "model.objectives.itc_itm_mlm.mlm_probability",
        "add_gcam": "add_gcam",
        "mask_all": "data.all_boxes",
        "mask_size": "data.mask_size",
        "phrase_input": NO_EFFECT + "the released code runs with captions as phrases only",
        "batch_size": "batch_size",
        "optimizer": ("optimizer", _OPTIMIZER),
        "schedular": ("schedule", _SCHEDULE),
        "relation_optimizer": ("relation.optimizer", _OPTIMIZER),
        "relation_schedular": ("relation.schedule", _SCHEDULE),
        "distill": _DISTILL,
        "warm_up": _WARM_UP,
        "coco_file": _COCO_FILE,
        "test_file": NO_EFFECT + "training evaluates nothing",
        "refcoco_data": NO_EFFECT + "training evaluates nothing",
        "det_file": NO_EFFECT + "training evaluates nothing",
    },
    "evaluation": {
        **_MODEL,
        "test_file": "data.test_file",
        "image_root": "data.image_root",
        "refcoco_data": "data.refcoco_data",
        "det_file": "data.det_file",
        "flickr_data": "data.flickr_data",
        "image_ids_file": "flickr.ids",
        "phrase_box_file": "flickr.boxes",
        "sentences_file": "flickr.sentences",
        "on_bbox": NO_EFFECT + "proposals are scored where det_file names some",
        "max_words": "data.max_words",
        "batch_size": "batch_size",
        "coco_file": _COCO_FILE,
        "distill": _DISTILL,
        "warm_up": _WARM_UP,
        "train_file": NO_EFFECT + "evaluation trains nothing",
        "alpha": NO_EFFECT + "evaluation trains nothing",
        "mlm_probability": NO_EFFECT + "evaluation trains nothing",
        "optimizer": NO_EFFECT + "evaluation trains nothing",
        "schedular": NO_EFFECT + "evaluation trains nothing",
    },
}
"""Released key -> path in the schema, or (path, table of the keys below), or NO_EFFECT + reason."""

_SHARED = ("batch_size", "optimizer")
_QUIRKS = {
    "model.objectives.itc_itm_mlm.mlm_distill_over": "tokens",
    "model.objectives.amc.amc_mean_over": "batch",
    "data.flip_swaps_words": False,
    "data.opener": "pillow",
    "data.sampling": "interleaved",
    "data.jitter_rule": "released",
    "data.randaugment_rule": "released",
    "data.paraphrase_rule": "released",
    "released_files": True,
}
_ALBEF_WORDS = 30
_NO_FILE = "/"
_ALBEF_CHECKPOINT_BERT = "config_bert.json"


def is_released(raw: dict, purpose: str) -> bool:
    """Whether a parsed YAML file is one of the released, flat ones."""
    return any(key in ALIASES[purpose] and key not in _SHARED for key in raw)


def translate(raw: dict, purpose: str, path: Path, defaults: dict[str, Any]) -> dict:
    """The nested mapping that says what a released file says.

    Keys of this project's schema may stand beside the released ones and win over them.

    Args:
        raw: the parsed file. path: where it lies; `bert_config` is looked up relative to it.
        defaults: dotted path -> value for what the file leaves open.

    Raises:
        ValueError: a key that neither the released files nor the schema know.
        FileNotFoundError: `bert_config` names a file that does not exist.
    """
    where, table = str(path), ALIASES[purpose]
    own = _OWN_KEYS
    nested: dict = {}
    silent: list[tuple[str, str]] = []
    for key, value in raw.items():
        if key in table:
            silent += _place(nested, table[key], key, value, where)
        elif key not in own:
            raise unknown_key(join(where, str(key)), str(key), [*table, *own])
    _read_bert_config(nested, path)
    for dotted, value in defaults.items():
        set_by_path(nested, dotted, value, where, replace=False)
    if purpose == "training":
        _add_released_training(nested, where)
    else:
        _add_released_evaluation(nested, where)
    for key in own:
        if key in raw and key not in table:
            nested[key] = merged(nested.get(key), raw[key])
    if silent:
        logger.info("%s: accepted without effect: %s", path, without_effect(silent))
    return nested


def take_paths_as_written(raw: dict, path: Path) -> None:
    """Lets the images of a released file without `image_root` be anywhere: its lists hold whole
    paths. What `data.allow_outside_paths` says itself stays."""
    data = raw.setdefault("data", {})
    if data.get("image_root") or "allow_outside_paths" in data:
        return
    data["allow_outside_paths"] = True
    logger.info("%s: no image_root: the paths of images are taken as the lists have them", path)


def _place(
    nested: dict, target: Any, key: str, value: Any, where: str
) -> Iterator[tuple[str, str]]:
    """Puts one released value where it belongs; yields (key, reason) for each without effect."""
    if isinstance(target, tuple):
        prefix, table = target
        set_by_path(nested, prefix, {}, where)
        for inner, inner_value in section(value, join(where, key)).items():
            if inner not in table:
                raise unknown_key(join(where, f"{key}.{inner}"), str(inner), table)
            goal = table[inner]
            goal = goal if goal.startswith(NO_EFFECT) else f"{prefix}.{goal}"
            yield from _place(nested, goal, f"{key}.{inner}", inner_value, where)
    elif target.startswith(NO_EFFECT):
        yield key, target.removeprefix(NO_EFFECT)
    elif value is not None:
        name = _NAMES.get(str(value).lower()) if target.endswith(".name") else None
        set_by_path(nested, target, name or value, where)


_NAMES = {"adamw": "adamw", "cosine": "cosine_epochs"}
"""Released names of optimisers and schedules."""


def _add_released_training(nested: dict, where: str) -> None:
    """Stages and quirks: those of SelfEQ with a relation file; of AMC with `add_gcam: true`; else
    of ALBEF's own pre-training, on random parts of images."""
    nested["system"] = "albef"
    for dotted, value in _QUIRKS.items():
        set_by_path(nested, dotted, value, where)
    own, explains = nested.pop("relation", {}), nested.pop("add_gcam", None)
    data = nested.setdefault("data", {})
    total = nested.get("schedule", {}).get("epochs", 30)
    if not isinstance(total, int):
        raise ValueError(f"{where}: schedular.epochs: expected a whole number, got {total!r}")
    if "relation" not in data.get("train", {}):
        objective = ["itc_itm_mlm", "amc"] if explains else ["itc_itm_mlm"]
        nested["stages"] = [{"objective": objective, "epochs": total}]
        if not explains:
            data["crop"] = "random"
            data.setdefault("max_words", _ALBEF_WORDS)
        return
    # The released first epoch only resizes its images.
    first = {"objective": "selfeq", "epochs": 1, "augment": False, **own}
    second = {"objective": "itc_itm_mlm", "epochs": total - 1}
    nested["stages"] = [first, second] if total > 1 else [first]


def _add_released_evaluation(nested: dict, where: str) -> None:
    """What the released scripts do with their files: RefCLEF's never opens `det_file`; Flickr30k's
    has its own image size, and takes its splits from the names of its lists."""
    benchmark, data = str(nested.get("benchmark", "")), nested.setdefault("data", {})
    nested["system"], data["opener"] = "albef", "pillow"
    lists = nested.pop("flickr", {})
    if benchmark.endswith("refclef") or data.get("det_file") == _NO_FILE:
        data.pop("det_file", None)
    if not benchmark.endswith("flickr30k"):
        return
    nested.setdefault("model", {})["image_size"] = BENCHMARKS["flickr30k"].image_size
    if lists:
        data |= _flickr_folders(lists, where)
    files = _paths(data.get("test_file"), join(where, "test_file"))
    first = files[0] if files else None
    if first is not None and "flickr_data" not in data:
        data["flickr_data"] = str(first.parent if first.suffix else first)


_FLICKR_NAMES = {
    "ids": ("image_ids_file", "{}.txt"),
    "boxes": ("phrase_box_file", "bounding_boxes_{}.json"),
    "sentences": ("sentences_file", "sentences_{}.json"),
}


def _paths(value: Any, where: str) -> list[PurePath]:
    """One path or a list of them; none where nothing stands."""
    found = [value] if isinstance(value, str) else value or []
    if not isinstance(found, list) or not all(isinstance(path, str) for path in found):
        raise ValueError(f"{where}: expected a path or a list of paths, got {value!r}")
    return [PurePath(path) for path in found]


def _flickr_folders(lists: dict[str, Any], where: str) -> dict[str, Any]:
    """`flickr_data`, `flickr_lists` and `splits` that mean the same files as three lists of them.

    Raises:
        ValueError: a list is missing, or its files are not named as info-ground names those of one
            folder.
    """
    named = {
        name: _paths(lists.get(name), join(where, key)) for name, (key, _) in _FLICKR_NAMES.items()
    }
    splits = [path.stem for path in named["ids"]]
    folders: dict[str, str] = {}
    for name, (key, pattern) in _FLICKR_NAMES.items():
        paths = named[name]
        wanted = [pattern.format(split) for split in splits]
        if not paths or [p.name for p in paths] != wanted or len({p.parent for p in paths}) > 1:
            raise ValueError(
                f"{where}: {key} is {[str(path) for path in paths]}; name the files"
                f" {', '.join(wanted) or pattern.format('SPLIT')} of one folder"
            )
        folders[name] = str(paths[0].parent)
    if folders["boxes"] != folders["sentences"]:
        raise ValueError(
            f"{where}: phrase_box_file and sentences_file are of the folders {folders['boxes']} and"
            f" {folders['sentences']}; put them into one"
        )
    return {
        "flickr_data": folders["boxes"],
        "flickr_lists": folders["ids"],
        "splits": splits,
    }


def _read_bert_config(nested: dict, path: Path) -> None:
    """Replaces the name of a BERT config file by the sizes it holds."""
    model = nested.get("model", {})
    name = model.pop("text", None)
    if name is None:
        return
    if not isinstance(name, str):
        raise ValueError(f"{path}: bert_config: expected the path of a file, got {name!r}")
    require_file_name(name, f"{path}: bert_config")
    candidates = [folder / name for folder in (path.parent, path.parent.parent, Path.cwd())]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        if PurePath(name).name == _ALBEF_CHECKPOINT_BERT:
            return  # the released file of this name is BERT-base, which is the default
        tried = ", ".join(str(candidate) for candidate in candidates)
        raise FileNotFoundError(f"{path}: bert_config: {name} does not exist; tried {tried}")
    bert = parse_json(read_text(found), str(found))
    if not isinstance(bert, dict):
        raise ValueError(f"{found}: expected the keys and values of a BERT")
    if bert.get("hidden_act", "gelu") != "gelu":
        raise ValueError(f"{found}: hidden_act is {bert['hidden_act']!r}; only gelu is supported")
    width = model.setdefault("vision_width", bert.get("encoder_width", 768))
    if bert.get("encoder_width", width) != width:
        raise ValueError(
            f"{found}: encoder_width {bert['encoder_width']} differs from vision_width {width} "
            f"in {path}"
        )
    known = {field.name for field in fields(TextConfig)}
    model["text"] = {key: value for key, value in bert.items() if key in known}

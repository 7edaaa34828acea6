"""The YAML files of the released RefCLIP repository, translated to the schema of this project.

Their blocks MODEL, TRAIN, DISTRIBUTED and DATA are one table each, which names every released key.
What the release does without a key, such as its sampling, is in configs/refclip/base.yaml, on which
a translated file builds.
"""

import ast
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from groundwork.models.common.checks import require
from groundwork.settings.parsing import join, section, set_by_path, unknown_key
from groundwork.settings.silent import without_effect

logger = logging.getLogger(__name__)

BLOCKS = ("MODEL", "TRAIN", "DISTRIBUTED", "DATA")
_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
_UNIT = ([0, 0, 0], [1, 1, 1])
_EMA = 0.9997
"""The cap of the released running mean, which no key names."""


class To(NamedTuple):
    """A key whose value is that of another one in the schema."""

    path: str


class Part(NamedTuple):
    """A key that has an effect together with others, by a name for `_add_*`."""

    name: str


class Fixed(NamedTuple):
    """A key that has one legal value here. remedy: what to do about another one."""

    value: Any
    remedy: str


class Silent(NamedTuple):
    """A key that changes nothing here, and why."""

    reason: str


Target = To | Part | Fixed | Silent
_LAUNCHER = Silent("torchrun says how many processes there are and where")
_NO_OTHER = "there is no other in RefCLIP"

KEYS: dict[str, dict[str, Target]] = {
    "MODEL": {
        "MODEL": Fixed("RefCLIP", "SimREC and others have configurations of their own"),
        "USE_GLOVE": Part("use_glove"),
        "WORD_EMBED_SIZE": To("model.text.word_width"),
        "EMBED_FREEZE": Part("embed_freeze"),
        "HIDDEN_SIZE": To("model.width"),
        "DROPOUT_R": To("model.text.dropout"),
        "MULTI_HEAD": To("model.text.heads"),
        "FF_SIZE": To("model.text.ffn"),
        "FLAT_GLIMPSES": Fixed(1, "the sentence is pooled once"),
        "LANG_ENC": Fixed("lstm", _NO_OTHER),
        "N_SA": To("model.text.layers"),
        "VIS_ENC": Fixed("yolov3", "name another detector with model.detector.name"),
        "VIS_FREEZE": Fixed(True, "RefCLIP's detector is always frozen"),
        "SELECT_NUM": To("model.cells"),
        "CLASS_NUM": To("model.detector.classes"),
    },
    "TRAIN": {
        "GPU": Silent("--device and CUDA_VISIBLE_DEVICES choose the GPU"),
        "BATCH_SIZE": To("batch_size"),
        "NUM_WORKER": To("data.workers"),
        "LR": To("optimizer.lr"),
        "EPOCHS": To("epochs"),
        "LR_DECAY_R": Silent("a cosine has no steps"),
        "PRINT_FREQ": To("log_every"),
        "LOG_PATH": Silent("--output_dir names the folder"),
        "LOG_IMAGE": Silent("the released code logs no image either"),
        "PRETRAIN_WEIGHT": To("model.init.detector"),
        "RESUME_PATH": Fixed("", "use --resume FILE"),
        "SCHEDULER": Fixed("wcosine", "see schedule.name for others"),
        "MIN_LR": To("schedule.min_lr"),
        "WARMUP_LR": To("schedule.warmup_lr"),
        "WARMUP": To("schedule.warmup_epochs"),
        "USE_EMA": Part("use_ema"),
        "OPT": Fixed("Adam", "there is no other optimiser"),
        "OPT_PARAMS": Part("opt_params"),
        "GRAD_NORM_CLIP": To("clip_norm"),
        "AMP": Part("amp"),
        "SEED": To("seed"),
    },
    "DISTRIBUTED": {
        key: _LAUNCHER
        for key in ("NODE_ID", "WORLD_SIZE", "DIST_URL", "MULTIPROCESSING_DISTRIBUTED", "RANK")
    },
    "DATA": {
        "DATASET": Part("dataset"),
        "MAX_TOKEN": To("data.max_tokens"),
        "INPUT_SHAPE": Part("input_shape"),
        "MEAN": Part("mean"),
        "STD": Part("std"),
        "ANN_PATH": Part("ann_path"),
        "IMAGE_PATH": Part("image_path"),
    },
}
"""Block -> released key -> what it means here."""

DATASETS = {
    "refcoco": ("refcoco", ("val", "testA", "testB")),
    "refcoco+": ("refcoco+", ("val", "testA", "testB")),
    "refcocog": ("refcocog_google", ("val",)),
    "referit": ("refclef", ("val", "test")),
}
"""DATASET -> our benchmark, and the splits that the released test.py evaluates."""


def is_released_refclip(raw: Mapping[str, Any]) -> bool:
    """Whether a parsed YAML file is one of the released ones."""
    return "MODEL" in raw and "DATA" in raw


def translate_refclip(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a released file says, to be laid over configs/refclip/base.yaml. Keys of this project's
    schema may stand beside the released blocks: a section of them replaces the translated one.

    Raises:
        ValueError: a key that the released files do not have, or a value that means nothing here.
    """
    nested: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    silent: list[tuple[str, str]] = []
    for block in BLOCKS:
        for key, value in section(raw.get(block), join(where, block)).items():
            place = join(where, f"{block}.{key}")
            match KEYS[block].get(key):
                case To(path):
                    set_by_path(nested, path, value, where)
                case Part(part):
                    parts[part] = value
                case Silent(reason):
                    silent.append((f"{block}.{key}", reason))
                case Fixed(only, remedy):
                    require(value == only, f"{place}: {value!r} is not known here; {remedy}")
                case None:
                    raise unknown_key(place, str(key), KEYS[block])
    _add_network(nested, parts, where)
    _add_training(nested, parts, where)
    _add_data(nested, parts, where)
    if parts.get("use_glove"):
        logger.info("%s: MODEL.USE_GLOVE: model.init.words names the vectors, not spaCy", where)
    logger.info("%s: accepted without effect: %s", where, without_effect(silent))
    return nested | {key: value for key, value in raw.items() if key not in BLOCKS}


def _add_network(nested: dict[str, Any], parts: dict[str, Any], where: str) -> None:
    if parts.get("use_glove") is False:
        set_by_path(nested, "model.init.words", None, where)
    if "embed_freeze" in parts:
        set_by_path(nested, "model.text.train_words", not parts["embed_freeze"], where)


def _add_training(nested: dict[str, Any], parts: dict[str, Any], where: str) -> None:
    """Running mean, half precision, and Adam's numbers, which the released files hold as texts."""
    nested["ema"] = _EMA if parts.get("use_ema") else None
    nested["precision"] = "fp16" if parts.get("amp") else "fp32"
    at = join(where, "TRAIN.OPT_PARAMS")
    for key, value in section(parts.get("opt_params"), at).items():
        try:
            number = ast.literal_eval(value) if isinstance(value, str) else value
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            place = join(at, str(key))
            raise ValueError(f"{place}: {value!r} is not a number or a list of them") from error
        set_by_path(nested, f"optimizer.{key}", number, where)


def _add_data(nested: dict[str, Any], parts: dict[str, Any], where: str) -> None:
    """The files of the data set, the splits that are evaluated, the form of the images."""
    name, at = parts.get("dataset"), join(where, "DATA")
    require(str(name) in DATASETS, f"{at}.DATASET: {name!r}; legal: {', '.join(DATASETS)}")
    benchmark, splits = DATASETS[str(name)]
    files: dict[str, str] = {}
    for key in ("ann_path", "image_path"):
        paths = section(parts.get(key), f"{at}.{key.upper()}")
        require(name in paths, f"{at}.{key.upper()}: names no path of {name}")
        files[key] = paths[name]
    nested["benchmark"] = benchmark
    data = nested.setdefault("data", {})
    data["train"] = {"train": files["ann_path"]}
    data["evaluate"] = dict.fromkeys(splits, files["ann_path"])
    data["image_root"] = files["image_path"]
    shape = parts.get("input_shape", (None, None))
    require(
        isinstance(shape, list | tuple) and len(shape) == 2,
        f"{at}.INPUT_SHAPE: expected [height, width], got {shape!r}",
    )
    height, width = shape
    require(height == width, f"{at}.INPUT_SHAPE: [{height}, {width}]; images are square here")
    if height is not None:
        data["image_size"] = height
    data["normalize"] = _normalisation(parts.get("mean"), parts.get("std"), where)


def _normalisation(mean: Any, std: Any, where: str) -> str:
    if (mean, std) in ((None, None), _IMAGENET):
        return "imagenet"
    if (mean, std) == _UNIT:
        return "unit"
    raise ValueError(
        f"{join(where, 'DATA.MEAN')}: {mean}, STD {std}: known are ImageNet's, and 0 and 1"
    )

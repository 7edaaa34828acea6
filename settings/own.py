"""Your own data in the place of a recipe's: `--data FOLDER` of a folder that tools/prepare_own.py
wrote.

The folder holds own.json, which says where the images are, and of every split the phrases with a
place, those that refer to nothing, and (training only) those of which nobody said where they are. A
recipe keeps its system, sizes, rates and rules; what it reads, and what it is evaluated on, is the
folder's.
"""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from groundwork.files.foreign import parse_json, read_text
from groundwork.models.common.system import ImageTextSettings, ModelSettings, System
from groundwork.settings.parsing import from_mapping, join

MANIFEST, BENCHMARK, FORMAT, RELATION = "own.json", "own", "phrases", "relation.jsonl"
PLACED, NOTHING, UNPLACED = "{}.jsonl", "{}_nothing.jsonl", "{}_texts.jsonl"
"""Names of a split's lists: phrases with boxes or masks, of nothing, of an unknown place."""
EVALUATED = ("val", "test")
SEVERAL = "of several boxes"
"""What own.json counts such phrases of a split under."""
_MERGED = " (merged box)"
_BOX_METRIC = re.compile(r"^(Acc@0\.5|box IoU)( \((?:merged|any) box\))?")
# What a recipe says of its own lists, and of images that come with them.
_OF_ITS_LISTS = (
    "train", "evaluate", "evaluate_image_root", "mask_root", "image_roots", "collections",
    "merged_boxes", "splits", "test_file", "refcoco_data", "split_by", "det_file", "flickr_data",
    "flickr_lists", "allow_outside_paths",
)  # fmt: skip
_OF_A_STAGE = ("train", "splits", "format", "image_root")


def is_own(folder: str | Path) -> bool:
    """Whether tools/prepare_own.py wrote this folder."""
    return Path(folder, MANIFEST).is_file()


def read_manifest(folder: Path) -> tuple[Path, bool]:
    """(the folder that the lists' images are relative to, whether a phrase of val has several
    boxes).

    Raises:
        FileNotFoundError: the images are not where own.json says. ValueError: it does not say.
    """
    manifest = folder / MANIFEST
    content = parse_json(read_text(manifest), str(manifest), "run tools/prepare_own.py again")
    try:
        images = Path(os.path.normpath(folder / content["images"]))
        several = bool(content["splits"]["val"][SEVERAL])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{manifest}: lacks {error}; run tools/prepare_own.py again") from error
    if not images.is_dir():
        raise FileNotFoundError(
            f"{manifest}: the images are no longer at {images}; correct 'images' there, which is"
            " relative to the folder of this file"
        )
    return images, several


def on_own_data(
    raw: Mapping[str, Any], folder: Path, system: System[Any, Any], where: str
) -> dict[str, Any]:
    """The keys of a recipe of `system` with this folder's data in the place of its own; `where`
    names the recipe in errors.

    Expressions of nothing go to a system that may answer so. Phrases of an unknown place go to the
    training of one that learns without boxes (ALBEF, RefCLIP).
    """
    given = raw.get("data") or {}
    data = {key: value for key, value in given.items() if key not in _OF_ITS_LISTS}
    model = from_mapping(system.settings, raw.get("model") or {}, join(where, "model"))
    given_stages = raw.get("stages") or ()
    kinds = [PLACED, *[NOTHING] * model.several_targets]
    # ALBEF's image-text objectives learn from any phrase, AMC leaves those without a box out.
    any_place = isinstance(model, ImageTextSettings) or not model.needs_boxes
    train = {"train": _files(folder, "train", [*kinds, UNPLACED] if any_place else kinds)}
    if _learns_paraphrases(model, given_stages):
        train["relation"] = [str(folder / RELATION)]
    evaluate = {split: _files(folder, split, kinds) for split in EVALUATED}
    evaluate = {split: files for split, files in evaluate.items() if files}
    images, several = read_manifest(folder)
    data |= {"format": FORMAT, "image_root": str(images), "opener": "shown"}
    data |= {"train": train, "evaluate": evaluate}
    # An entry of the recipe's lists is an object; of an evaluation all expressions count.
    if data.pop("one_per_record", False):
        data["one_per_object"] = True
    changed = {**raw, "data": data, "benchmark": BENCHMARK if evaluate else None}
    if given_stages:
        changed["stages"] = [_stage(one, train) for one in given_stages]
    if raw.get("select"):
        changed["select"] = _selected(raw["select"], several) if "val" in evaluate else None
    return changed


def _learns_paraphrases(model: ModelSettings, stages: Iterable[Mapping[str, Any]]) -> bool:
    if not isinstance(model, ImageTextSettings):
        return False
    asked = [stage.get("objective") or () for stage in stages]
    names = {name for one in asked for name in ([one] if isinstance(one, str) else one)}
    known = [model.objectives[name] for name in names if name in model.objectives]
    return any("paraphrases" in one.learns_from for one in known)


def _files(folder: Path, split: str, kinds: list[str]) -> list[str]:
    paths = (folder / kind.format(split) for kind in kinds)
    return [str(path) for path in paths if path.is_file()]


def _stage(stage: Mapping[str, Any], train: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in stage.items() if key not in _OF_A_STAGE}
    splits = [split for split in stage.get("splits") or () if split in train]
    return kept | ({"splits": splits} if splits else {})


def _selected(select: Mapping[str, Any], several: bool) -> dict[str, Any]:
    """Chosen on val, where `several` boxes of a phrase are taken as the one around them, which is
    what systems of one box learn."""
    metrics = {
        key: _BOX_METRIC.sub(rf"\1{_MERGED}" if several else r"\1", value)
        for key, value in select.items()
        if key in ("metric", "mask_metric") and isinstance(value, str)
    }
    return {**select, **metrics, "splits": ["val"]}

"""Reads a YAML file into a checked configuration."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from groundwork.files.foreign import read_text
from groundwork.files.safe import require_file_name
from groundwork.models import SYSTEMS
from groundwork.models.common.system import System
from groundwork.settings.data import ImageTextDataConfig, ReferringDataConfig
from groundwork.settings.detector import DetectorConfig
from groundwork.settings.earlier import earlier_name, renamed
from groundwork.settings.own import on_own_data
from groundwork.settings.parsing import (
    apply_overrides,
    from_mapping,
    join,
    merged,
    parse_yaml,
    set_by_path,
)
from groundwork.settings.released import is_released, take_paths_as_written, translate
from groundwork.settings.released_refclip import is_released_refclip, translate_refclip
from groundwork.settings.roots import OWN
from groundwork.settings.run import RunConfig

_ROOT = re.compile(r"\$\{([^}]*)\}")
_ROOTS = "roots."
CONFIGS = Path(__file__).parents[1] / "configs"
REFCLIP_BASE = CONFIGS / "refclip" / "base.yaml"
Purpose = Literal["training", "evaluation"]
_DATA = {"image_text": ImageTextDataConfig, "referring": ReferringDataConfig}
# What an evaluation of heat maps takes for granted that is not a training run's configuration.
_EVALUATION = {"model.image_size": 384, "batch_size": 32}


def load_config(
    path: str | Path,
    overrides: Iterable[str] = (),
    *,
    purpose: Purpose = "training",
    defaults: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Reads a configuration of this project, or a released one of ALBEF, AMC, SelfEQ or RefCLIP.

    Args:
        path: the YAML file. Its key `base` names a file whose keys it builds on. `${name}` in any
            text stands for the path `name` of data.yaml, which is looked for beside the file, then
            in `configs`.
        overrides: `a.b=value` texts, the value in YAML; they win over the file. `roots.name=path`
            wins over data.yaml.
        purpose: what the released files of ALBEF, AMC and SelfEQ are read for, whose keys mean
            different things in training and evaluation.
        defaults: dotted path -> value for what the file leaves open, for example {"data.format":
            "coco"}.

    Raises:
        FileNotFoundError: no such file. ValueError: anything in it that is wrong, with its place
            and the remedy.
    """
    path, where, defaults = located(path), str(path), dict(defaults or {})
    raw = _read(path)
    flat = False
    if is_released_refclip(raw):
        raw = merged(_read(REFCLIP_BASE), translate_refclip(raw, where))
    elif is_released(raw, purpose):
        raw, flat = translate(raw, purpose, path, defaults), True
    overrides = list(overrides)
    raw = _overridden(renamed(raw, where), overrides, defaults, where)
    if own := raw["roots"].get(OWN):
        # What is said by hand wins over the folder, too.
        raw = on_own_data(raw, Path(own), _system(raw, where), where)
        raw = _overridden(raw, overrides, {}, where)
    raw = _with_stages(renamed(raw, where))
    if flat:
        take_paths_as_written(raw, path)
    return _checked(_resolved(raw, path), where, purpose)


def config_of(raw: Mapping[str, Any], where: str) -> RunConfig:
    """The configuration that a checkpoint or a manifest holds; `where` names it in errors."""
    return _checked(_with_stages(renamed(dict(raw), where)), where, "training")


def load_detector(path: str | Path, overrides: Iterable[str] = ()) -> DetectorConfig:
    """Reads a configuration of `train_detector.py`; arguments and errors as of `load_config`."""
    path = located(path)
    raw = _overridden(_read(path), overrides, {}, str(path))
    if own := raw["roots"].get(OWN):
        raise ValueError(
            f"{path}: a detector learns from objects, and {own} holds phrases; give --data the root"
            " of such lists"
        )
    return from_mapping(DetectorConfig, _with_stages(_resolved(raw, path)), str(path))


def located(name: str | Path) -> Path:
    """The file `name`: a path, or that of a configuration which ships, such as `reftr/refcoco+`,
    also by its name in version 0.2 (`reftr/refcoco+_tiny` for `tiny/reftr/refcoco+`).

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(name)
    file = path if path.is_file() else shipped(name)
    if file is None:
        raise FileNotFoundError(
            f"{path}: no such configuration file; see configs/ for those that ship"
        )
    return file


def shipped(name: str | Path) -> Path | None:
    """The configuration that ships under a name, with or without `configs/` and `.yaml`; None if
    there is none."""
    inside = Path(name).as_posix().removeprefix("configs/").removesuffix(".yaml")
    places = (CONFIGS / f"{place}.yaml" for place in (inside, earlier_name(inside)))
    return next((file for file in places if file.is_file()), None)


def _checked(raw: dict[str, Any], where: str, purpose: Purpose) -> RunConfig:
    return from_mapping(RunConfig, _with_sections(raw, purpose, where), where)


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The keys of a file over those of the file that its `base` names, relative to its folder.

    above: the files that build on it.
    """
    if path.resolve() in above:
        raise ValueError(f"{path}: its base builds on itself; name another file as base")
    raw = parse_yaml(read_text(path), str(path))
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: expected keys and values at the top level")
    if "base" not in raw:
        return raw
    name = str(raw.pop("base"))
    require_file_name(name, f"{path}: its base", "name a file")
    base = path.parent / name
    if not base.is_file():
        raise FileNotFoundError(f"{path}: its base {base} does not exist")
    return merged(_read(base, (*above, path.resolve())), raw)


def _overridden(
    raw: dict[str, Any], overrides: Iterable[str], defaults: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """With the defaults below and the overrides above; roots that are given are under "roots"."""
    raw, overrides = _with_stages(raw), list(overrides)
    # Without "=" it is no path of a root; `apply_overrides` says so.
    roots = [text for text in overrides if text.startswith(_ROOTS) and "=" in text]
    for dotted, value in defaults.items():
        set_by_path(raw, dotted, value, where, replace=False)
    apply_overrides(raw, [text for text in overrides if text not in roots], where)
    given = (text.removeprefix(_ROOTS).partition("=") for text in roots)
    return {**raw, "roots": {name: path for name, _, path in given}}


def _with_sections(raw: dict[str, Any], purpose: Purpose, where: str) -> dict[str, Any]:
    """The keys with what the system takes for granted, `model` and `data` read as it has them."""
    system = _system(raw, where)
    if raw.get("data", {}) is None:
        raise ValueError(f"{where}: data: names nothing; give annotation files in data.train")
    if purpose == "evaluation" and system.samples == "image_text" and "stages" not in raw:
        for dotted, value in _EVALUATION.items():
            set_by_path(raw, dotted, value, where, replace=False)
    for dotted, default in system.defaults.items():
        set_by_path(raw, dotted, default, where, replace=False)
        section, _, key = dotted.partition(".")
        stages = raw.get("stages")
        for stage in stages if isinstance(stages, list) else ():
            if key and isinstance(stage, dict) and isinstance(stage.get(section), dict):
                set_by_path(stage, dotted, default, where, replace=False)
    data, model = raw.get("data") or {}, raw.get("model") or {}
    return {
        **raw,
        "data": from_mapping(_DATA[system.samples], data, join(where, "data")),
        "model": from_mapping(system.settings, model, join(where, "model")),
    }


def _system(raw: Mapping[str, Any], where: str) -> System[Any, Any]:
    name = raw.get("system")
    if not isinstance(name, str) or name not in SYSTEMS:
        raise ValueError(f"{where}: system: {name!r} is not one of {', '.join(SYSTEMS)}")
    return SYSTEMS[name]


def _with_stages(raw: dict[str, Any]) -> dict[str, Any]:
    """`epochs` and `steps` beside the stages are those of the last one."""
    last = {key: raw[key] for key in ("epochs", "steps") if key in raw}
    if not last:
        return raw
    rest = {key: value for key, value in raw.items() if key not in last}
    stages = raw.get("stages") or [{}]
    if not isinstance(stages, list) or not isinstance(stages[-1], dict):
        return rest  # what is wrong with them is said where they are read
    *first, end = stages
    return {**rest, "stages": [*first, {**end, **last}]}


def _resolved(raw: dict[str, Any], path: Path) -> dict[str, Any]:
    """Replaces `${name}` in all texts by the path of that name, given or else of data.yaml."""
    beside = path.parent / "data.yaml"
    file = beside if beside.is_file() else CONFIGS / "data.yaml"
    given = raw.pop("roots", {})
    roots: dict[str, str] = parse_yaml(read_text(file), str(file)) | given

    def replace(match: re.Match) -> str:
        if match[1] not in roots:
            raise ValueError(
                f"{path}: {match[0]} is no root; {file} has {', '.join(roots)}. Add it there."
            )
        return str(roots[match[1]])

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item) for item in value]
        return _ROOT.sub(replace, value) if isinstance(value, str) else value

    return {key: walk(value) for key, value in raw.items()}

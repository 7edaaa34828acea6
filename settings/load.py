"""Reads a YAML file into a checked configuration."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, overload

from groundwork.files.foreign import read_text
from groundwork.settings.detector import DetectorConfig
from groundwork.settings.parsing import apply_overrides, from_mapping, parse_yaml, set_by_path
from groundwork.settings.referring import ReferringConfig, with_model
from groundwork.settings.released import is_released, take_paths_as_written, translate
from groundwork.settings.released_refclip import is_released_refclip, translate_refclip
from groundwork.settings.schema import GroundingConfig, PretrainConfig

_ROOT = re.compile(r"\$\{([^}]*)\}")
_ROOTS = "roots."
CONFIGS = Path(__file__).parents[1] / "configs"
REFCLIP_BASE = CONFIGS / "refclip" / "base.yaml"
Kind = Literal["pretrain", "grounding", "referring", "detector"]


@overload
def load_config(
    path: str | Path,
    kind: Literal["pretrain"],
    overrides: Iterable[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> PretrainConfig: ...


@overload
def load_config(
    path: str | Path,
    kind: Literal["grounding"],
    overrides: Iterable[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> GroundingConfig: ...


@overload
def load_config(
    path: str | Path,
    kind: Literal["referring"],
    overrides: Iterable[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> ReferringConfig: ...


@overload
def load_config(
    path: str | Path,
    kind: Literal["detector"],
    overrides: Iterable[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> DetectorConfig: ...


def load_config(
    path: str | Path,
    kind: Kind,
    overrides: Iterable[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> PretrainConfig | GroundingConfig | ReferringConfig | DetectorConfig:
    """Reads a configuration of this project, or a released one of ALBEF, AMC, SelfEQ or RefCLIP.

    Args:
        path: the YAML file. Its key `base` names a file whose keys it builds on. `${name}` in any
            text stands for the path `name` of data.yaml, which is looked for beside the file, then
            in this package's folder.
        kind: what the file configures.
        overrides: `a.b=value` texts, the value in YAML; they win over the file. `roots.name=path`
            wins over data.yaml.
        defaults: dotted path -> value for what the file leaves open, for example {"data.format":
            "coco"}.

    Raises:
        FileNotFoundError: no such file. ValueError: anything in it that is wrong, with its place
            and the remedy.
    """
    path, defaults = Path(path), dict(defaults or {})
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such configuration file; see configs/ for those that ship"
        )
    where = str(path)
    raw = _read_with_base(path)
    flat = False
    if kind in ("pretrain", "grounding") and is_released(raw, kind):
        raw, flat = translate(raw, kind, path, defaults), True
    elif kind == "referring" and is_released_refclip(raw):
        raw = _merge(_read_with_base(REFCLIP_BASE), translate_refclip(raw, where))
    for dotted, value in defaults.items():
        set_by_path(raw, dotted, value, where, replace=False)
    overrides = list(overrides)
    roots = [text for text in overrides if text.startswith(_ROOTS)]
    apply_overrides(raw, [text for text in overrides if text not in roots], where)
    if flat:
        take_paths_as_written(raw, path)
    raw = _resolve_roots(raw, path, dict(text[len(_ROOTS) :].split("=", 1) for text in roots))
    if kind == "referring":
        return from_mapping(ReferringConfig, with_model(raw, where), where)
    if kind == "detector":
        return from_mapping(DetectorConfig, raw, where)
    if kind == "pretrain":
        return from_mapping(PretrainConfig, raw, where)
    return from_mapping(GroundingConfig, raw, where)


def _read_with_base(path: Path) -> dict[str, Any]:
    """The keys of a file over those of the file that its `base` names, relative to its folder."""
    raw = parse_yaml(read_text(path), str(path))
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: expected keys and values at the top level")
    if "base" not in raw:
        return raw
    base = path.parent / str(raw.pop("base"))
    if not base.is_file():
        raise FileNotFoundError(f"{path}: its base {base} does not exist")
    return _merge(_read_with_base(base), raw)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` over `below`: mappings key by key, everything else as a whole."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _resolve_roots(raw: Any, path: Path, given: Mapping[str, str]) -> Any:
    """Replaces `${name}` in all texts by the path of that name, in `given` or else in data.yaml."""
    file = _roots_file(path)
    roots: dict[str, str] = parse_yaml(read_text(file), str(file)) | dict(given)

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

    return walk(raw)


def _roots_file(path: Path) -> Path:
    beside = path.parent / "data.yaml"
    return beside if beside.is_file() else CONFIGS / "data.yaml"

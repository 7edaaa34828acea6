"""Reads a YAML file into a checked configuration."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, overload

from configs.mapping import apply_overrides, from_mapping, parse_yaml, set_by_path
from configs.released import Kind, is_released, translate
from configs.schema import GroundingConfig, PretrainConfig

_ROOT = re.compile(r"\$\{([^}]*)\}")


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


def load_config(
    path: str | Path,
    kind: Kind,
    overrides: Iterable[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> PretrainConfig | GroundingConfig:
    """Reads a configuration of this project, or one of the released AMC and SelfEQ repositories.

    Args:
        path: the YAML file. `${name}` in any text stands for the path `name` of data.yaml, which is
            looked for beside the file, then in this package's folder.
        kind: what the file configures.
        overrides: `a.b=value` texts, the value in YAML; they win over the file.
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
    raw = parse_yaml(path.read_text(encoding="utf-8"), where)
    if not isinstance(raw, dict):
        raise ValueError(f"{where}: expected keys and values at the top level")
    if is_released(raw, kind):
        raw = translate(raw, kind, path, defaults)
    for dotted, value in defaults.items():
        set_by_path(raw, dotted, value, where, replace=False)
    apply_overrides(raw, overrides, where)
    raw = _resolve_roots(raw, path)
    if kind == "pretrain":
        return from_mapping(PretrainConfig, raw, where)
    return from_mapping(GroundingConfig, raw, where)


def _resolve_roots(raw: Any, path: Path) -> Any:
    """Replaces `${name}` in all texts of a parsed file by the path of that name in data.yaml."""
    roots: dict[str, str] | None = None

    def replace(match: re.Match) -> str:
        nonlocal roots
        file = _roots_file(path)
        roots = parse_yaml(file.read_text(encoding="utf-8"), str(file)) if roots is None else roots
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
    return beside if beside.is_file() else Path(__file__).parent / "data.yaml"

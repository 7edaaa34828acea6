"""From a parsed YAML mapping to frozen dataclasses and back.

Nothing here knows a field by name. Errors carry the whole path of the value that is wrong:
`Pretrain_vg.yaml: objectives.amc.max_margn: unknown key; did you mean 'max_margin'? Legal ...`.
"""

import dataclasses
import difflib
import io
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from groundwork.models.common.checks import ByName

Config = TypeVar("Config")
_MOST_VALUES, _DEEPEST = 1_000_000, 100
_BRACKETS = re.compile(r"[\[\]{}]")


def parse_yaml(text: str, where: str) -> Any:
    """YAML 1.2 (where 1e-5 is a number) to Python values; `where` names the source in errors."""
    try:
        _require_shallow(text)
        content = YAML(typ="safe", pure=True).load(text)
        if _count(content, {}) > _MOST_VALUES:
            raise ValueError("its aliases multiply to more values than any file needs")
        return content
    except (YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not valid YAML: {error}") from error


def _require_shallow(text: str) -> None:
    """Raises ValueError if more brackets are open at once than in any file; the parser would look
    through all that follow for each of them."""
    depth = 0
    for bracket in _BRACKETS.findall(text):
        depth += 1 if bracket in "[{" else -1
        if depth > _DEEPEST:
            raise ValueError(f"more than {_DEEPEST} brackets are open at once")


def _count(value: Any, known: dict[int, int]) -> int:
    """How many values there are if every alias is written out. known: of what was counted, by id.

    Raises:
        ValueError: an alias stands in what it is an alias of.
    """
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = -1
        inside = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(one, known) for one in inside)
    if known[id(value)] < 0:
        raise ValueError("an alias stands in what it is an alias of")
    return known[id(value)]


def dump_yaml(config: Any) -> str:
    """The YAML text of a configuration; reading it back gives an equal configuration."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    # Keeps the order of the fields.
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    yaml.dump(to_dict(config), stream)
    return stream.getvalue()


def to_dict(config: Any) -> Any:
    """Nested plain dicts, lists and scalars of a configuration, as JSON and YAML take them."""
    if dataclasses.is_dataclass(config):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {key: to_dict(value) for key, value in config.items()}
    if isinstance(config, tuple | list):
        return [to_dict(value) for value in config]
    return config


def unknown_key(path: str, key: str, legal: Iterable[str]) -> ValueError:
    """The error for a key that does not exist, with the legal ones and the nearest of them."""
    names = sorted(legal)
    near = difflib.get_close_matches(key, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return ValueError(f"{path}: unknown key; {hint}Legal keys: {', '.join(names)}")


def join(where: str, key: str | int) -> str:
    """`file.yaml` + `a` -> `file.yaml: a`; `file.yaml: a` + `b` -> `file.yaml: a.b`."""
    return f"{where}.{key}" if ": " in where else f"{where}: {key}"


def from_mapping(cls: type[Config], mapping: Any, where: str) -> Config:
    """Builds the dataclass `cls` from a mapping, checking every key and type on the way down.

    Args:
        cls: a dataclass whose annotations use scalars, Any, Literal, Optional, tuple[X, ...],
            dict[str, X] and other such dataclasses. Where it has a union of dataclasses,
            the value is one of them already.
        mapping: parsed YAML. Integers are taken for floats, lists for tuples and one value for a
            tuple of one.
        where: the source named in errors, such as `configs/Pretrain_vg.yaml`.

    Raises:
        ValueError: unknown or missing key, wrong type, or a value that the dataclass itself
            refuses.
    """
    if not isinstance(mapping, Mapping):
        raise ValueError(f"{where}: expected keys and values, got {_kind(mapping)}")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls, include_extras=True)
    for key in mapping:
        if key not in fields:
            raise unknown_key(join(where, key), str(key), fields)
    for name, field in fields.items():
        if name not in mapping and _is_required(field):
            raise ValueError(f"{join(where, name)}: missing; this key has no default")
    values = {
        name: _convert(hints[name], value, join(where, name)) for name, value in mapping.items()
    }
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def section(value: Any, where: str) -> dict[Any, Any]:
    """The keys and values of a part of a file; none where nothing stands.

    Raises:
        ValueError: something else stands there.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected keys and values, got {_kind(value)}")
    return value


def merged(below: Any, above: Any) -> Any:
    """`above` over `below`: mappings key by key, everything else as a whole."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: merged(below.get(key), value) for key, value in above.items()}


def set_by_path(mapping: dict, path: str, value: Any, where: str, *, replace: bool = True) -> None:
    """Sets `a.b.0.c` in nested dicts and lists, making the dicts that are missing.

    A last key that has dots itself ("img_backbone.0" of optimizer.rates) must be there already.

    Args:
        replace: False keeps a value that is already there.

    Raises:
        ValueError: the path runs through a scalar or beyond the end of a list.
    """
    node: Any = mapping
    last = path
    while "." in last and not (isinstance(node, dict) and last in node):
        key, _, last = last.partition(".")
        node = _child(node, key, f"{where}: {path}")
    if isinstance(node, list):
        _child(node, last, f"{where}: {path}")
        node[int(last)] = value
    elif replace or last not in node:
        node[last] = value


def apply_overrides(mapping: dict, overrides: Iterable[str], where: str) -> None:
    """Applies `a.b=value` texts (the `--set` option) to a parsed YAML mapping in place.

    The value is read as YAML. Whether the key exists is found out afterwards by `from_mapping`.
    """
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            raise ValueError(f"--set {text}: expected name=value, for example optimizer.lr=1e-5")
        set_by_path(mapping, path.strip(), parse_yaml(value, f"--set {text}"), where)


def _child(node: Any, key: str, where: str) -> Any:
    """The dict or list under `key`; a missing (or empty) entry of a dict becomes a dict."""
    if isinstance(node, list):
        if not key.isdigit() or int(key) >= len(node):
            raise ValueError(f"{where}: {key!r} is not an index of a list of {len(node)}")
        return node[int(key)]
    if node.get(key) is None:
        node[key] = {}
    if not isinstance(node[key], dict | list):
        raise ValueError(f"{where}: {key!r} holds {node[key]!r}, which has no keys below it")
    return node[key]


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _convert_by_name(hint.__metadata__[0], value, where)
    if origin in (Union, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        ready = any(isinstance(value, option) for option in filter(_is_class, options))
        return value if value is None or ready else _convert(options[0], value, where)
    if origin is Literal:
        return _convert_literal(typing.get_args(hint), value, where)
    if origin is tuple:
        return _convert_tuple(typing.get_args(hint), value, where)
    if origin is dict:
        return _convert_dict(typing.get_args(hint)[1], value, where)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return from_mapping(typing.cast(type, hint), {} if value is None else value, where)
    return _convert_scalar(hint, value, where)


def _is_class(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _convert_literal(choices: tuple, value: Any, where: str) -> Any:
    if value not in choices or isinstance(value, bool):
        raise ValueError(f"{where}: {value!r} is not one of {', '.join(map(repr, choices))}")
    return value


def _convert_tuple(args: tuple, value: Any, where: str) -> tuple:
    items = value if isinstance(value, list | tuple) else [value]
    if args[-1] is Ellipsis:
        return tuple(_convert(args[0], item, join(where, i)) for i, item in enumerate(items))
    if len(items) != len(args):
        raise ValueError(f"{where}: expected {len(args)} values, got {len(items)}")
    return tuple(
        _convert(arg, item, join(where, i))
        for i, (arg, item) in enumerate(zip(args, items, strict=True))
    )


def _convert_by_name(classes: ByName, value: Any, where: str) -> dict:
    """Sections whose keys say of which class each is."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected keys and values, got {_kind(value)}")
    for key in value:
        if key not in classes.registry:
            raise unknown_key(join(where, key), str(key), classes.registry)
    return {
        key: from_mapping(classes.registry[key], section or {}, join(where, key))
        for key, section in value.items()
    }


def _convert_dict(value_hint: Any, value: Any, where: str) -> dict:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected keys and values, got {_kind(value)}")
    return {str(k): _convert(value_hint, v, join(where, k)) for k, v in value.items()}


def _convert_scalar(hint: type, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"{where}: expected {_NAMES[hint]}, got {_kind(value)}")


def _kind(value: Any) -> str:
    names = {dict: "keys and values", list: "a list", type(None): "nothing"}
    return names.get(type(value)) or f"{_NAMES.get(type(value), type(value).__name__)} {value!r}"


_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}

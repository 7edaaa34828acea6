"""What the readers share: checked JSON files, keys that exist and have the right type."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from geometry import Box


def load_json(path: str | os.PathLike[str], what: str = "annotation file") -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{what} {path} does not exist; check its path in the config")
    try:
        with path.open(encoding="utf-8") as file:
            return json.load(file)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{what} {path} is not valid JSON ({error}); fetch it again") from error


def load_entries(path: str | os.PathLike[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The entries of a JSON list of objects, each with its name for messages ("train.json[17]")."""
    entries = load_json(path)
    if not isinstance(entries, list):
        raise ValueError(f"{path}: expected a list of entries, got {type(entries).__name__}")
    for index, entry in enumerate(entries):
        source = f"{os.fspath(path)}[{index}]"
        if not isinstance(entry, Mapping):
            raise ValueError(f"{source}: expected an object, got {type(entry).__name__}")
        yield source, entry


def need(entry: Mapping[Any, Any], key: Any, source: str) -> Any:
    """`entry[key]`, or a ValueError that names the record and the keys it has."""
    if key not in entry:
        present = ", ".join(map(str, list(entry)[:12]))
        raise ValueError(f"{source}: key {key!r} is missing (it has: {present})")
    return entry[key]


def texts(value: Any, key: str, source: str) -> tuple[str, ...]:
    """One string or a list of strings as a tuple."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
        raise ValueError(f"{source}: {key} must be a string or a list of strings, got {value!r}")
    if not values:
        raise ValueError(f"{source}: {key} is empty; remove the entry or give it a phrase")
    return tuple(values)


def boxes(value: Any, key: str, source: str) -> tuple[Box, ...]:
    """A list of boxes of four finite numbers (one bare box is accepted) as a tuple of tuples."""
    rows = [value] if isinstance(value, list) and value and _is_number(value[0]) else value
    if not isinstance(rows, list):
        raise ValueError(f"{source}: {key} must be a list of boxes, got {value!r}")
    for row in rows:
        if not isinstance(row, list | tuple) or len(row) != 4 or not all(map(_is_number, row)):
            raise ValueError(f"{source}: {key} holds {row!r}; a box is four finite numbers")
    return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in rows)


def relation(value: Any, source: str) -> tuple[str, tuple[str, ...]]:
    """(group, synonyms) of a relation object; the other relations of the file are not used by any
    objective."""
    if value is None:
        return "", ()
    if not isinstance(value, Mapping):
        raise ValueError(f"{source}: relation must be an object, got {type(value).__name__}")
    group = value.get("group") or ""
    synonyms = value.get("synonym") or []
    synonyms = [synonyms] if isinstance(synonyms, str) else synonyms
    if not isinstance(group, str) or not isinstance(synonyms, list):
        raise ValueError(f"{source}: relation.group must be a string and relation.synonym a list")
    if not all(isinstance(word, str) for word in synonyms):
        raise ValueError(
            f"{source}: relation.synonym holds {synonyms!r}; every synonym is a string"
        )
    return group, tuple(synonyms)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

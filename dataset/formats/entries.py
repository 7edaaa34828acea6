"""What the readers share: checked JSON files, keys that exist and have the right type."""

import json
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import ArrayLike

from groundwork.dataset.formats import notes
from groundwork.dataset.record import Phrase
from groundwork.files import foreign
from groundwork.files.safe import atomic_write, write_text
from groundwork.geometry import Box, xywh_to_xyxy

# No id has more digits, and Python reads but a few thousand.
_DIGITS = re.compile(r"[+-]?\d{1,18}")
_SPACE = re.compile(r"[ \t\n\r]*")
# Of the released relation files; no objective uses them.
_OTHER_RELATIONS = ("antonym", "exclusion", "hypernym", "meronym", "union")


def load_json(path: str | os.PathLike[str], what: str = "annotation file") -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, not UTF-8, or an object that has a key twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{what} {path} does not exist; check its path in the config")
    return foreign.parse_json(foreign.read_text(path, what), f"{what} {path}")


def save_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write compact JSON; the file appears complete or not at all."""
    write_text(path, json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")


def save_entries(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> int:
    """Write a JSON list of objects, one a line and in memory at a time; returns how many."""
    count = 0
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8") as file:
        for count, row in enumerate(rows, 1):
            file.write("[\n" if count == 1 else ",\n")
            file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")))
        file.write("\n]\n" if count else "[]\n")
    return count


def load_entries(path: str | os.PathLike[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The entries of a JSON list of objects, each with its name for messages ("train.json[17]").

    The file is read piece by piece: one entry is in memory at a time.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a JSON list of objects, once the place where it is wrong is reached.
    """
    for index, entry in enumerate(_stream(path)):
        source = f"{os.fspath(path)}[{index}]"
        _require_object(entry, source)
        yield source, entry


def _stream(path: str | os.PathLike[str]) -> Iterator[Any]:
    """The items of the JSON list in a file, one by one."""
    if not Path(path).is_file():
        load_json(path)
    with foreign.open_text(path, "annotation file") as file:
        text = _Text(file, os.fspath(path))
        if text.peek() != "[":
            content = load_json(path)
            raise ValueError(f"{path}: expected a list of entries, got {type(content).__name__}")
        text.skip()
        if text.peek() != "]":
            yield text.item()
            while text.peek() == ",":
                text.skip()
                yield text.item()
        if text.peek() != "]":
            raise text.error("expected ',' or ']'")
        text.skip()
        if text.peek():
            raise text.error("something follows the list")


class _Text:
    """JSON text of which one piece is in memory, enlarged while an item does not end in it."""

    PIECE = 1 << 20

    def __init__(self, file: TextIO, path: str) -> None:
        self._file, self._path = file, path
        self._piece, self._at, self._passed = "", 0, 0

    def _more(self, size: int = PIECE) -> bool:
        new = self._file.read(size)
        self._passed += self._at
        self._piece, self._at = self._piece[self._at :] + new, 0
        return bool(new)

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            space = _SPACE.match(self._piece, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._piece):
                return self._piece[self._at]
            if not self._more():
                return ""

    def skip(self) -> None:
        self._at += 1

    def item(self) -> Any:
        """The next value."""
        self.peek()
        while True:
            problem = None
            try:
                value, end = foreign.JSON.raw_decode(self._piece, self._at)
            except json.JSONDecodeError as error:
                problem, end = error, len(self._piece)
            # A key twice, thousands of digits, or lists in lists without end.
            except (ValueError, RecursionError) as error:
                raise self.error(str(error)) from error
            # A number at the end of the piece may go on in the next.
            if end < len(self._piece):
                self._at = end
                return value
            if not self._more(max(self.PIECE, len(self._piece))):
                if problem is not None:
                    raise self.error(str(problem)) from problem
                self._at = end
                return value

    def error(self, what: str) -> ValueError:
        place = f"near character {self._passed + self._at}"
        return ValueError(
            f"annotation file {self._path} is not valid JSON ({what}, {place}); fetch it again"
        )


def split_entries(
    path: str | os.PathLike[str], splits: Iterable[str] | None, key: str
) -> Iterator[tuple[str, int, Mapping[str, Any], str]]:
    """(split, place in the file, entry, its name for messages) of the entries of a JSON file
    {split: [entry]} that have a text under `key`; those that have none are noted.

    Args:
        splits: None: all; a key "info" is none.

    Raises:
        FileNotFoundError, ValueError: no such file or split, or no list of objects.
    """
    by_split = load_json(path)
    _require_object(by_split, os.fspath(path))
    counts = [len(rows) if isinstance(rows, list) else 0 for rows in by_split.values()]
    ends = accumulate(counts)  # of each split, were they one list
    first = {name: end - count for name, end, count in zip(by_split, ends, counts, strict=True)}
    for split in splits or [name for name in by_split if name != "info"]:
        source, empty = f"{os.fspath(path)}[{split}]", []
        for index, entry in enumerate(listed(need(by_split, split, os.fspath(path)), source)):
            if need(entry, key, f"{source}[{index}]") == []:
                empty.append(f"[{index}]")
            else:
                yield split, first[split] + index, entry, f"{source}[{index}]"
        notes.say(source, f"entries without {key} are left out", empty)


def listed(rows: Any, source: str) -> list[Any]:
    """`rows`, or a ValueError that names them: they are no list."""
    if not isinstance(rows, list):
        raise ValueError(
            f"{source}: expected a list of entries, got {type(rows).__name__}; write [] for none"
        )
    return rows


def _require_object(entry: Any, source: str) -> None:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{source}: expected an object, got {type(entry).__name__}")


def need(entry: Mapping[Any, Any], key: Any, source: str) -> Any:
    """`entry[key]`, or a ValueError that names the record and the keys it has."""
    _require_object(entry, source)
    if key not in entry:
        present = ", ".join(map(str, list(entry)[:12]))
        raise ValueError(f"{source}: key {key!r} is missing (it has: {present})")
    return entry[key]


def number(entry: Mapping[Any, Any], key: Any, source: str) -> int:
    """`entry[key]`, which must be an integer: a whole number, or the digits of one as a text.

    Raises:
        ValueError: naming source and key.
    """
    value = need(entry, key, source)
    found = _whole(value)
    if found is None:
        raise ValueError(f"{source}: {key} must be an integer, got {value!r}; write the number")
    return found


def _whole(value: Any) -> int | None:
    """The integer that a value means: itself, a whole float, or its digits as a text; else None."""
    if isinstance(value, str):
        return int(value) if _DIGITS.fullmatch(value.strip()) else None
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return None
    if isinstance(value, int):
        return value
    return int(value) if math.isfinite(value) and value == int(value) else None


def size(entry: Mapping[str, Any], source: str) -> tuple[int | None, int | None]:
    """(width, height) of an entry's image in pixels; None where it does not state them.

    Raises:
        ValueError: no object, or a side that is no positive integer.
    """
    _require_object(entry, source)
    width, height = (_side(entry, key, source) for key in ("width", "height"))
    return width, height


def _side(entry: Mapping[str, Any], key: str, source: str) -> int | None:
    side = None if entry.get(key) is None else number(entry, key, source)
    if side is not None and side < 1:
        raise ValueError(f"{source}: {key} must be a number of pixels, got {side}")
    return side


def by_number(rows: Any, key: str, source: str) -> dict[int, Mapping[str, Any]]:
    """{id: row} of rows that have an id, each another one.

    Raises:
        ValueError: no list, a row that is no object, an id that is no integer, or two rows of one
            id.
    """
    found: dict[int, Mapping[str, Any]] = {}
    for index, row in enumerate(listed(rows, source)):
        row_id = number(row, key, f"{source}[{index}]")
        if row_id in found:
            raise ValueError(
                f"{source}[{index}]: {key} {row_id} is that of another entry, too; every entry"
                " needs its own, correct the file"
            )
        found[row_id] = row
    return found


def require_distinct(rows: Any, key: str, source: str) -> None:
    """As `by_number`, of rows that need not have an id: raises ValueError for two of one id."""
    rows = listed(rows, source)
    by_number([row for row in rows if not isinstance(row, Mapping) or key in row], key, source)


def text(entry: Mapping[Any, Any], key: str, source: str) -> str:
    """`entry[key]`, which must be one string, or a list of one."""
    found = texts(entry, key, source)
    if len(found) > 1:
        raise ValueError(f"{source}: {key} must be one string, got {entry[key]!r}")
    return found[0]


def texts(entry: Mapping[Any, Any], key: str, source: str) -> tuple[str, ...]:
    """`entry[key]`, one string or a list of strings, as a tuple."""
    value = need(entry, key, source)
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


def box(entry: Mapping[Any, Any], key: str, source: str) -> Box:
    """`entry[key]`, which must be four finite numbers."""
    (found,) = boxes([need(entry, key, source)], key, source)
    return found


def corners(rows: ArrayLike) -> tuple[Box, ...]:
    """(n, 4) boxes x, y, width, height, which may be none -> xyxy boxes."""
    array = xywh_to_xyxy(np.asarray(rows, dtype=np.float64).reshape(-1, 4))
    return tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in array.tolist())


def plain(rows: Iterable[Sequence[float]]) -> list[list[float]]:
    """Boxes as lists of Python's own numbers, whole ones as int."""
    return [
        [int(value) if float(value).is_integer() else float(value) for value in row] for row in rows
    ]


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


def relation_entry(phrases: Sequence[Phrase], source: str) -> dict[str, Any]:
    """{"relation": ...} that the phrases of an entry share, or {} where they have none.

    Raises:
        ValueError: the phrases have different relations.
    """
    if len({(phrase.group, phrase.synonyms) for phrase in phrases}) != 1:
        raise ValueError(
            f"{source}: all phrases of an entry share one relation; make one record per relation"
        )
    first = phrases[0]
    if not first.group and not first.synonyms:
        return {}
    others: dict[str, list[str]] = {name: [] for name in _OTHER_RELATIONS}
    return {"relation": {"group": first.group, "synonym": list(first.synonyms), **others}}


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    # A larger integer is no float.
    return abs(value) <= sys.float_info.max

"""What is done to a sound file: in its values, in its bytes, or instead of it."""

import codecs
import copy
import json
import zlib
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

NUMBERS = (
    0, -1, 1, 0.5, -0.0, 2**31, 2**32, -(2**31) - 1, 2**63, 2**64, 10**400, -(10**400), 1e308,
    float("nan"), float("inf"), float("-inf"), True, 4294967296.5,
)  # fmt: skip
TEXTS = (
    "", " ", "\0", "?!", "1", "-7", "9" * 5000, "\u0967\u0968", "\u00b2", "1e9", "nan", "None",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "\u202eabc\u202c", "e\u0301" * 50,
    "\ud800", "\U0001f469\u200d\U0001f467\U0001f3f3", "\ufdfa" * 100, "\ufeff", "a\nb\r\nc\u2028d",
    "\x1b]0;title\x07\x1b[2J",
    "the red square " * 3334, "x" * 100_000, "../../etc/passwd", "/etc/passwd", "C:\\a\\b.jpg",
    "<script>alert(1)</script>", '=HYPERLINK("x")', "%s%n{0}", "!!python/object:os.system",
    "${roots}", ".npy", "train", "info",
)  # fmt: skip
"""Right to left, emoji, half a pair of surrogates, ten thousand words, what other programs run."""


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


JUNK = st.one_of(
    st.none(),
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS),
    st.text(max_size=20),
    st.integers(),
    st.floats(),
    st.sampled_from(([], {}, [[]], [None], [{}], {"": None}, [1, 2, 3], [1, 2, 3, 4], [[5, 5, 9]])),
    st.builds(_nested, st.sampled_from((3, 100, 400))),
    st.dictionaries(st.text(max_size=5), st.none() | st.integers(), max_size=3),
).map(copy.deepcopy)  # fmt: skip


def _places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything in nested lists and dicts, not to the whole."""
    rows = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in rows:
        yield (*path, key)
        if isinstance(value, dict | list | tuple):
            yield from _places(value, (*path, key))


def _as_lists(content: Any) -> Any:
    """Tuples as lists, so that something in them can be replaced."""
    if isinstance(content, dict):
        return {key: _as_lists(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_as_lists(value) for value in content]
    return content


@st.composite
def changed(draw: st.DrawFn, content: Any) -> Any:
    """The content with one to three values dropped, replaced, retyped, repeated or renamed."""
    content = _as_lists(copy.deepcopy(content))
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3)))):
        if not isinstance(content, dict | list) or not content or draw(st.integers(0, 40)) == 0:
            return draw(JUNK)
        # Most of a file is entries alike: what is near its top is chosen every third time.
        places = list(_places(content))
        near = [place for place in places if len(place) <= 2]
        place = draw(st.sampled_from(draw(st.sampled_from((near, places, places)))))
        holder = content
        for key in place[:-1]:
            holder = holder[key]
        _change(draw, holder, place[-1])
    return content


def _change(draw: st.DrawFn, holder: Any, key: Any) -> None:
    kind = draw(st.sampled_from(("drop", "replace", "replace", "retype", "repeat", "rename")))
    value = holder[key]
    if kind == "drop":
        del holder[key]
    elif kind == "replace":
        holder[key] = draw(JUNK)
    elif kind == "retype":
        holder[key] = draw(st.sampled_from(_other_types(value)))
    elif kind == "repeat" and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(value))
    elif isinstance(holder, dict):
        holder[draw(st.sampled_from((*TEXTS[:14], *map(str, holder))))] = holder.pop(key)
    else:
        holder[key] = draw(JUNK)


def _other_types(value: Any) -> list[Any]:
    found = [str(value), [value], {"value": value}, {str(value)[:20]: 1}]
    if isinstance(value, int | float) and not isinstance(value, bool):
        found += [float(value) + 0.5 if abs(value) < 1e300 else 0.5, -value, value * 10**9]
    if isinstance(value, str):
        found += [
            value.encode("utf-8", "surrogatepass").decode("latin-1"),
            value * 2,
            value[:-1],
            list(value),
        ]
    if isinstance(value, list):
        found += [dict(enumerate(map(str, value))), value[:-1], value * 2]
    if isinstance(value, dict):
        found += [list(value), list(value.values()), list(map(list, value.items()))]
    return found


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes cut off, with others in their places, with less or more in the middle."""
    kind = draw(st.sampled_from(("cut", "flip", "flip", "remove", "insert", "repeat", "zeros")))
    place = draw(st.integers(0, len(data)))
    end = min(len(data), place + draw(st.sampled_from((1, 2, 4, 16, 256, 4096))))
    if kind == "cut":
        return data[:place]
    if kind == "remove":
        return data[:place] + data[end:]
    if kind == "insert":
        return data[:place] + draw(st.binary(max_size=8) | st.sampled_from(PIECES)) + data[place:]
    if kind == "repeat":
        return data[:end] + data[place:]
    if kind == "zeros":
        return data[:place] + bytes(end - place) + data[end:]
    return _flipped(draw, data)


def _flipped(draw: st.DrawFn, data: bytes) -> bytes:
    found = bytearray(data)
    for _ in range(draw(st.sampled_from((1, 2, 8))) if data else 0):
        # What says how a file is made comes first in it.
        last = draw(st.sampled_from((min(64, len(data)), min(512, len(data)), len(data)))) - 1
        found[draw(st.integers(0, last))] = draw(st.integers(0, 255))
    return bytes(found)


PIECES = (
    b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\0" * 4, b'"', b"{", b"]", b"\\u0000",
    b"1e999", b"-",
)  # fmt: skip
OTHER_FILES = (
    b"",
    b"\n",
    b"\0" * 64,
    codecs.BOM_UTF8,
    codecs.BOM_UTF16_LE + "[]".encode("utf-16-le"),
    "[é]".encode("latin-1"),
    b"null",
    b"0",
    b'""',
    b"[]",
    b"{}",
    b"[[]]",
    b"[null]",
    b"NaN",
    b"[" * 100_000,
    b"[" * 3000 + b"]" * 3000,
    b'{"a":' * 100_000,
    b"9" * 10_000,
    b"[" + b"9" * 10_000 + b"]",
    b'[{"image": ' + b"9" * 10_000 + b"}]",
    b"<!DOCTYPE html><html>404</html>",
    b"PK\x03\x04" + bytes(60),
    b"\x80\x02K\x00.",
    b"\x1f\x8b" + zlib.compress(bytes(1000)),
    json.dumps({"a": {"b": 1}, "train": [], "val": None}).encode(),
    b"\x93NUMPY\x01\x00v\x00",
)
"""Files of another kind, or none at all."""

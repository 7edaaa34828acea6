"""What a pickle of plain values may name, and what is called in its place.

Plain values are None, numbers, strings, lists, tuples, dicts, sets, numpy scalars and arrays.
NumPy's own constructors are not called: the state of a `numpy.dtype` in a pickle can turn bytes
into pointers.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

_TYPE_CODE = re.compile(r"[biufc]\d{0,2}|[SU]\d*|O8?|\?")


class _Type:
    """Stands for a `numpy.dtype` of numbers, strings or objects while a pickle is read."""

    def __init__(self, code: Any, _align: Any = False, _copy: Any = True) -> None:
        code = _text(code)
        if not _TYPE_CODE.fullmatch(code):
            raise pickle.UnpicklingError(f"it holds an array of type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order, fields, size = _text(state[1]), state[2:5], state[5]
        if any(part is not None for part in fields):
            raise pickle.UnpicklingError("it holds an array with fields")
        if self.dtype.kind in "SU":
            letters = size if self.dtype.kind == "S" else size // 4
            self.dtype = np.dtype(f"{self.dtype.kind}{int(letters)}")
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray):
    """An array that takes its content from a pickle; its type has been checked by `_Type`."""

    def __new__(cls, *_arguments: Any) -> _Array:
        raise pickle.UnpicklingError("it makes an array of memory that is not its own")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, kind, fortran, content = state[-4:]
        dtype = _type(kind)
        if dtype != np.dtype(object):
            content = _bytes(content)
        whole: tuple[Any, ...] = (1, tuple(map(int, shape)), dtype, bool(fortran), content)
        super().__setstate__(whole)


def _empty_array(_class: Any, _shape: Any, _code: Any) -> _Array:
    return np.empty(0, dtype=np.uint8).view(_Array)


def _array_from_buffer(buffer: Any, kind: _Type, shape: Any, order: Any) -> np.ndarray:
    flat = np.frombuffer(_bytes(buffer), _plain_type(kind))
    return flat.reshape(shape, order="F" if _text(order) == "F" else "C").copy()


def _scalar(kind: _Type, content: Any) -> Any:
    dtype = _plain_type(kind)
    content = _bytes(content)
    if len(content) != dtype.itemsize:
        raise pickle.UnpicklingError(f"it holds {len(content)} bytes as a number of type {dtype}")
    return np.frombuffer(content, dtype)[0]


def _type(kind: Any) -> np.dtype:
    if not isinstance(kind, _Type):
        raise pickle.UnpicklingError(f"it gives {type(kind).__name__} as the type of an array")
    return kind.dtype


def _plain_type(kind: Any) -> np.dtype:
    dtype = _type(kind)
    if dtype == np.dtype(object):
        raise pickle.UnpicklingError("it makes objects out of bytes")
    return dtype


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _bytes(value: Any) -> bytes:
    # Python 2's byte strings arrive as text, one character per byte.
    return value.encode("latin1") if isinstance(value, str) else bytes(memoryview(value))


def _encode(text: str, encoding: str = "latin1") -> bytes:
    # How protocols before 3 write Python 3's bytes.
    if _text(encoding) != "latin1":
        raise pickle.UnpicklingError(f"it encodes text as {encoding!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


class _Call:
    """A function as pickles see it: they can call it, but not change it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes a function")


ALLOWED: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _Call(_encode),
    "numpy.ndarray": _Array,
    "numpy.dtype": _Type,
}
for _module in ("builtins", "__builtin__"):
    ALLOWED |= {f"{_module}.set": set, f"{_module}.frozenset": frozenset}
    ALLOWED[f"{_module}.bytes"] = _Call(_no_bytes)
for _core in ("numpy.core", "numpy._core"):  # before and since NumPy 2
    ALLOWED[f"{_core}.multiarray._reconstruct"] = _Call(_empty_array)
    ALLOWED[f"{_core}.multiarray.scalar"] = _Call(_scalar)
    ALLOWED[f"{_core}.numeric._frombuffer"] = _Call(_array_from_buffer)


def torch_globals() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """`ALLOWED` as `torch.serialization.safe_globals` takes it."""
    return [(replacement, name) for name, replacement in ALLOWED.items()]

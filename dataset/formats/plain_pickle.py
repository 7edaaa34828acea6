"""Pickles as data: nothing that they name is ever called, except what is defined in this file.

Read are plain pickles (REFER's `refs(...).p`) and files of `torch.save` (the `.pth` lists of ReSC,
TransVG and RefTR) in the zip layout and in the one before it, written by Python 2 or 3. They may
hold None, numbers, strings, lists, tuples, dicts, sets, numpy scalars and arrays, and tensors.

NumPy's own constructors are not called: the state of a `numpy.dtype` in a pickle can turn bytes
into pointers.
"""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

# What the unpickler raises on damaged bytes depends on the instruction that they happen to form.
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    MemoryError,
    RuntimeError,
    AssertionError,
    zipfile.BadZipFile,
)
_ZIP = b"PK\x03\x04"
# What torch.save once wrote first.
_LEGACY = 0x1950A86A20F9469CFC6C
# Protocol and platform, which follow that number before the object.
_LEGACY_HEADERS = 2
_TYPE_CODE = re.compile(r"[biufc]\d{0,2}|[SU]\d*|O8?|\?")


class _HoldsTensors(pickle.UnpicklingError):
    """The pickle asks for torch: `torch.load(weights_only=True)` knows what of it is harmless."""


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
        super().__setstate__((1, tuple(map(int, shape)), dtype, bool(fortran), content))


def _empty_array(_class: Any, _shape: Any, _code: Any) -> _Array:
    return np.empty(0, dtype=np.uint8).view(_Array)


def _array_from_buffer(buffer: Any, kind: _Type, shape: Any, order: Any) -> np.ndarray:
    dtype = _plain_type(kind)
    return np.frombuffer(_bytes(buffer), dtype).reshape(shape, order=_text(order)).copy()


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


_ALLOWED: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _Call(_encode),
    "numpy.ndarray": _Array,
    "numpy.dtype": _Type,
}
for _module in ("builtins", "__builtin__"):
    _ALLOWED |= {f"{_module}.set": set, f"{_module}.frozenset": frozenset}
    _ALLOWED[f"{_module}.bytes"] = _Call(_no_bytes)
for _core in ("numpy.core", "numpy._core"):  # before and since NumPy 2
    _ALLOWED[f"{_core}.multiarray._reconstruct"] = _Call(_empty_array)
    _ALLOWED[f"{_core}.multiarray.scalar"] = _Call(_scalar)
    _ALLOWED[f"{_core}.numeric._frombuffer"] = _Call(_array_from_buffer)


class _PlainUnpickler(pickle.Unpickler):
    """Refuses every name that is not in `_ALLOWED`."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" in _ALLOWED:
            return _ALLOWED[f"{module}.{name}"]
        message = f"it asks for {module}.{name}"
        if module.split(".")[0] == "torch":
            raise _HoldsTensors(message)
        raise pickle.UnpicklingError(message)

    def persistent_load(self, pid: Any) -> Any:
        raise _HoldsTensors(f"it refers to {str(pid)[:80]} outside the pickle")


def read(
    path: str | os.PathLike[str],
    *,
    missing: str = "check its path",
    damaged: str = "fetch it again",
) -> Any:
    """What a pickle or a file of `torch.save` holds; byte strings of Python 2 are read as Latin-1.

    Args:
        path: the file.
        missing, damaged: what to do if it does not exist or cannot be read, for the message.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a pickle, damaged, or a pickle that holds more than plain data (it is not
            executed).
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist; {missing}")
    try:
        with open(path, "rb") as file:
            try:
                return _load_plain(file)
            except _HoldsTensors:
                return _load_tensors(file)
    except _DAMAGE as error:
        raise ValueError(f"{path} is not a pickle of plain data ({error}); {damaged}") from error


def _load_plain(file: IO[bytes]) -> Any:
    is_zip = file.read(len(_ZIP)) == _ZIP
    file.seek(0)
    if is_zip:
        with zipfile.ZipFile(file) as archive:
            (name,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
            with archive.open(name) as member:
                return _unpickle(member)
    content = _unpickle(file)
    if not isinstance(content, int) or content != _LEGACY:
        return content
    for _ in range(_LEGACY_HEADERS):
        _unpickle(file)
    return _unpickle(file)


def _unpickle(file: IO[bytes]) -> Any:
    return _PlainUnpickler(file, encoding="latin1").load()


def _load_tensors(file: IO[bytes]) -> Any:
    file.seek(0)
    # The pairs replace NumPy's constructors by those above here too.
    safe = [(replacement, name) for name, replacement in _ALLOWED.items()]
    with torch.serialization.safe_globals(safe):
        try:
            return torch.load(file, weights_only=True, map_location="cpu")
        except pickle.UnpicklingError as error:
            # PyTorch's own message recommends to load the file without this protection.
            names = re.findall(r"GLOBAL ([\w.]+)", str(error)) or ["more than tensors"]
            raise pickle.UnpicklingError(f"it asks for {names[-1]}") from error

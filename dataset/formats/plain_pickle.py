"""Pickles as data: nothing that they name is ever called, except what `plain_values` puts there.

Read are plain pickles (REFER's `refs(...).p`) and files of `torch.save` (the `.pth` lists of ReSC,
TransVG and RefTR) in the zip layout and in the one before it, written by Python 2 or 3. They may
hold plain values and tensors.
"""

import os
import pickle
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import torch

from groundwork.files import plain_values

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
    OSError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
_ZIP = b"PK\x03\x04"
# What torch.save once wrote first.
_LEGACY = 0x1950A86A20F9469CFC6C
# Protocol and platform, which follow that number before the object.
_LEGACY_HEADERS = 2


class _HoldsTensors(pickle.UnpicklingError):
    """The pickle asks for torch: `torch.load(weights_only=True)` knows what of it is harmless."""


class _PlainUnpickler(pickle.Unpickler):
    """Refuses every name that is not in `plain_values.ALLOWED`."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" in plain_values.ALLOWED:
            return plain_values.ALLOWED[f"{module}.{name}"]
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
    with torch.serialization.safe_globals(plain_values.torch_globals()):
        try:
            return torch.load(file, weights_only=True, map_location="cpu")
        except pickle.UnpicklingError as error:
            # PyTorch's own message recommends to load the file without this protection.
            names = re.findall(r"GLOBAL ([\w.]+)", str(error)) or ["more than tensors"]
            raise pickle.UnpicklingError(f"it asks for {names[-1]}") from error

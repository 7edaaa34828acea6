"""Files of torch.export (.pt2) that are data alone: `plain_pt2`.

What torch.export.load reads it may run: pickles in the place of tensors, compiled libraries, sizes
and guards as Python expressions, names that become part of generated code, any function of torch by
its name. What `tools.export` writes needs little of it, and a file with more than that is refused
before torch sees it.
"""

import ast
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from groundwork.models.common.checkpoint import CheckpointError

_MODEL, _INPUTS = "models/model.json", "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_TENSORS = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_NOTES = re.compile(r"archive_format|archive_version|byteorder|\.data/\w+|extra/[\w.]+")
_NAME = re.compile(r"[\w.]*", re.ASCII)
# What stands under these keys is other text than names.
_TEXTS = {
    "as_float": re.compile(r"-?Infinity|NaN"),
    "as_string": re.compile(r"[\w.,> -]*", re.ASCII),  # cpu, bkd,bd->bk
    "torch_version": re.compile(r"[\w.+]*", re.ASCII),
    "context": re.compile(r'null|\[[\w", ]*\]', re.ASCII),
}
_OPERATORS = re.compile(
    r"_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
    r"|torch\.sym_\w+|math\.[a-z]\w*"
    r"|torch\.ops\.higher_order\.wrap_with_(autocast|set_grad_enabled)"
    r"|torch\.ops\.groundwork\.\w+\.\w+",
    re.ASCII,
)
_ATEN = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)", re.ASCII)
# Arguments that are texts; others name files.
_OPTIONS = {"approximate", "equation", "indexing", "mode", "padding_mode", "reduce",
            "rounding_mode"}  # fmt: skip
_SYMPY = {"Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Min", "Max", "Mod", "Eq",
          "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "Equality", "Unequality", "LessThan",
          "StrictLessThan", "GreaterThan", "StrictGreaterThan", "FloorDiv", "CleanDiv", "CeilDiv",
          "PythonMod", "ModularIndexing", "Where", "PowByNatural", "IntTrueDiv", "FloatTrueDiv",
          "CeilToInt", "FloorToInt", "TruncToInt", "RoundToInt", "ToFloat", "Identity"}  # fmt: skip
_SYNTAX = (
    ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.BinOp,
    ast.UnaryOp, ast.Compare, ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip


def plain_pt2(path: Path) -> io.BytesIO:
    """The archive anew, of what was looked at, so that torch finds nothing else in it; without the
    example that it was traced with, and so without its guards, which are programs.

    Raises:
        OSError, zipfile.BadZipFile, ValueError, LookupError, TypeError, RecursionError: it is
            damaged.
        CheckpointError: there is more in it than data.
    """
    written = io.BytesIO()
    with zipfile.ZipFile(path) as given, zipfile.ZipFile(written, "w") as kept:
        for entry in given.infolist():
            _, _, name = entry.filename.partition("/")
            if entry.filename in kept.NameToInfo or entry.compress_type != zipfile.ZIP_STORED:
                raise _refused(path, f"{entry.filename} twice, or compressed")
            content = given.read(entry)
            if name == _MODEL:
                content = json.dumps(_without_notes(json.loads(content))).encode()
            elif name == _INPUTS:
                content = b""
            elif not (name in _CONFIGS or _TENSORS.fullmatch(name) or _NOTES.fullmatch(name)):
                raise _refused(path, name)
            if name in (_MODEL, *_CONFIGS):
                _require_plain(path, json.loads(content))
            kept.writestr(entry.filename, content)
    written.seek(0)
    return written


def _without_notes(model: Any) -> Any:
    """A graph without its guards, and its nodes without notes of where they are from."""
    waiting = [model]
    while waiting:
        one = waiting.pop()
        waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        if isinstance(one, dict) and "target" in one:
            one["metadata"] = {}
    return {**model, "guards_code": []}


def _require_plain(path: Path, value: Any) -> None:
    """Raises CheckpointError if a text in JSON, or a key, is more than it has to be."""
    waiting = [("", value)]
    while waiting:
        key, one = waiting.pop()
        if isinstance(one, dict):
            for name in one:
                _require_match(path, _NAME, name)
            waiting += one.items()
        elif isinstance(one, list):
            waiting += ((key, part) for part in one)
        elif key == "use_pickle" and one is not False:
            raise _refused(path, "a pickle")
        elif isinstance(one, str):
            _require_text(path, key, one)


def _require_text(path: Path, key: str, text: str) -> None:
    if key in ("target", "as_operator"):
        _require_operator(path, text)
    elif key == "expr_str":
        _require_expression(path, text)
    elif key in ("in_spec", "out_spec"):
        _require_plain(path, json.loads(text or "[]"))
    else:
        _require_match(path, _TEXTS.get(key, _NAME), text)


def _require_match(path: Path, pattern: re.Pattern[str], text: str) -> None:
    if not pattern.fullmatch(text):
        raise _refused(path, f"the text {text[:60]!r}")


def _require_operator(path: Path, name: str) -> None:
    """Of tensors or numbers, without a text that could be the name of a file."""
    if match := _ATEN.fullmatch(name):
        packet = getattr(torch.ops.aten, match[1], None)
        operator = getattr(packet, match[2], None)
        if isinstance(operator, torch._ops.OpOverload):
            texts = {one.name for one in operator._schema.arguments if "str" in str(one.type)}
            if texts <= _OPTIONS:
                return
    elif _OPERATORS.fullmatch(name):
        return
    raise _refused(path, f"the function {name[:60]!r}")


def _require_expression(path: Path, text: str) -> None:
    """Of numbers and symbols by the functions of `_SYMPY`."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, MemoryError) as error:
        raise _refused(path, f"the expression {text[:60]!r}") from error
    for node in ast.walk(tree):
        named = not isinstance(node, ast.Call) or isinstance(node.func, ast.Name)
        known = not isinstance(node, ast.Name) or node.id in _SYMPY
        short = not isinstance(node, ast.Constant) or _NAME.fullmatch(str(node.value).lstrip("-"))
        if not (isinstance(node, _SYNTAX) and named and known and short):
            raise _refused(path, f"the expression {text[:60]!r}")


def _refused(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: holds {what}, by which a .pt2 file might run a program; load it with torch if you"
        " trust whoever made it, or take its checkpoint or its ONNX file"
    )

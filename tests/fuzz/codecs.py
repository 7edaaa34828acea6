"""Files as values that can be changed, and back."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from groundwork.settings.parsing import parse_yaml


class Codec(NamedTuple):
    """decode: bytes of a sound file -> its content. encode: any content -> bytes of such a file."""

    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]


def _to_json(content: Any) -> bytes:
    # Escaped, so that half a surrogate pair can be written; NaN as other programs write it.
    return json.dumps(content, default=str).encode()


def _from_lines(text: bytes) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def _to_lines(content: Any) -> bytes:
    rows = content if isinstance(content, list) else [content]
    return b"".join(_to_json(row) + b"\n" for row in rows)


def _to_torch(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _from_zip(file: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    return {
        name: json.loads(content) if name.endswith(".json") else content.decode("latin-1")
        for name, content in entries.items()
    }


def _to_zip(content: Any) -> bytes:
    if not isinstance(content, dict):
        return _to_json(content)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, one in content.items():
            plain = isinstance(one, str) and not name.endswith(".json")
            entry = name.partition("\0")[0] or "/"  # zipfile writes none without a name
            written = one.encode("latin-1", "replace") if plain else _to_json(one)
            archive.writestr(entry, written)
    return buffer.getvalue()


def _from_onnx(file: bytes) -> dict[str, Any]:
    import onnx  # an extra
    from google.protobuf import json_format

    return json_format.MessageToDict(onnx.load_from_string(file))


def _to_onnx(content: Any) -> bytes:
    """As far as the content has the form of a graph; else JSON in its place."""
    import onnx  # an extra
    from google.protobuf import json_format

    try:
        return json_format.ParseDict(content, onnx.ModelProto()).SerializeToString()
    # SystemError: what protobuf makes of a key that is no text.
    except (json_format.ParseError, AttributeError, TypeError, ValueError, RecursionError,
            SystemError):  # fmt: skip
        return _to_json(content)


JSON = Codec(json.loads, _to_json)
LINES = Codec(_from_lines, _to_lines)
# JSON is YAML 1.2, too.
YAML = Codec(lambda text: parse_yaml(text.decode(), "a sample"), _to_json)
PICKLE = Codec(pickle.loads, lambda content: pickle.dumps(content, protocol=2))
ZIP = Codec(_from_zip, _to_zip)
"""An archive of JSON and bytes."""
ONNX = Codec(_from_onnx, _to_onnx)
TORCH = Codec(lambda file: torch.load(io.BytesIO(file), weights_only=True), _to_torch)

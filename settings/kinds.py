"""What a released YAML file is for, told by keys that only one kind of file has."""

from collections.abc import Set as AbstractSet
from pathlib import Path

from groundwork.files.foreign import read_text
from groundwork.settings.load import Purpose
from groundwork.settings.parsing import parse_yaml

_FLICKR = {"flickr_data", "image_ids_file"}
_GROUNDING = {"benchmark", "test_file", "explanation", *_FLICKR}
_PRETRAIN = {"stages", "add_gcam"}


def keys_of(path: Path) -> set[str]:
    """The top-level keys of a file and of those that it builds on.

    Raises:
        FileNotFoundError: no such file. ValueError: no keys in it.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such configuration file; see configs/, or --help for names of data sets"
        )
    raw = parse_yaml(read_text(path), str(path))
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: expected keys and values at the top level")
    below = keys_of(path.parent / str(raw["base"])) if "base" in raw else set()
    return below | set(raw)


def purpose_of(keys: AbstractSet[str]) -> Purpose:
    """What `load_config` is to read a file with these top-level keys for."""
    return "evaluation" if keys & _GROUNDING and not keys & _PRETRAIN else "training"


def released_benchmark(keys: AbstractSet[str], default: str) -> str:
    """The benchmark of a released evaluation file, which does not name it: only Flickr30k's has
    keys of its own."""
    return "flickr30k" if keys & _FLICKR else default

"""A system as a folder to keep, to share and to find on the hub: weights, configuration, tokeniser,
model card."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from groundwork.files.foreign import parse_json, read_text
from groundwork.files.safe import atomic_write, write_text
from groundwork.models.common.checkpoint import CheckpointError
from groundwork.settings import RunConfig

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
_TOKENIZERS = ("words.txt", "pieces.spm", "vocab.txt", "vocab.json", "merges.txt")
PRESENT = "present.json"
_SAVED = [WEIGHTS, CONFIG, CARD, PRESENT, *_TOKENIZERS]
_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_FILES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".tar", ".zip")


def located(source: str | Path) -> Path:
    """The file or folder `source`, or the local copy of a folder of the hub.

    The hub is asked only for what looks like its ids, OWNER/NAME, and is no path.

    Raises:
        FileNotFoundError: a folder without such files; an id that is not to be had.
    """
    path = Path(source)
    if path.is_dir():
        _require(path)
        return path
    name = str(source)
    if path.exists() or not _ID.fullmatch(name) or path.suffix in _FILES or path.parent.is_dir():
        return path
    return _fetched(name)


def _require(folder: Path) -> None:
    missing = [name for name in (WEIGHTS, CONFIG) if not (folder / name).is_file()]
    if missing:
        files = sorted(file.name for file in folder.glob("*.pth"))
        hint = f"; give one of its files: {', '.join(files[:5])}" if files else ""
        raise FileNotFoundError(
            f"{folder} has no {' and no '.join(missing)}, so save_pretrained did not write it{hint}"
        )


def read(folder: Path) -> dict[str, Any]:
    """`model`, the state dict, and `config`, as a checkpoint file holds them.

    Raises:
        FileNotFoundError, CheckpointError: files are missing or damaged.
    """
    _require(folder)
    try:
        state = safetensors.torch.load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise CheckpointError(f"{folder / WEIGHTS}: damaged ({error}); copy it again") from error
    try:
        config = parse_json(read_text(folder / CONFIG), str(folder / CONFIG), "copy it again")
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    return {"model": state, "config": config}


def without_places(config: RunConfig, text_encoder: str) -> RunConfig:
    """A configuration for others: where the data of its training lay is of no use to anybody else.

    Args:
        text_encoder: the tokeniser's files in what is shared.
    """
    data = replace(
        config.data,
        text_encoder=text_encoder,
        train={}, evaluate={}, labels=None, image_root="", cache_dir=None,
    )  # fmt: skip
    return replace(config, data=data, stages=(), select=None)


def write(folder: Path, state: dict[str, Tensor], config: dict[str, Any], card: str) -> None:
    """What `read` reads, and the card; tokeniser files are the caller's."""
    # Tied weights are one tensor in a model; the format wants every entry by itself.
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    with atomic_write(folder / WEIGHTS) as partial:
        safetensors.torch.save_file(tensors, partial, metadata={"format": "pt"})
    write_text(folder / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / CARD, card)


def _fetched(name: str) -> Path:
    # Imported where a hub id is given and nowhere else.
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(name, allow_patterns=_SAVED)
    except _failures() as error:
        raise FileNotFoundError(
            f"{name} is neither a file nor a folder, nor to be had from the hub"
            f" ({type(error).__name__}); check the name and the network, or give the path of a copy"
        ) from error
    _require(Path(folder))
    return Path(folder)


def push(folder: Path, name: str, *, private: bool = False) -> str:
    """Uploads a folder to the hub under OWNER/NAME, which is made if it is new.

    Hub and login are those of huggingface_hub's settings.

    Returns:
        The address of the upload.

    Raises:
        ValueError: no id. ConnectionError: the hub is not reached or refuses.
    """
    from huggingface_hub import HfApi

    if not _ID.fullmatch(name):
        raise ValueError(f"{name!r} is no id of the hub; give OWNER/NAME")
    try:
        api = HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder))
    except _failures() as error:
        raise ConnectionError(
            f"{name} was not uploaded to the hub ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no reason given'}); check the network"
            " and the login (hf auth login), or save_pretrained and upload the folder later"
        ) from error


def _failures() -> tuple[type[Exception], ...]:
    """What the hub's client raises without a network, a login or such a name."""
    from huggingface_hub.errors import HfHubHTTPError

    # Its bases are those of the HTTP library that this version of the client uses.
    of_library: tuple[Any, ...] = HfHubHTTPError.__bases__
    return (OSError, ValueError, *of_library)

"""A built system of a checkpoint file, published or own, told by what is in the file."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from groundwork.jobs.tokenizers import PIECES_FILE, WORDS_FILE, Tokenizer, load_texts
from groundwork.models import SYSTEMS
from groundwork.models.common.checkpoint import CheckpointError, read_checkpoint, recognise
from groundwork.models.common.system import ImageTextSettings, Parts
from groundwork.settings import RunConfig, load_config
from groundwork.settings.load import config_of
from groundwork.settings.parsing import apply_overrides
from groundwork.settings.roots import root_overrides

logger = logging.getLogger("groundwork")
# Reading a checkpoint changes what torch.load admits, for the whole process, while it lasts.
_LOADING = threading.Lock()


@dataclass(frozen=True)
class About:
    """What was taken for a checkpoint: the system's key in `models.SYSTEMS` and its title; the
    file; where configuration and tokeniser are from; what became of the file's entries."""

    system: str
    title: str
    source: str
    config: str
    tokenizer: str
    weights: str

    def __str__(self) -> str:
        return (
            f"{self.source}: {self.title}, configuration of {self.config}, tokeniser"
            f" {self.tokenizer}. {self.weights}"
        )


@dataclass(frozen=True)
class Loaded:
    """A system with its weights, in evaluation mode, and what belongs to it."""

    config: RunConfig
    parts: Parts
    tokenizer: Tokenizer
    about: About


def load_system(
    checkpoint: str | Path,
    *,
    device: torch.device,
    config: str | Path | RunConfig | None = None,
    tokenizer: str | Path | None = None,
    data: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> Loaded:
    """A system with the weights of a file on `device`.

    Args:
        checkpoint: a .pth file.
        config: a shipped configuration such as reftr/refcoco, a YAML file, or one that was read;
            None: what the file holds, or what its keys and shapes say.
        tokenizer: in the place of the configuration's data.text_encoder.
        data: root of the data, as of the scripts' --data.
        overrides: KEY=VALUE texts over the configuration, as of the scripts' --set.

    Raises:
        FileNotFoundError: no such file, configuration or tokeniser.
        ValueError: nothing tells what the file is, or it does not fit; says what to give.
    """
    file = Path(checkpoint)
    with _LOADING:
        content = read_checkpoint(file)
        changes = [*root_overrides(data), *overrides]
        settings, origin = _configuration(content, file, config, changes)
        settings = _with_tokenizer(settings, file, tokenizer)
        texts = _texts(settings, content, file)
        system = SYSTEMS[settings.system]
        parts = system.build(settings.model, texts, training=False)
        report = system.load(parts.model, file)
    parts.evaluated.to(device).eval()
    about = About(
        system=settings.system,
        title=system.title,
        source=str(checkpoint),
        config=origin,
        tokenizer=_name_of(settings, content),
        weights=str(report),
    )
    logger.info("%s", about)
    return Loaded(settings, parts, texts, about)


def _configuration(
    content: Mapping[str, Any],
    file: Path,
    config: str | Path | RunConfig | None,
    overrides: Sequence[str],
) -> tuple[RunConfig, str]:
    """The configuration, and where it is from."""
    if isinstance(config, RunConfig):
        return config, "the caller"
    if config is not None:
        return load_config(config, overrides, purpose="evaluation"), str(config)
    kept = content.get("config")
    if isinstance(kept, dict) and "stages" in kept:
        raw = copy.deepcopy(kept)
        apply_overrides(raw, [text for text in overrides if not text.startswith("roots.")], "--set")
        return _as_evaluated(config_of(raw, f"{file}: config")), "the file itself"
    raise CheckpointError(
        f"{file} holds no configuration and looks like a checkpoint of"
        f" {recognise(content['model'])}; name one with config=, such as reftr/refcoco"
    )


def _as_evaluated(trained: RunConfig) -> RunConfig:
    """A training configuration as that of an evaluation: heat maps, whose evaluations have files of
    their own, are found in single precision; boxes and masks in that of the training."""
    heat_maps = isinstance(trained.model, ImageTextSettings)
    return replace(trained, precision="fp32") if heat_maps else trained


def _with_tokenizer(config: RunConfig, file: Path, tokenizer: str | Path | None) -> RunConfig:
    """With the tokeniser that was given, or with the configuration's where it is: relative paths
    are looked for from the working directory, then from the folders above the checkpoint."""
    name = str(config.data.text_encoder if tokenizer is None else tokenizer)
    path = Path(name)
    if len(path.parts) > 1 and not path.exists() and not path.is_absolute():
        above = (folder / path for folder in file.resolve().parents)
        name = str(next((place for place in above if place.exists()), path))
    return replace(config, data=replace(config.data, text_encoder=name))


def _texts(config: RunConfig, content: Mapping[str, Any], file: Path) -> Tokenizer:
    """The tokeniser.

    Raises:
        FileNotFoundError, ValueError: it is not to be had; names the argument that gives it.
    """
    name, data = config.data.text_encoder, config.data
    beside = (file.parent / WORDS_FILE).is_file()
    if name == "words" and "vocabulary" not in content and not (beside or data.train):
        raise CheckpointError(
            f"{file} holds no vocabulary, nor is there a {WORDS_FILE} beside it; give tokenizer="
            "words.txt, or config= with the annotation files that it was trained with"
        )
    try:
        return load_texts(config, file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} (tokenizer=)") from error


def _name_of(config: RunConfig, content: Mapping[str, Any]) -> str:
    inside = {"words": "vocabulary", "pieces": "pieces"}.get(config.data.text_encoder)
    if inside is None:
        return config.data.text_encoder
    if inside in content:
        return f"of {len(content[inside])} {config.data.text_encoder} in the file"
    return {"words": WORDS_FILE, "pieces": PIECES_FILE}[config.data.text_encoder] + " beside it"

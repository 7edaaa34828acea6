"""A built system of a checkpoint, published or own, told by what is in it."""

from __future__ import annotations

import copy
import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from groundwork.jobs import pretrained
from groundwork.jobs.tokenizers import (
    PIECES_FILE,
    WORDS_FILE,
    Tokenizer,
    beside_checkpoint,
    load_texts,
)
from groundwork.models import SYSTEMS
from groundwork.models.common.checkpoint import (
    CheckpointError,
    LoadReport,
    read_checkpoint,
    recognise,
)
from groundwork.models.common.layout import Layout
from groundwork.models.common.system import ImageTextSettings, Parts
from groundwork.settings import RunConfig, load_config
from groundwork.settings.load import CONFIGS, config_of
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
    """A system with its weights, in evaluation mode, and what belongs to it. `path`: the file, or
    the folder of `save_pretrained`; `device`: where its batches belong."""

    config: RunConfig
    parts: Parts
    tokenizer: Tokenizer
    about: About
    path: Path
    device: torch.device


@dataclass(frozen=True)
class _Configured:
    """A configuration and where it is from; `published`: told by the keys of the file alone."""

    config: RunConfig
    origin: str
    published: bool = False


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
        checkpoint: a .pth file; a folder that `save_pretrained` wrote; the id of such on the hub.
        config: a shipped configuration such as reftr/refcoco, a YAML file, or one that was read;
            None: what the file holds, or what its keys and shapes say.
        tokenizer: in the place of the configuration's data.text_encoder.
        data: root of the data, as of the scripts' --data.
        overrides: KEY=VALUE texts over the configuration, as of the scripts' --set.

    Raises:
        FileNotFoundError: no such file, configuration or tokeniser.
        ValueError: nothing tells what the file is, or it does not fit; says what to give.
    """
    path = pretrained.located(checkpoint)
    with _LOADING:
        content = pretrained.read(path) if path.is_dir() else read_checkpoint(path)
        changes = [*root_overrides(data), *overrides]
        configured = _configured(content, path, config, changes)
        settings = _with_tokenizer(configured, path, tokenizer)
        texts = _texts(settings, content, path)
        system = SYSTEMS[settings.system]
        parts = system.build(settings.model, texts, training=False)
        if path.is_dir():
            report = LoadReport(source=str(checkpoint))
            system.fill(parts.model, content["model"], report)
        else:
            report = system.load(parts.model, path)
    parts.evaluated.to(device).eval()
    about = About(
        system=settings.system,
        title=system.title,
        source=str(checkpoint),
        config=configured.origin,
        tokenizer=_name_of(settings, content, texts),
        weights=str(report),
    )
    logger.info("%s", about)
    settings = replace(settings, model=system.settings_of(parts.model, settings.model))
    return Loaded(settings, parts, texts, about, path, device)


def _configured(
    content: Mapping[str, Any],
    file: Path,
    config: str | Path | RunConfig | None,
    overrides: Sequence[str],
) -> _Configured:
    if isinstance(config, RunConfig):
        if overrides:
            raise ValueError(
                f"{file}: overrides {', '.join(overrides)} are not applied to a configuration that"
                " was read before; read it with them"
            )
        return _Configured(config, "the caller")
    if config is not None:
        return _Configured(load_config(config, overrides, purpose="evaluation"), str(config))
    kept = content.get("config")
    if isinstance(kept, dict) and "stages" in kept:
        # What it was trained on, and chosen by, is not asked again, and may lie nowhere.
        raw = copy.deepcopy(kept) | {"stages": [], "select": None}
        apply_overrides(raw, [text for text in overrides if not text.startswith("roots.")], "--set")
        return _Configured(
            _as_evaluated(config_of(raw, f"{file}: config")),
            f"the {'folder' if file.is_dir() else 'file'} itself",
        )
    found = next(layouts_of(content, file), None)
    if found is None:
        raise CheckpointError(
            f"{file} holds no configuration and looks like a checkpoint of"
            f" {recognise(content['model'])}; name one with config=, such as reftr/refcoco"
        )
    of_file = [f"{key}={json.dumps(value)}" for key, value in found.settings.items()]
    shipped = CONFIGS / f"{found.config}.yaml"
    read = load_config(shipped, [*of_file, *overrides], purpose="evaluation")
    return _Configured(read, f"{found.config} with the file's sizes ({found.title})", True)


def layouts_of(content: Mapping[str, Any], file: Path) -> Iterator[Layout]:
    """What the systems recognise a file without a configuration as.

    Raises:
        CheckpointError: one does, but cannot tell its sizes.
    """
    for system in SYSTEMS.values():
        try:
            found = system.recognise(content)
        except KeyError as error:
            raise CheckpointError(
                f"{file} looks like a checkpoint of {system.title}, but has no entry {error};"
                " copy or download it again"
            ) from error
        except CheckpointError as error:
            raise CheckpointError(f"{file}: {error}") from error
        if found is not None:
            yield found


def _as_evaluated(trained: RunConfig) -> RunConfig:
    """A training configuration as that of an evaluation: heat maps, whose evaluations have files of
    their own, are found in single precision; boxes and masks in that of the training."""
    heat_maps = isinstance(trained.model, ImageTextSettings)
    return replace(trained, precision="fp32") if heat_maps else trained


def _with_tokenizer(configured: _Configured, file: Path, tokenizer: str | Path | None) -> RunConfig:
    """With the tokeniser that was given; or for a published file with that which lies beside it;
    or with the configuration's where it is: relative paths are looked for from the working
    directory, then from the folders above the checkpoint."""
    config = configured.config
    name = str(config.data.text_encoder if tokenizer is None else tokenizer)
    if tokenizer is None and file.is_dir():
        name = str(file / name)
    elif tokenizer is None and configured.published:
        name = beside_checkpoint(name, file.parent)
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
    words = config.data.text_encoder == "words" and "vocabulary" not in content
    if words and not (file.parent / WORDS_FILE).is_file() and not config.data.train:
        raise _no_vocabulary(file)
    try:
        return load_texts(config, file)
    except FileNotFoundError as error:
        if words:
            raise _no_vocabulary(file) from error
        raise FileNotFoundError(f"{error} (tokenizer=)") from error


def _no_vocabulary(file: Path) -> CheckpointError:
    return CheckpointError(
        f"{file} holds no vocabulary, nor is there a {WORDS_FILE} beside it; give tokenizer="
        "words.txt, or config= and data= with the annotation files that it was trained with"
    )


def _name_of(config: RunConfig, content: Mapping[str, Any], texts: Tokenizer) -> str:
    inside = {"words": "vocabulary", "pieces": "pieces"}.get(config.data.text_encoder)
    if inside is None:
        return config.data.text_encoder
    if inside in content:
        return f"of {len(texts)} {config.data.text_encoder} in the file"
    return {"words": WORDS_FILE, "pieces": PIECES_FILE}[config.data.text_encoder] + " beside it"

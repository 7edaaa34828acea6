"""The check before a run and the run itself, given the same malformed lists: what the check passes,
the run reads to its end, and what the check refuses, the run refuses."""

import argparse
import contextlib
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from groundwork.dataset.text import load_tokenizer
from groundwork.jobs import INPUT_ERRORS
from groundwork.jobs.forms import FORMS
from groundwork.jobs.tokenizers import load_texts
from groundwork.models import SYSTEMS
from groundwork.settings import RunConfig, load_config
from groundwork.settings.kinds import keys_of, purpose_of
from groundwork.tools.check_data import check_part
from groundwork.tools.config_parts import parts_of
from tests.fuzz.annotations import Reader
from tests.fuzz.codecs import JSON, TORCH, Codec

CONFIGS = Path(__file__).parents[2] / "configs"
_CHECK = argparse.Namespace(full=True, sample=None, workers=1, strict=False)
# A sample shows one phrase of its record in an epoch: a fault of another one waits for its turn.
_EPOCHS = 6
# Of a list that is changed; what else is there is linked.
_ENTRIES = 3
_OTHER_SPLITS = ("train", "testA", "testB")


@dataclass(frozen=True)
class Disagreement(Exception):
    """The check said one thing and the run did another."""

    text: str

    def __str__(self) -> str:
        return self.text


def _config(name: str, folder: Path) -> RunConfig:
    path = CONFIGS / f"{name}.yaml"
    changes = [f"roots.embedded={folder}", "batch_size=1", "data.workers=0", "data.cache_dir=null"]
    return load_config(path, changes, purpose=purpose_of(keys_of(path)))


def _refused_by_check(name: str, folder: Path) -> str:
    """What the check finds that would stop a run; "" for nothing."""
    try:
        config = _config(name, folder)
        images = SYSTEMS[config.system].samples == "image_text"
        tokenizer = load_tokenizer(config.data.text_encoder) if images else None
        reports = [check_part(part, tokenizer, _CHECK) for part in parts_of(config)]
    except INPUT_ERRORS as error:
        return str(error)
    return "; ".join(
        f"{kind}: {report['examples'].get(kind)}" for report in reports for kind in report["errors"]
    )


def _refused_by_run(name: str, folder: Path) -> str:
    """The error that ends what a run reads; "" for none."""
    try:
        _read_all(_config(name, folder))
    except INPUT_ERRORS as error:
        return str(error) or type(error).__name__
    return ""


def _read_all(config: RunConfig) -> None:
    form, texts = FORMS[SYSTEMS[config.system].samples], load_texts(config)
    if config.data.train:
        for alone in config.of_stages:
            loader = form.train_loader(alone, texts)
            for epoch in range(_EPOCHS):
                loader.sampler.set_epoch(epoch)
                for _ in loader:
                    pass
    if config.evaluated_splits:
        for _ in form.evaluation(config, config.evaluated_splits, texts).loader:
            pass


def agree(name: str, folder: Path) -> None:
    """Raises Disagreement if check and run differ, ValueError if both refuse."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        check, run = _refused_by_check(name, folder), _refused_by_run(name, folder)
    if check and run:
        raise ValueError(f"{folder}: {run}")
    if run:
        raise Disagreement(f"the check passes what the run refuses: {run}")
    if check:
        raise Disagreement(f"the run reads what the check refuses: {check}")


def _first(content: Any) -> Any:
    """The first entries of a list, or of every split."""
    if isinstance(content, Mapping):
        return {key: _first(value) for key, value in content.items()}
    return content[:_ENTRIES]


def _case(
    name: str,
    files: Mapping[str, Codec],
    trim: Callable[[Any], Any] = _first,
    beside: Mapping[str, Codec] = MappingProxyType({}),
) -> Reader:
    """files: which are changed. beside: others that a run reads as a whole, made short, too."""
    short = {**files, **beside}

    def sample(embedded: Path, folder: Path) -> None:
        for source in embedded.rglob("*"):
            inside = source.relative_to(embedded)
            if source.is_file() and inside.as_posix() not in short:
                (folder / inside).parent.mkdir(parents=True, exist_ok=True)
                os.link(source, folder / inside)
        for file, codec in short.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            content = codec.decode((embedded / file).read_bytes())
            (folder / file).write_bytes(codec.encode(trim(content)))

    return Reader(f"check and run of {name}", files, lambda folder, _: agree(name, folder), sample)


def _whole(content: Any) -> Any:
    return content


READERS: tuple[Reader, ...] = (
    _case("tiny/Pretrain_vg_amc", {"vg/train.json": JSON}),
    _case("tiny/Pretrain_vg_amc_selfeq", {"vg/relation.json": JSON}),
    _case("tiny/Grounding_refcoco", {"refcoco+/test.json": JSON}),
    _case(
        "tiny/Grounding_flickr",
        {
            "flickr30k/bounding_boxes_val.json": JSON,
            "flickr30k/sentences_val.json": JSON,
        },
        _whole,
    ),
    _case(
        "tiny/reftr/refcoco+",
        {"annotations_resc/unc+/unc+_val.pth": TORCH},
        beside={f"annotations_resc/unc+/unc+_{split}.pth": TORCH for split in _OTHER_SPLITS},
    ),
    _case("tiny/refclip/refcoco+", {"anns/refcoco+.json": JSON}),
    _case("tiny/alvg/grefcoco", {"annotations/grefcoco/instances.json": JSON}),
)

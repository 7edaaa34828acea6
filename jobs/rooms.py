"""The box and mask systems by name: what `train.py` and `test.py` need of each room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from groundwork.geometry import Grounding
from groundwork.jobs.tokenizers import vectors_of_words
from groundwork.models.alvg import build as alvg
from groundwork.models.alvg import checkpoint as alvg_checkpoint
from groundwork.models.common.checkpoint import LoadReport
from groundwork.models.refclip import build as refclip
from groundwork.models.refclip import checkpoint as refclip_checkpoint
from groundwork.models.reftr import build as reftr
from groundwork.models.reftr import checkpoint as reftr_checkpoint
from groundwork.models.simrec import build as simrec
from groundwork.models.simrec import checkpoint as simrec_checkpoint


@dataclass(frozen=True, kw_only=True)
class Room:
    """A system.

    title: its name in results. derived: what it does not give itself without masks ("mask" is then
        not given at all).
    build: (model config, tokeniser) -> (model, criterion, postprocess).
    initialise: (model, model config, tokeniser) -> what was loaded, for a new run without a
        checkpoint.
    load: (model, checkpoint) for an evaluation: strict.
    start_from: (model, checkpoint) for a new run: parts of the model may be new.
    fill: (model, published state, report). published_state: model -> state.
    """

    title: str
    derived: tuple[str, ...]
    build: Callable[..., tuple[nn.Module, nn.Module, Callable[[Any, dict], list[Grounding]]]]
    initialise: Callable[[Any, Any, Any], list[LoadReport]]
    load: Callable[[Any, str | Path], LoadReport]
    start_from: Callable[[Any, str | Path], LoadReport]
    fill: Callable[[Any, dict[str, Tensor], LoadReport], None]
    published_state: Callable[[Any], dict[str, Tensor]]


ROOMS: dict[str, Room] = {
    "reftr": Room(
        title="RefTR",
        derived=("point",),
        build=reftr.build,
        initialise=lambda model, config, _: reftr.initialise(model, config.init),
        load=reftr_checkpoint.load,
        start_from=reftr_checkpoint.initialise_from_detection,
        fill=reftr_checkpoint.fill,
        published_state=reftr_checkpoint.published_state,
    ),
    "refclip": Room(
        title="RefCLIP",
        derived=("point",),
        build=refclip.build,
        initialise=lambda model, config, words: refclip.initialise(
            model, config.init, vectors_of_words(config, words)
        ),
        load=refclip_checkpoint.load,
        start_from=refclip_checkpoint.load,
        fill=refclip_checkpoint.fill,
        published_state=refclip_checkpoint.published_state,
    ),
    "simrec": Room(
        title="SimREC",
        derived=("point",),
        build=simrec.build,
        initialise=lambda model, config, words: simrec.initialise(
            model, config.init, vectors_of_words(config, words)
        ),
        load=simrec_checkpoint.load,
        start_from=simrec_checkpoint.load,
        fill=simrec_checkpoint.fill,
        published_state=simrec_checkpoint.published_state,
    ),
    "alvg": Room(
        title="ALVG",
        derived=("point",),
        build=alvg.build,
        initialise=lambda model, config, _: alvg.initialise(model, config.init),
        load=alvg_checkpoint.load,
        start_from=alvg_checkpoint.start_from,
        fill=alvg_checkpoint.fill,
        published_state=alvg_checkpoint.published_state,
    ),
}

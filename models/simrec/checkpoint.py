"""Published SimREC and CSPDarkNet weights in and out of our models."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from groundwork.models.common.checkpoint import (
    LoadReport,
    load_strictly,
    read_checkpoint,
    read_published,
    with_counters,
)
from groundwork.models.common.word_language import check_vocabulary
from groundwork.models.simrec.model import SimREC

BACKBONE = "visual_encoder."
LEAKAGE = (
    "If it was trained on all of COCO, as the official YOLOv5 was, it has seen many of the "
    "RefCOCO, RefCOCO+ and RefCOCOg validation and test images; the published one has not."
)


def load(model: SimREC, path: str | Path) -> LoadReport:
    """Fill `model` from a published or own checkpoint file, the statistics of its frozen layers
    included: training may have moved them.

    Returns:
        What was loaded; `str()` of it is one paragraph.

    Raises:
        FileNotFoundError, CheckpointError: see `models.common.checkpoint`; or the file has another
            vocabulary than the model.
    """
    state, report = read_published(path)
    fill(model, state, report)
    return report


def fill(model: SimREC, published: dict[str, Tensor], report: LoadReport) -> None:
    """`load` for a state dict that is already in memory."""
    check_vocabulary(
        model.lang_encoder, published.get("lang_encoder.embedding.weight"), report.source
    )
    load_strictly(model, with_counters(published, model), report=report)


def published_state(model: SimREC) -> dict[str, Tensor]:
    """The model's state in the published layout, which our names are."""
    return dict(model.state_dict())


def initialise_backbone(model: SimREC, path: str | Path) -> LoadReport:
    """CSPDarkNet from a file of its own, of a whole SimREC, or of a detector in YOLOv5's layout,
    whose first ten layers it is; the neck and the heads are left out.

    Raises:
        FileNotFoundError, CheckpointError: see `models.common.checkpoint`.
    """
    network = model.visual_encoder
    report = LoadReport(source=f"{path} (backbone)", notes=[LEAKAGE])
    state = read_checkpoint(path)["model"]
    inside = {k.removeprefix(BACKBONE): v for k, v in state.items() if k.startswith(BACKBONE)}
    state = inside or state
    layers = [re.match(r"model\.(\d+)\.", key) for key in state]
    beyond = {match[0] for match in layers if match and int(match[1]) >= len(network.model)}
    load_strictly(
        network, with_counters(state, network), report=report, ignored=tuple(sorted(beyond))
    )
    return report

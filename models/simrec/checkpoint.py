"""Published SimREC and CSPDarkNet weights in and out of our models."""

import re
from pathlib import Path

from groundwork.models.common import timm_backbone
from groundwork.models.common.checkpoint import (
    LoadReport,
    load_strictly,
    part_of,
    read_checkpoint,
    with_counters,
)
from groundwork.models.common.timm_backbone import TimmBackbone
from groundwork.models.simrec.model import SimREC

LEAKAGE = (
    "If it was trained on all of COCO, as the official YOLOv5 was, it has seen many of the "
    "RefCOCO, RefCOCO+ and RefCOCOg validation and test images; the published one has not."
)


def initialise_backbone(model: SimREC, path: str | Path) -> LoadReport:
    """CSPDarkNet from a file of its own, of a whole SimREC, or of a detector in YOLOv5's layout,
    whose first ten layers it is; the neck and the heads are left out. A network of timm's from a
    file with its weights."""
    network = model.visual_encoder
    if isinstance(network, TimmBackbone):
        return timm_backbone.initialise_backbone(network, str(path))
    whole = read_checkpoint(path)["model"]
    state = part_of(whole, "visual_encoder.") or whole
    report = LoadReport(source=f"{path} (backbone)", notes=[LEAKAGE])
    layers = [re.match(r"model\.(\d+)\.", key) for key in state]
    beyond = {match[0] for match in layers if match and int(match[1]) >= len(network.model)}
    load_strictly(
        network, with_counters(state, network), report=report, ignored=tuple(sorted(beyond))
    )
    return report

"""Recognises RefCLIP's files, with the published detector of COCO or of Visual Genome."""

from collections.abc import Mapping
from typing import Any

from groundwork.models.common.layout import Layout, State, count_of
from groundwork.models.common.word_layout import sentence_settings
from groundwork.models.refclip.yolov3 import BOXES, HEADS

_LAYERS = "visual_encoder.module_list."
_STAGES = (2, 4, 6, 8, 10)
_VISUAL_GENOME = 100  # classes


def recognise(content: Mapping[str, Any]) -> Layout | None:
    """See `models.common.system.System.recognise`.

    ReferIt's model, of the detector with the classes of Visual Genome, has more candidate cells.
    """
    state: State = content["model"]
    head = f"{_LAYERS}{HEADS[32]}.conv.weight"
    if "linear_vs.weight" not in state or head not in state:
        return None
    classes = len(state[head]) // BOXES - 5
    referit = classes == _VISUAL_GENOME
    blocks = [
        count_of(state, rf"visual_encoder\.module_list\.{n}\.module_list\.(\d+)\.") for n in _STAGES
    ]
    settings = sentence_settings(state) | {
        "model.fusion_width": state["linear_vs.weight"].shape[1],
        "model.detector.width": len(state[f"{_LAYERS}0.conv.weight"]),
        "model.detector.blocks": blocks,
        "model.detector.classes": classes,
    }
    name = "refclip/referit" if referit else "refclip/refcoco"
    return Layout(f"RefCLIP (detector of {classes} classes)", name, settings)

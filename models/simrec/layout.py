"""Recognises SimREC's files."""

from collections.abc import Mapping
from typing import Any

from groundwork.models.common.layout import Layout, State, count_of
from groundwork.models.common.word_layout import sentence_settings

_STAGES = (2, 4, 6, 8)


def recognise(content: Mapping[str, Any]) -> Layout | None:
    """See `models.common.system.System.recognise`. The joint attention has two heads, as
    published."""
    state: State = content["model"]
    if "attention_manner.w_qs.weight" not in state:
        return None
    repeats = [count_of(state, rf"visual_encoder\.model\.{stage}\.m\.(\d+)\.") for stage in _STAGES]
    settings = sentence_settings(state) | {
        "model.backbone.width": len(state["visual_encoder.model.0.conv.weight"]),
        "model.backbone.repeats": repeats,
        "model.head_width": len(state["head.stems.0.conv.weight"]),
    }
    return Layout("SimREC", "simrec/refcoco", settings)

"""What RefCLIP's and SimREC's files say of the sentence encoder that both have."""

from typing import Any

from groundwork.models.common.layout import State, count_of, heads_of

_TEXT = "lang_encoder."


def sentence_settings(state: State) -> dict[str, Any]:
    """Settings of the encoder and the width of its vectors, under their dotted keys.

    The attention has heads of 64 channels, as published.
    """
    width = state[f"{_TEXT}lstm.weight_hh_l0"].shape[1]
    return {
        "model.width": width,
        "model.text.word_width": state[f"{_TEXT}embedding.weight"].shape[1],
        "model.text.layers": count_of(state, r"lang_encoder\.sa_list\.(\d+)\."),
        "model.text.heads": heads_of(width, 64, "model.text.heads"),
        "model.text.ffn": len(state[f"{_TEXT}sa_list.0.ffn.mlp.fc.linear.weight"]),
    }

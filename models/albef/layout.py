"""Recognises the files of ALBEF, AMC and SelfEQ, which have one layout."""

import re
from collections.abc import Mapping
from typing import Any

from groundwork.models.common.layout import Layout, State, count_of, heads_of, side_of

POSITIONS = "visual_encoder.pos_embed"
_PROJECTION = "visual_encoder.patch_embed.proj."
# The released evaluations see images of 384 pixels, whatever size was trained with.
_TRAINED, _EVALUATED = (256, 384), 384


def recognise(content: Mapping[str, Any]) -> Layout | None:
    """See `models.common.system.System.recognise`.

    Which of the three methods trained a file is not in it. Text layers divide their width into
    heads of 64 channels, image blocks likewise.
    """
    state: State = content["model"]
    if POSITIONS not in state or "itm_head.weight" not in state:
        return None
    bert = "text_encoder.bert." if "text_encoder.bert.embeddings.LayerNorm.weight" in state else ""
    bert = bert or "text_encoder."
    vision, text = _vision(state), _text(state, bert)
    layers, fusion = text["num_hidden_layers"], text["fusion_layer"]
    side = vision["image_size"]
    vision["image_size"] = _EVALUATED if side in _TRAINED else side
    settings = {f"model.{key}": value for key, value in vision.items()}
    settings |= {f"model.text.{key}": value for key, value in text.items()}
    settings["model.embed_dim"] = len(state["vision_proj.weight"])
    # A third of the way through the fusion layers, as published: the ninth of twelve.
    explained = fusion + (layers - fusion) // 3
    settings |= {"model.explanation_layer": explained, "model.explanation.block": explained}
    return Layout("ALBEF, AMC or SelfEQ", "Grounding_refcoco", settings)


def _vision(state: State) -> dict[str, Any]:
    width = state[POSITIONS].shape[-1]
    found: dict[str, Any] = {
        "vision_width": width,
        "vision_depth": count_of(state, r"visual_encoder\.blocks\.(\d+)\."),
        "vision_heads": heads_of(width, 64, "model.vision_heads"),
    }
    if f"{_PROJECTION}weight" in state:
        patch = state[f"{_PROJECTION}weight"].shape[-1]
    else:  # every convolution with a kernel of four halves the image
        kernels = (value.shape[-1] for key, value in state.items() if _is_convolution(key, value))
        patch = 2 ** sum(side == 4 for side in kernels)
        found["vision_stem"] = "convolutions"
    grid = side_of(state[POSITIONS].shape[1] - 1, POSITIONS)
    return found | {"patch_size": patch, "image_size": grid * patch}


def _is_convolution(key: str, value: Any) -> bool:
    return re.match(re.escape(_PROJECTION) + r"\d+\.weight$", key) is not None and value.ndim == 4


def _text(state: State, bert: str) -> dict[str, Any]:
    words = state[f"{bert}embeddings.word_embeddings.weight"]
    layer = re.escape(f"{bert}encoder.layer.")
    crossed = [re.match(layer + r"(\d+)\.crossattention\.", key) for key in state]
    return {
        "vocab_size": len(words),
        "hidden_size": words.shape[1],
        "num_hidden_layers": count_of(state, layer + r"(\d+)\."),
        "fusion_layer": min(int(match[1]) for match in crossed if match),
        "num_attention_heads": heads_of(words.shape[1], 64, "model.text.num_attention_heads"),
        "intermediate_size": len(state[f"{bert}encoder.layer.0.intermediate.dense.weight"]),
        "max_position_embeddings": len(state[f"{bert}embeddings.position_embeddings.weight"]),
        "type_vocab_size": len(state[f"{bert}embeddings.token_type_embeddings.weight"]),
    }

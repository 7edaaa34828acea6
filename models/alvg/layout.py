"""Recognises ALVG's files: base or large, with masks or without, one target or any number."""

from collections.abc import Mapping
from typing import Any

from groundwork.models.alvg.beit3 import FIRST_POSITION
from groundwork.models.alvg.checkpoint import OFFSET, QUERIES, is_released
from groundwork.models.common.layout import Layout, State, count_of, heads_of, side_of

_BEIT3, _HEAD = "vis_enc.beit3.", "head."
_CELLS = f"{_BEIT3}encoder.embed_positions.A.weight"
_GENERATOR = f"{_HEAD}text_guided_query_generation_transformer.layers."
_DECODER = f"{_HEAD}transformer.decoder.layers."
_MASKS = f"{_HEAD}mask_head.refine.0.weight"
_LARGE = 1024  # width


def recognise(content: Mapping[str, Any]) -> Layout | None:
    """See `models.common.system.System.recognise`.

    Several queries are for any number of targets. Heads have 64 channels in the encoder and 32
    behind it, as published. A file of the authors, told by parts that nothing uses, works as
    released.
    """
    state: State = content["model"]
    if _CELLS not in state or QUERIES not in state:
        return None
    encoder = _encoder(state)
    queries, masks = len(state[QUERIES]), _MASKS in state
    large, several = encoder["width"] >= _LARGE, queries > 1
    settings = {f"model.{key}": value for key, value in _head(state).items()}
    settings |= {f"model.encoder.{key}": value for key, value in encoder.items()}
    settings |= {
        "model.compat": "released" if is_released(dict(state)) else "default",
        "model.queries": queries,
        "model.several_targets": several,
        "model.masks": masks,
        "data.image_size": encoder["image_size"],
    }
    name = "alvg/large_refcoco" if large else "alvg/grefcoco" if several else "alvg/refcoco"
    kind = ", ".join(
        ("large" if large else "base", "any number of targets" if several else "one target")
    )
    return Layout(f"ALVG ({kind}{', masks' if masks else ''})", name, settings)


def _encoder(state: State) -> dict[str, Any]:
    width = state[_CELLS].shape[1]
    found: dict[str, Any] = {
        "layers": count_of(state, r"vis_enc\.beit3\.encoder\.layers\.(\d+)\."),
        "width": width,
        "heads": heads_of(width, 64, "model.encoder.heads"),
        "ffn": len(state[f"{_BEIT3}encoder.layers.0.ffn.A.fc1.weight"]),
        "vocab_size": len(state[f"{_BEIT3}text_embed.weight"]),
        "text_positions": len(state[f"{_BEIT3}encoder.embed_positions.B.weight"]) - FIRST_POSITION,
    }
    kernel = state.get(f"{_BEIT3}vision_embed.proj.weight")
    if kernel is None:  # stages of convolutions, each of which halves the image, then a last one
        stages = count_of(state, r"vis_enc\.beit3\.vision_embed\.proj\.(\d+)\.") - 1
        first = len(state[f"{_BEIT3}vision_embed.proj.0.body.0.weight"])
        found |= {"stem": "convolutions", "stem_channels": first, "patch_size": 2**stages}
    else:
        found["patch_size"] = kernel.shape[-1]
    grid = side_of(len(state[_CELLS]) - FIRST_POSITION - 1, _CELLS)
    return found | {"image_size": grid * found["patch_size"]}


def _head(state: State) -> dict[str, Any]:
    width = len(state[f"{_HEAD}input_proj.weight"])
    found: dict[str, Any] = {
        "width": width,
        "heads": heads_of(width, 32, "model.heads"),
        "ffn": len(state[f"{_DECODER}0.linear1.weight"]),
        "decoder_layers": count_of(state, r"head\.transformer\.decoder\.layers\.(\d+)\."),
        "query_layers": count_of(
            state, r"head\.text_guided_query_generation_transformer\.layers\.(\d+)\."
        ),
        "query_ffn": len(state[f"{_GENERATOR}0.ffns.0.layers.0.0.weight"]),
        "image_enhancement": f"{_HEAD}transformer.img_enhance.img_proj.weight" in state,
        "learn_offset": OFFSET in state,
    }
    if not found["image_enhancement"]:
        found["weights.score_attention"] = 0.0
    if _MASKS in state:
        found["mask_channels"] = len(state[_MASKS])
    return found

"""Recognises RefTR's files: their image and text network, boxes or masks, one phrase or several."""

from collections.abc import Mapping
from typing import Any

from groundwork.models.common.checkpoint import CheckpointError
from groundwork.models.common.layout import Layout, State, arguments_of, count_of, heads_of
from groundwork.models.reftr.backbone import BLOCKS, BasicBlock

_BODY, _TEXT, _JOINT = "img_backbone.0.body.", "lang_backbone.", "vl_transformer."
_MASKS = "mask_head.lay1.weight"
# `--dataset` of the released command line -> the configuration of the same name here.
_DATASETS = {
    "flickr30k": "flickr30k",
    "flickr30k_refcoco": "flickr30k",
    "referit": "referit",
    "vg": "vg",
    "refcoco_unc": "refcoco",
    "refcoco+_unc": "refcoco+",
    "refcocog_google": "refcocog_google",
    "refcocog_umd": "refcocog_umd",
}


def recognise(content: Mapping[str, Any]) -> Layout | None:
    """See `models.common.system.System.recognise`.

    One phrase and several have the same tensors: the command line in a released file says which; a
    file without it is taken for one of one phrase. The same goes for `--dilation` and `--nheads`;
    without it there are heads of 32 channels, as published. Text layers have heads of 64.
    """
    state: State = content["model"]
    if f"{_JOINT}level_embed" not in state:
        return None
    given = arguments_of(content)
    text, masks = _text(state), _MASKS in state
    name = _DATASETS.get(str(given.get("dataset")), "refcoco")
    several = name == "flickr30k"
    if masks:
        name = f"{name}_res" if name.startswith("refcoco") else "refcoco_res"
    elif text["kind"] == "roberta":
        name = "flickr30k_roberta"
    settings = {f"model.{key}": value for key, value in _joint(state, given).items()}
    settings |= {f"model.backbone.{key}": value for key, value in _image(state, given).items()}
    settings |= {f"model.text.{key}": value for key, value in text.items()}
    settings |= {"data.multi_phrase": several, "model.masks": masks}
    sides = {"image_size": "img_size", "max_image_size": "max_img_size"}
    settings |= {f"data.{key}": given[flag] for key, flag in sides.items() if flag in given}
    longest = {"flickr30k": 90}.get(name, 40)
    settings["data.max_tokens"] = min(longest, settings["model.max_text_tokens"])
    kind = "masks" if masks else "several phrases" if several else "one phrase"
    network = settings["model.backbone.name"].replace("resnet", "ResNet-")
    encoder = {"bert": "BERT", "roberta": "RoBERTa"}[text["kind"]]
    return Layout(f"RefTR ({kind}, {network}, {encoder})", f"reftr/{name}", settings)


def _image(state: State, given: Mapping[str, Any]) -> dict[str, Any]:
    counts = [count_of(state, rf"img_backbone\.0\.body\.layer{n}\.(\d+)\.") for n in (1, 2, 3, 4)]
    basic = f"{_BODY}layer1.0.conv3.weight" not in state
    names = [
        name
        for name, shape in BLOCKS.items()
        if shape[1] == counts and basic == issubclass(shape[0], BasicBlock)
    ]
    if not names:
        raise CheckpointError(
            f"looks like RefTR with an image network of {counts} blocks, which none of "
            f"{', '.join(BLOCKS)} has"
        )
    # In an evaluation frozen norms and trained ones do the same with the same statistics.
    norm = "frozen" if f"{_BODY}bn1.running_mean" in state else "group"
    stride = 16 if given.get("dilation") else 32
    width = len(state[f"{_BODY}conv1.weight"])
    return {"name": names[0], "width": width, "norm": norm, "output_stride": stride}


def _text(state: State) -> dict[str, Any]:
    words = state[f"{_TEXT}embeddings.word_embeddings.weight"]
    types = len(state[f"{_TEXT}embeddings.token_type_embeddings.weight"])
    roberta = types == 1
    return {
        "kind": "roberta" if roberta else "bert",
        "vocab_size": len(words),
        "width": words.shape[1],
        "layers": count_of(state, r"lang_backbone\.encoder\.layer\.(\d+)\."),
        "heads": heads_of(words.shape[1], 64, "model.text.heads"),
        "ffn": len(state[f"{_TEXT}encoder.layer.0.intermediate.dense.weight"]),
        "positions": len(state[f"{_TEXT}embeddings.position_embeddings.weight"]),
        "type_vocab_size": types,
        "norm_eps": 1e-5 if roberta else 1e-12,
        "pad_id": 1 if roberta else 0,
    }


def _joint(state: State, given: Mapping[str, Any]) -> dict[str, Any]:
    width = state[f"{_JOINT}level_embed"].shape[1]
    return {
        "width": width,
        "heads": given.get("nheads") or heads_of(width, 32, "model.heads"),
        "ffn": len(state[f"{_JOINT}encoder.layers.0.linear1.weight"]),
        "encoder_layers": count_of(state, r"vl_transformer\.encoder\.layers\.(\d+)\."),
        "decoder_layers": count_of(state, r"vl_transformer\.decoder\.layers\.(\d+)\."),
        "max_text_tokens": len(state[f"{_JOINT}lang_pos_embeddings.weight"]),
    }

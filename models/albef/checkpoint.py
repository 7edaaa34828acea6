"""Published ALBEF, AMC and SelfEQ checkpoints in and out of our models."""

from pathlib import Path

import timm
import torch
from torch import Tensor

from groundwork.models.albef.model import ALBEF, MOMENTUM_PAIRS, MomentumALBEF
from groundwork.models.albef.vision import resize_position_embedding
from groundwork.models.common.bert_files import read_bert
from groundwork.models.common.checkpoint import (
    CheckpointError,
    LoadReport,
    first_line,
    load_strictly,
    read_checkpoint,
    read_published,
)
from groundwork.models.common.timm_backbone import TimmBackbone, initialise_backbone

TWIN = tuple(f"{name}_m." for name in MOMENTUM_PAIRS)
QUEUES = ("image_queue", "text_queue", "queue_ptr")
# Which image each entry of the queues is of, in ALBEF's retrieval and grounding files: there,
# texts of one image are all right.
FINE_TUNED = ("idx_queue",)
# The masked-language head plays no part in an explanation; fine-tuned files may come without it.
WORD_HEAD = ("text_encoder.cls.",)
# What the released SelfEQ stage calls the entries of its optimiser and schedule.
RELATION_OPTIMIZER, RELATION_SCHEDULE = "relation_oprimizer", "relation_lr_scheduler"
TOKENS = "[CLS] and word pieces, no [SEP]"
"""What a text becomes, as in all published checkpoints; kept in every file of ours."""


def load(model: ALBEF, path: str | Path) -> LoadReport:
    """Fill `model` from a published or own checkpoint file.

    Evaluation models take the online encoders only. Training models also take the momentum twin and
    the queues; where a file has no twin, it starts as a copy, and where its queue has another
    length, a fresh one is kept.

    Returns:
        What was loaded, renamed, resized, left out; `str()` of it is one paragraph.

    Raises:
        FileNotFoundError, CheckpointError: see `models.common.checkpoint`.
    """
    state, report = read_published(path)
    # First the keys: of another system's file they say what it is.
    fill(model, state, report)
    require_tokens(path)
    return report


def require_tokens(path: str | Path) -> None:
    """Raises CheckpointError if a file of ours was trained on texts that end with [SEP].

    Such a model sees every text, map and point otherwise than its batches show them.
    """
    content = read_checkpoint(path)
    config = content.get("config")
    ours = isinstance(config, dict) and "stages" in config
    if ours and content.get("tokens") != TOKENS:
        raise CheckpointError(
            f"{path}: was trained on texts that end with [SEP], which ALBEF's texts do not have "
            f"({TOKENS}); train it anew"
        )


def fill(model: ALBEF, published: dict[str, Tensor], report: LoadReport) -> None:
    """`load` for a state dict that is already in memory."""
    state = _rename(published, report)
    for key in ("visual_encoder.pos_embed", "visual_encoder_m.pos_embed"):
        if key in state:
            before = state[key].shape[1]
            state[key] = resize_position_embedding(state[key], model.grid)
            if state[key].shape[1] != before:
                report.notes.append(
                    f"{key} resized from {before - 1} to {state[key].shape[1] - 1} patches."
                )
    if not isinstance(model, MomentumALBEF):
        unused = TWIN + QUEUES + FINE_TUNED
        load_strictly(model, state, report=report, may_be_missing=WORD_HEAD, ignored=unused)
        return
    for key in ("image_queue", "text_queue"):
        if key in state and state[key].shape != getattr(model, key).shape:
            report.notes.append(
                f"{key} of {state[key].shape[1]} columns not taken, the model's has "
                f"{getattr(model, key).shape[1]}."
            )
            # Pointers into a queue of another length mean nothing.
            state = {k: v for k, v in state.items() if k != key and not k.startswith("queue_ptr")}
    has_twin = any(key.startswith(TWIN) for key in state)
    missing = QUEUES if has_twin else QUEUES + TWIN
    load_strictly(model, state, report=report, may_be_missing=missing, ignored=FINE_TUNED)
    if not has_twin:
        model.copy_to_twin()
        report.notes.append("The momentum twin starts as a copy of the online encoders.")


def _rename(published: dict[str, Tensor], report: LoadReport) -> dict[str, Tensor]:
    """Published key names -> ours."""
    state = {}
    for key, value in published.items():
        name = key
        if key.endswith("embeddings.position_ids"):
            continue  # 0, 1, 2, ...: implied by the length of a text
        for encoder in ("text_encoder.", "text_encoder_m."):
            # ALBEF's grounding models hold the BERT without its head, one level higher.
            if name.startswith((f"{encoder}embeddings.", f"{encoder}encoder.")):
                name = f"{encoder}bert.{name.removeprefix(encoder)}"
        state[name] = value
    if "queue_ptr" in state:  # the first ALBEF release had one pointer for both queues
        pointer = state.pop("queue_ptr")
        state["queue_ptr_img"], state["queue_ptr_txt"] = pointer, pointer.clone()
        report.notes.append("Its single queue_ptr serves both queues.")
    return state


def published_state(model: ALBEF) -> dict[str, Tensor]:
    """The model's state in the published layout, which the released scripts can read."""
    state = dict(model.state_dict())
    encoders = {"": model.text_encoder}
    if isinstance(model, MomentumALBEF):
        encoders["_m"] = model.text_encoder_m
    for name, encoder in encoders.items():
        positions = encoder.bert.embeddings.position_embeddings.num_embeddings
        key = f"text_encoder{name}.bert.embeddings.position_ids"
        state[key] = torch.arange(positions)[None]
    return state


def initialise_encoders(model: MomentumALBEF, deit: str, bert: str) -> LoadReport:
    """Start the encoders from DeiT and BERT, as ALBEF's pre-training did; the rest is untouched.

    Args:
        deit: a timm model name (`deit_base_patch16_224`), which is downloaded, or a checkpoint
            file.
        bert: a hub name (`bert-base-uncased`), which is downloaded, or a folder in the hub's
            layout. Its layers go to the text and fusion layers of the same index; the
            cross-attentions stay as initialised.

    Raises:
        CheckpointError: widths or depths differ from the model's.
    """
    stem = model.visual_encoder.get_submodule("patch_embed.proj")
    backbone = next((part for part in stem.modules() if isinstance(part, TimmBackbone)), None)
    text = read_bert(bert)
    report = initialise_backbone(backbone, deit) if backbone else _initialise_deit(model, deit)
    of_text = LoadReport(source=str(bert))
    new = tuple(k for k in model.text_encoder.state_dict() if ".crossattention." in k)
    if not any(key.startswith("cls.") for key in text):
        new += ("cls.",)
    load_strictly(model.text_encoder, text, report=of_text, may_be_missing=new)
    report.notes.append(str(of_text))
    model.copy_to_twin()
    return report


def _initialise_deit(model: MomentumALBEF, deit: str) -> LoadReport:
    vision = _read_image_encoder(deit)
    if "pos_embed" in vision:
        vision["pos_embed"] = resize_position_embedding(vision["pos_embed"], model.grid)
    report = LoadReport(source=str(deit))
    load_strictly(model.visual_encoder, vision, report=report, ignored=("head",))
    return report


def _read_image_encoder(deit: str) -> dict[str, Tensor]:
    if Path(deit).is_file():
        return dict(read_checkpoint(deit)["model"])
    try:
        return timm.create_model(deit, pretrained=True).state_dict()
    except (RuntimeError, OSError, ValueError) as error:
        raise CheckpointError(
            f"--init: {deit} is neither a file nor a timm model that can be had here "
            f"({first_line(error)}); download its weights and give the file"
        ) from error

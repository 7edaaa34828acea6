"""Published RefTR, DETR, ResNet and BERT weights in and out of our models."""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModel

from groundwork.models.common import timm_backbone
from groundwork.models.common.bert_files import hub_folder
from groundwork.models.common.checkpoint import (
    CheckpointError,
    LoadReport,
    first_line,
    load_strictly,
    part_of,
    read_checkpoint,
    read_published,
    seen_coco,
)
from groundwork.models.common.timm_backbone import TimmBackbone
from groundwork.models.common.torchvision_weights import torchvision_state
from groundwork.models.reftr.backbone import ResNetBody
from groundwork.models.reftr.model import RefTR

OF_MASKS = ("bbox_attention.", "mask_head.", "cem_block.")
# Counters of a profiler that the release attached to its modules.
PROFILER = ("total_params", "total_ops")
# 0, 1, 2, ... and zeros, which some versions of transformers write out.
IMPLIED = ("embeddings.position_ids", "embeddings.token_type_ids")


def load(model: RefTR, path: str | Path) -> LoadReport:
    """Fill `model` from a published or own checkpoint file.

    A detection model also reads a segmentation checkpoint, and leaves its mask head out. The other
    way round there would be an untrained mask head: see `initialise_from_detection`.
    """
    return _load(model, path, may_be_missing=())


def initialise_from_detection(model: RefTR, path: str | Path) -> LoadReport:
    """`load` that accepts a checkpoint without mask head; that part stays as it is."""
    return _load(model, path, may_be_missing=OF_MASKS)


def _load(model: RefTR, path: str | Path, may_be_missing: tuple[str, ...]) -> LoadReport:
    state, report = read_published(path)
    fill(model, state, report, may_be_missing=may_be_missing)
    return report


def fill(
    model: RefTR,
    published: dict[str, Tensor],
    report: LoadReport,
    *,
    may_be_missing: tuple[str, ...] = (),
) -> None:
    """`load` for a state dict that is already in memory."""
    state = _published_to_own(published, model)
    parts = {key.split(".")[0] + "." for key in model.state_dict()}
    unused = tuple(part for part in OF_MASKS if part not in parts)
    load_strictly(model, state, report=report, may_be_missing=may_be_missing, ignored=unused)


def _published_to_own(published: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Without entries that hold nothing a model needs."""
    own, state = model.state_dict(), {}
    for name, value in published.items():
        # Frozen norms count no batches, the norms that a file was trained with may have.
        counter = name.endswith("num_batches_tracked") and name not in own
        if not counter and not name.endswith(IMPLIED + PROFILER):
            state[name] = value
    return state


def published_state(model: RefTR) -> dict[str, Tensor]:
    """The model's state in the published layout, which the released scripts can read."""
    state = dict(model.state_dict())
    positions = model.lang_backbone.embeddings.position_embeddings.num_embeddings
    state["lang_backbone.embeddings.position_ids"] = torch.arange(positions)[None]
    return state


def initialise_from_detr(model: RefTR, path: str | Path) -> LoadReport:
    """Backbone and encoder from a DETR checkpoint; input projection, decoder and heads are not
    taken, as released.

    Raises:
        CheckpointError: it is no DETR, or of another ResNet, width or number of encoder layers.
    """
    state = read_checkpoint(path)["model"]
    encoder = part_of(state, "transformer.encoder.")
    report = LoadReport(source=f"{path} (backbone and encoder)")
    backbone = _published_to_own(part_of(state, "backbone."), model.img_backbone)
    load_strictly(model.img_backbone, backbone, report=report)
    used = report.used
    load_strictly(model.vl_transformer.encoder, encoder, report=report)
    report.used += used
    report.notes.append(seen_coco("Its DETR part"))
    return report


def initialise_backbone(model: RefTR, source: str) -> LoadReport:
    """The ResNet from a torchvision file, or from torchvision itself.

    Args:
        source: a `.pth` file, also of a network of timm's, or `imagenet`: the weights of ImageNet's
            first version (as released) for this model's ResNet, which torchvision downloads unless
            it has them.
    """
    body = model.backbone.body
    if isinstance(body, TimmBackbone):
        return timm_backbone.initialise_backbone(body, source)
    if not isinstance(body, ResNetBody):
        raise TypeError(f"RefTR has no file for a {type(body).__name__}")
    if source == "imagenet":
        state = torchvision_state(body.name, "IMAGENET1K_V1", "model.init.backbone")
    else:
        state = dict(read_checkpoint(source)["model"])
    report = LoadReport(source=source)
    load_strictly(body, _published_to_own(state, body), report=report, ignored=("fc.",))
    return report


def initialise_text(model: RefTR, source: str) -> LoadReport:
    """BERT or RoBERTa from a folder in the hub's layout, or from the hub by name.

    Where the source has no pooler, as some RoBERTa files, the pooler stays random.
    """
    try:
        with hub_folder(source) as folder:
            state = AutoModel.from_pretrained(folder, add_pooling_layer=True).state_dict()
    except CheckpointError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"model.init.text: {source} is neither a folder with a BERT or RoBERTa nor to be had "
            f"from the hub ({first_line(error)}); download config.json and weights and give the "
            "folder"
        ) from error
    report = LoadReport(source=source)
    text = model.lang_backbone
    load_strictly(text, _published_to_own(state, text), report=report)
    return report

"""Released ALVG files and public BEiT-3 weights in and out of our models."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from groundwork.models.alvg.beit3 import FIRST_POSITION, BEiT3
from groundwork.models.alvg.model import ALVG
from groundwork.models.common.checkpoint import (
    CheckpointError,
    LoadReport,
    load_strictly,
    part_of,
    read_checkpoint,
    read_published,
    recognise,
    with_counters,
)

# Parts that the release builds and never uses; a file that has them is the authors' own.
UNUSED = (
    "vis_enc.beit3.vision_embed.mask_token",
    "head.class_embed_token.",
    "head.bbox_embed_token.",
    "head.mask_head.cross_attn.",
    "head.mask_head.norm.",
    "head.criterion.empty_weight",
)
MASK_HEAD = "head.mask_head."
QUERIES = "head.query_embed.weight"
OFFSET = "head.transformer.img_enhance.offset"
_CELLS = "encoder.embed_positions.A.weight"
_KERNEL = "vision_embed.proj.weight"


def load(model: ALVG, path: str | Path) -> LoadReport:
    """Fill `model` from a released or own checkpoint. A model of boxes leaves a mask head out.

    A file of the authors selects the released behaviour of the forward pass, and says so.
    """
    return _load(model, path, may_be_missing=(), released=True)


def start_from(model: ALVG, path: str | Path) -> LoadReport:
    """`load` for a new run: the mask head may be new, there may be more queries, which start from
    random weights, and the configuration says how the model works."""
    return _load(model, path, may_be_missing=(MASK_HEAD,), released=False)


def _load(
    model: ALVG, path: str | Path, *, may_be_missing: tuple[str, ...], released: bool
) -> LoadReport:
    published, report = read_published(path)
    state = published if released else with_more_queries(published, model, report)
    fill(model, state, report, may_be_missing=may_be_missing)
    if is_released(published):
        if released:
            select_released(model)
            report.notes.append(
                "A file of the authors: compat: released was selected (parallel decoder, pooling "
                "of the last rows, cut token positions)."
            )
        else:
            report.notes.append(
                "A file of the authors, whose network works otherwise: set model.compat: released "
                "to go on exactly as it was trained."
            )
    return report


def with_more_queries(
    published: dict[str, Tensor], model: ALVG, report: LoadReport
) -> dict[str, Tensor]:
    """The state with the model's own queries behind those of the file, if it has more."""
    own, old = model.head.query_embed.weight, published.get(QUERIES)
    if old is None or len(old) >= len(own) or old.shape[1:] != own.shape[1:]:
        return published
    report.notes.append(f"Queries {len(old) + 1} to {len(own)} kept as initialised.")
    return published | {QUERIES: torch.cat([old, own.detach()[len(old) :].to(old)])}


def fill(
    model: ALVG,
    published: dict[str, Tensor],
    report: LoadReport,
    *,
    may_be_missing: tuple[str, ...] = (),
) -> None:
    """`load` for a state dict that is already in memory."""
    state = with_counters(published, model)
    unused = UNUSED if model.head.mask_head is not None else (*UNUSED, MASK_HEAD)
    load_strictly(
        model, state, report=report, may_be_missing=(*may_be_missing, OFFSET), ignored=unused
    )


def is_released(state: dict[str, Tensor]) -> bool:
    """Whether the authors' code wrote these entries: they hold parts that nothing uses."""
    return any(key.startswith(UNUSED) for key in state)


def select_released(model: ALVG) -> None:
    """The forward pass of `compat: released`."""
    model.head.pool_last_rows = model.head.integer_positions = True
    model.head.transformer.decoder.chained = False


def published_state(model: ALVG) -> dict[str, Tensor]:
    """The model's state under the published names, without the parts that nothing uses."""
    return dict(model.state_dict())


def initialise_encoder(encoder: BEiT3, path: str | Path, *, scaled: bool = False) -> LoadReport:
    """Fill BEiT-3 from a public file of any image size; its heads are left out.

    Args:
        scaled: the resized patch kernel is divided by the ratio of the areas, see
            `resize_kernel`.
    """
    report = LoadReport(source=f"{path} (encoder)")
    fill_encoder(encoder, read_checkpoint(path)["model"], report, scaled=scaled)
    return report


def fill_encoder(
    encoder: BEiT3, published: dict[str, Tensor], report: LoadReport, *, scaled: bool = False
) -> None:
    """`initialise_encoder` for a state dict that is already in memory."""
    state = part_of(published, "beit3.")
    if _CELLS not in state or _KERNEL not in state:
        raise CheckpointError(
            f"{report.source}: no public BEiT-3 checkpoint, it looks like one of "
            f"{recognise(published)}; give a file such as beit3_base_indomain_patch16_224.pth"
        )
    own = encoder.state_dict()
    others = len(published) - len(state)
    if others:
        report.notes.append(f"Not used: {others} entries outside of the encoder.")
    state[_CELLS] = resize_positions(state[_CELLS], len(own[_CELLS]), report)
    if _KERNEL in own:  # a convolutional stem has none
        state[_KERNEL] = resize_kernel(state[_KERNEL], own[_KERNEL].shape[-1], report, scaled)
    load_strictly(encoder, state, report=report, ignored=("vision_embed.mask_token",))


def resize_positions(table: Tensor, rows: int, report: LoadReport) -> Tensor:
    """A square grid of positions brought to another, bicubically; the first three rows, reserved
    ones and [CLS], stay."""
    first = FIRST_POSITION + 1
    old, new = round((len(table) - first) ** 0.5), round((rows - first) ** 0.5)
    if len(table) == rows or old * old != len(table) - first:
        return table
    cells = table[first:].T.unflatten(-1, (old, old))[None].float()
    resized = F.interpolate(cells, size=(new, new), mode="bicubic", align_corners=False)
    report.notes.append(f"Positions resized from {old} x {old} to {new} x {new} cells.")
    return torch.cat([table[:first], resized[0].flatten(1).T.to(table.dtype)])


def resize_kernel(kernel: Tensor, side: int, report: LoadReport, scaled: bool) -> Tensor:
    """(D, 3, p, p) -> (D, 3, side, side), bicubically.

    A patch of twice the side gives answers about four times as large, as the published code leaves
    them; `scaled` divides by the ratio of the areas.
    """
    old = kernel.shape[-1]
    if old == side:
        return kernel
    resized = F.interpolate(kernel.float(), size=(side, side), mode="bicubic", align_corners=False)
    report.notes.append(f"Patch kernel resized from {old} to {side} pixels.")
    return (resized * (old / side) ** 2 if scaled else resized).to(kernel.dtype)

"""RefTR's outputs -> boxes and masks in the pixels of the original images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from groundwork.geometry import Grounding, box_to_point, cxcywh01_to_xyxy, resize_mask
from groundwork.models.common.losses import enlarge_logits
from groundwork.models.common.torch_types import grid_of

if TYPE_CHECKING:
    from groundwork.dataset.batches import ReferringEvalBatch


def outputs_to_groundings(outputs: dict[str, Tensor], batch: ReferringEvalBatch) -> list[Grounding]:
    """One `Grounding` per real phrase: its box and, where the model has masks, its mask.

    RefTR gives exactly one box per phrase and no confidence: the score is always 1. Boxes are not
    clipped to the image. The point is the box's centre, which is derived.

    Args:
        outputs: `pred_boxes` (B, P, 4), `phrase_mask` (B, P), maybe `pred_masks` (B, h1, w1).
        batch: `phrase` (T texts), `size` [(H, W)] original and, for masks, `resized` [(h, w)] and
            `image_mask` (B, H, W), the padded canvas.
    """
    valid = outputs["phrase_mask"].cpu()
    boxes = outputs["pred_boxes"].detach().cpu().double()
    masks, small = None, None
    if "pred_masks" in outputs:
        small = resized_masks(outputs, batch)
        masks = original_masks(small, batch)
    groundings: list[Grounding] = []
    for image, size in enumerate(batch["size"]):
        for box in cxcywh01_to_xyxy(boxes[image][valid[image]].numpy(), size):
            groundings.append(
                Grounding(
                    phrase=batch["phrase"][len(groundings)],
                    point=box_to_point(box),
                    boxes=box[None],
                    scores=np.ones(1),
                    mask=None if masks is None else masks[image],
                    heatmap=None,
                    size=size,
                    derived=frozenset({"point"}),
                    resized_mask=None if small is None else small[image].cpu().numpy(),
                )
            )
    return groundings


def resized_masks(outputs: dict[str, Tensor], batch: ReferringEvalBatch) -> list[Tensor]:
    """The masks at the size that the network saw, on which the released mIoU is computed.

    The logits are enlarged to the padded canvas, cut at 0 (a share of one half), then cropped.

    Returns:
        B tensors (h, w) bool.
    """
    canvas = enlarge_logits(outputs["pred_masks"], grid_of(batch["image_mask"]))
    inside = canvas.detach().sigmoid() > 0.5
    return [
        mask[:height, :width]
        for mask, (height, width) in zip(inside, batch["resized"], strict=True)
    ]


def original_masks(resized: list[Tensor], batch: ReferringEvalBatch) -> list[np.ndarray]:
    """`resized_masks` brought to the original sizes by nearest neighbours: B arrays (H, W) bool."""
    pairs = zip(resized, batch["size"], strict=True)
    return [resize_mask(mask.cpu().numpy(), size) for mask, size in pairs]

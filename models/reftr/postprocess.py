"""RefTR's outputs -> boxes and masks in the pixels of the original images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from groundwork.geometry import Grounding, box_to_point, cxcywh01_to_xyxy
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
        logits = logits_on_images(outputs, batch)
        small = [inside(one) for one in logits]
        # Enlarged before they are cut: by the nearest pixel, as the release enlarges masks for its
        # pictures, they would lie up to half a pixel right of and below what they show.
        masks = [
            inside(enlarge_logits(one[None], size)[0])
            for one, size in zip(logits, batch["size"], strict=True)
        ]
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
                    resized_mask=None if small is None else small[image],
                )
            )
    return groundings


def logits_on_images(outputs: dict[str, Tensor], batch: ReferringEvalBatch) -> list[Tensor]:
    """The logits of the masks at the size at which the network saw the images.

    They are enlarged to the padded canvas, then cropped.

    Returns:
        B tensors (h, w).
    """
    canvas = enlarge_logits(outputs["pred_masks"].detach(), grid_of(batch["image_mask"]))
    sizes = zip(canvas, batch["resized"], strict=True)
    return [logits[:height, :width] for logits, (height, width) in sizes]


def inside(logits: Tensor) -> np.ndarray:
    """Logits of a mask -> bool: a share above one half. At the network's size the released mIoU is
    computed on these."""
    found: np.ndarray = (logits.sigmoid() > 0.5).cpu().numpy()
    return found

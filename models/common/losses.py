"""Losses of boxes and masks that several systems share. Boxes are cxcywh in [0, 1]."""

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou_loss, sigmoid_focal_loss


def l1_of_pairs(predicted: Tensor, target: Tensor) -> Tensor:
    """(n, 4) and (n, 4) -> (n,): sum of the four differences."""
    return (predicted - target).abs().sum(dim=-1)


def giou_loss_of_pairs(predicted: Tensor, target: Tensor, *, epsilon: float = 0.0) -> Tensor:
    """(n, 4) and (n, 4) -> (n,): 1 - generalised IoU.

    Args:
        epsilon: added to both denominators. It is not small beside a small box: 1e-7 adds 4e-4 to
            the loss of one whose sides are a 64th of the image's. Without it, the loss of two
            boxes that both have no area is not a number.
    """
    first, second = (box_convert(boxes, "cxcywh", "xyxy") for boxes in (predicted, target))
    return generalized_box_iou_loss(first, second, eps=epsilon)


def focal_loss(logits: Tensor, target: Tensor, *, alpha: float = 0.25, gamma: float = 2) -> Tensor:
    """(B, H, W) and (B, H, W) in {0, 1} -> (B,): sigmoid focal loss, mean over pixels."""
    return sigmoid_focal_loss(logits, target, alpha=alpha, gamma=gamma).flatten(1).mean(dim=1)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """(B, H, W) and (B, H, W) in {0, 1} -> (B,): 1 - (2 overlap + 1) / (both areas + 1)."""
    share, inside = logits.sigmoid().flatten(1), target.flatten(1)
    overlap = (share * inside).sum(dim=1)
    return 1 - (2 * overlap + 1) / (share.sum(dim=1) + inside.sum(dim=1) + 1)


def enlarge_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, h, w) -> (B, *size), bilinear with pixel centres kept."""
    return F.interpolate(logits[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]

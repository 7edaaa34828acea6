"""Training the detector: every object belongs to one box of the cell that its centre is in.

Shapes: B images; n objects of an image; N cells of a head, 4 boxes each; C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert, box_iou, generalized_box_iou_loss, nms

from groundwork.models.common.criterion import Criterion
from groundwork.models.common.torch_types import bias_of, grid_of
from groundwork.models.refclip.yolov3 import BOXES, HEADS, GuidedHead, YoloV3

if TYPE_CHECKING:
    from groundwork.dataset.batches import DetectionBatch

# A box that overlaps an object so much is no mistake, though another one is responsible for it.
NO_MISTAKE = 0.6


class HeadOutput(NamedTuple):
    """shapes (B, N, 4, 2) and predictions (B, N, 4, 5 + C), as `GuidedHead.raw` gives them; boxes
    (B, N, 4, 4) cxcywh in pixels of the input, which do not move the guided shapes."""

    shapes: Tensor
    predictions: Tensor
    boxes: Tensor


class DetectorTraining(nn.Module):
    """The detector with all its heads, as it is trained."""

    def __init__(self, detector: YoloV3):
        super().__init__()
        self.detector = detector

    def forward(self, batch: DetectionBatch) -> dict[int, HeadOutput]:
        """`image` (B, 3, S, S) -> stride -> what that head gives."""
        outputs = {}
        for stride, maps in zip((8, 16, 32), self.detector.maps(batch["image"]), strict=True):
            head = self.detector.head(stride)
            shapes, predictions = head.raw(maps)
            boxes = head.decode(shapes.detach(), predictions, grid_of(maps))[..., :4]
            outputs[stride] = HeadOutput(shapes, predictions, boxes)
        return outputs


class Targets(NamedTuple):
    """Objects of a batch for one head: image, cell and box (n,) that are responsible; boxes (n, 4)
    cxcywh in pixels; labels (n,)."""

    image: Tensor
    cell: Tensor
    box: Tensor
    boxes: Tensor
    labels: Tensor


class DetectionCriterion(Criterion):
    """Shape, place, objectness and class of the boxes of all heads.

    Args:
        detector: whose priors and strides count.
        weights: loss name -> factor in the total: loss_shape (guided), loss_size,
            loss_box (overlap), loss_object, loss_class.
        every_head: every object is an object for every head. RefCLIP looks at the coarsest head
            only, which therefore must find small ones, too. False: an object belongs to the head
            with the prior that fits it best, as in YOLOv3.
    """

    def __init__(self, detector: YoloV3, weights: dict[str, float], *, every_head: bool = True):
        super().__init__(weights)
        self.heads: dict[int, GuidedHead] = {stride: detector.head(stride) for stride in HEADS}
        self.every_head = every_head

    def forward(self, outputs: dict[int, HeadOutput], batch: DetectionBatch) -> dict[str, Tensor]:
        """Named scalars, each a sum over heads of a mean over their objects.

        Args:
            outputs: of `DetectorTraining`.
            batch: `object_boxes`, B tensors (n, 4) cxcywh in pixels of the input; `object_labels`,
                B tensors (n,) int64.
        """
        count = batch["image"].shape[-1]
        totals: dict[str, Tensor] = {}
        for stride, output in outputs.items():
            targets = self._targets(stride, count // stride, batch, output.boxes)
            for name, value in _head_losses(output, targets, self._priors(stride), batch).items():
                totals[name] = totals.get(name, 0) + value
        return totals

    def _priors(self, stride: int) -> Tensor:
        return self.heads[stride].priors

    def _targets(self, stride: int, columns: int, batch: DetectionBatch, like: Tensor) -> Targets:
        counts = torch.tensor([len(boxes) for boxes in batch["object_boxes"]])
        image = torch.arange(len(counts)).repeat_interleave(counts).to(like.device)
        boxes = torch.cat(list(batch["object_boxes"])).to(like)
        labels = torch.cat(list(batch["object_labels"])).to(like.device)
        fits = {s: _shape_iou(boxes[:, 2:], self._priors(s)) for s in self.heads}
        if not self.every_head:
            best = torch.stack([fit.max(dim=1).values for fit in fits.values()])
            mine = best.argmax(dim=0) == list(fits).index(stride)
            image, boxes, labels = image[mine], boxes[mine], labels[mine]
            fits[stride] = fits[stride][mine]
        place = (boxes[:, :2] / stride).long().clamp(0, columns - 1)
        cell = place[:, 1] * columns + place[:, 0]
        return Targets(image, cell, fits[stride].argmax(dim=1), boxes, labels)


def _shape_iou(sizes: Tensor, priors: Tensor) -> Tensor:
    """(n, 2) and (4, 2) widths and heights -> (n, 4): IoU of boxes with the same centre."""
    overlap = torch.minimum(sizes[:, None], priors).prod(dim=-1)
    return overlap / (sizes.prod(dim=-1)[:, None] + priors.prod(dim=-1) - overlap)


def _head_losses(
    output: HeadOutput, targets: Targets, priors: Tensor, batch: DetectionBatch
) -> dict[str, Tensor]:
    place = (targets.image, targets.cell, targets.box)
    predictions, number = output.predictions[place], max(1, len(targets.boxes))
    shapes = (targets.boxes[:, 2:] / priors[targets.box]).log()
    # What the guided shape still lacks; the overlap alone has no gradient at boxes that collapsed.
    rest = shapes - output.shapes[place].detach()
    corners = (box_convert(b, "cxcywh", "xyxy") for b in (output.boxes[place], targets.boxes))
    classes = F.one_hot(targets.labels, predictions.shape[-1] - 5).to(predictions)
    return {
        "loss_shape": F.smooth_l1_loss(output.shapes[place], shapes, reduction="sum") / number,
        "loss_size": F.smooth_l1_loss(predictions[:, 2:4], rest, reduction="sum") / number,
        "loss_box": generalized_box_iou_loss(*corners, reduction="sum") / number,
        "loss_object": _objectness_loss(output, place, batch) / number,
        "loss_class": F.binary_cross_entropy_with_logits(
            predictions[:, 5:], classes, reduction="sum"
        )
        / number,
    }


def _objectness_loss(
    output: HeadOutput, place: tuple[Tensor, ...], batch: DetectionBatch
) -> Tensor:
    logits = output.predictions[..., 4]
    wanted, counts = torch.zeros_like(logits), torch.ones_like(logits)
    corners = box_convert(output.boxes.detach(), "cxcywh", "xyxy")
    for row, objects in enumerate(batch["object_boxes"]):
        if len(objects):
            true = box_convert(objects.to(corners), "cxcywh", "xyxy")
            overlap = box_iou(corners[row].flatten(0, 1), true).max(dim=1).values
            counts[row] = (overlap < NO_MISTAKE).view_as(counts[row]).to(counts)
    wanted[place], counts[place] = 1.0, 1.0
    return F.binary_cross_entropy_with_logits(logits, wanted, counts, reduction="sum")


def best_boxes(output: HeadOutput, count: int) -> list[Tensor]:
    """The boxes of each image that look most like objects, without doubles: B tensors (n, 5), xyxy
    in pixels of the input and objectness, best first, n at most `count`."""
    corners = box_convert(output.boxes, "cxcywh", "xyxy").flatten(1, 2)
    scores = output.predictions[..., 4].sigmoid().flatten(1)
    found = []
    for boxes, score in zip(corners, scores, strict=True):
        kept = nms(boxes, score, 0.5)[:count]
        found.append(torch.cat([boxes[kept], score[kept, None]], dim=1))
    return found


def start_objectness_low(detector: YoloV3) -> None:
    """Random heads begin by calling nothing an object, as nearly everything is none."""
    for stride in HEADS:
        bias = bias_of(detector.head(stride).conv)
        with torch.no_grad():
            bias.view(BOXES, -1)[:, 4] = -5.0

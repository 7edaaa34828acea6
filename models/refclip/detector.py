"""What RefCLIP asks of a detector, and torchvision's detectors in that form.

Shapes: B images of side S, one cell per 32 pixels, h x w of them; A boxes belong to each cell.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import box_convert

from groundwork.geometry.pixels import IMAGENET
from groundwork.models.common.torch_types import grid_of, submodule

STRIDES = (8, 16, 32)
COARSEST = STRIDES[-1]
IMAGENET_MEAN, IMAGENET_STD = IMAGENET


class Detection(NamedTuple):
    """What a detector sees.

    s8, s16, s32: (B, widths[i], S/8, S/8), (..., S/16, S/16), (..., S/32, S/32).
    boxes: (B, h * w, A, 5): centre x, centre y, width, height in pixels of the input and
        objectness in [0, 1]; cells row by row.
    """

    s8: Tensor
    s16: Tensor
    s32: Tensor
    boxes: Tensor


class Detector(nn.Module):
    """A network from image (B, 3, S, S), normalised by ImageNet's mean and deviation, to the
    `Detection` of what it sees; `widths` are the channels of its maps, finest first."""

    widths: tuple[int, int, int]


class TorchvisionDetector(Detector):
    """Any detector of torchvision's `detection` family with maps at strides 8, 16 and 32.

    Its detections are handed to the cells that their centres lie in, the `boxes_per_cell` best ones
    to each. A cell without enough detections has boxes of its own size with objectness 0.

    Args:
        name: its name in torchvision.
        network: gives, in evaluation mode, a list of {boxes, scores} for a list of images in
            [0, 1], and has `backbone` and `transform`.

    Raises:
        ValueError: a stride is missing among the maps of the backbone.
    """

    def __init__(self, network: nn.Module, *, name: str = "", boxes_per_cell: int = 4):
        super().__init__()
        self.network, self.name, self.boxes_per_cell = network, name, boxes_per_cell
        network.eval()
        side = 10 * COARSEST  # SSD has no map left of less
        with torch.no_grad():
            maps = network.get_submodule("backbone")(torch.zeros(1, 3, side, side))
        s8, s16, s32 = _by_stride(maps, side)
        self.widths = (s8.shape[1], s16.shape[1], s32.shape[1])

    def forward(self, image: Tensor) -> Detection:
        """Image (B, 3, S, S), S a multiple of 32.

        Raises:
            ValueError: it is being exported, which takes the same steps for any image.
        """
        if torch.compiler.is_exporting():
            raise ValueError(
                f"model.detector.name {self.name} cannot be exported: how many boxes it goes on"
                " with depends on the image; yolov3 can"
            )
        side, seen = image.shape[-1], []
        backbone = self.network.get_submodule("backbone")
        hook = backbone.register_forward_hook(lambda *call: seen.append(call[2]))
        # The images have their size already, and the network's own normalisation is its own.
        transform = submodule(self.network, "transform", GeneralizedRCNNTransform)
        transform.fixed_size = (side, side)
        mean, deviation = (
            image.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD)
        )
        try:
            found = self.network(list(image * deviation + mean))
        finally:
            hook.remove()
        s8, s16, s32 = _by_stride(seen[0], side)
        boxes = [
            boxes_of_cells(one["boxes"], one["scores"], grid_of(s32), self.boxes_per_cell)
            for one in found
        ]
        return Detection(s8, s16, s32, torch.stack(boxes))


def _by_stride(maps: Tensor | Mapping[str, Tensor], side: int) -> tuple[Tensor, Tensor, Tensor]:
    candidates = [maps] if isinstance(maps, Tensor) else list(maps.values())
    found = {round(side / one.shape[-1]): one for one in candidates}
    missing = [stride for stride in STRIDES if stride not in found]
    if missing:
        raise ValueError(
            f"the detector's backbone has maps of strides {', '.join(map(str, found))}, RefCLIP "
            f"needs {', '.join(map(str, STRIDES))}; choose one with a feature pyramid, such as "
            "fasterrcnn_resnet50_fpn, retinanet_resnet50_fpn or fcos_resnet50_fpn"
        )
    s8, s16, s32 = (found[stride] for stride in STRIDES)
    return s8, s16, s32


def boxes_of_cells(boxes: Tensor, scores: Tensor, grid: tuple[int, int], per_cell: int) -> Tensor:
    """Detections of one image -> the boxes of each cell, best first.

    Args:
        boxes: (n, 4) xyxy pixels. scores: (n,) in [0, 1]. grid: rows and columns of cells.

    Returns:
        (rows * columns, per_cell, 5): cxcywh pixels and score; unused places hold the cell itself
        with score 0.
    """
    rows, columns = grid
    cell = torch.arange(rows * columns, device=boxes.device)
    own = torch.stack([(cell % columns + 0.5), (cell // columns + 0.5)], dim=1) * COARSEST
    size = torch.full_like(own, COARSEST)
    empty = torch.cat([own, size, torch.zeros_like(own[:, :1])], dim=1)
    table = empty[:, None].expand(-1, per_cell, -1).to(boxes.dtype).contiguous()
    order = scores.argsort(descending=True, stable=True)
    found = box_convert(boxes[order], "xyxy", "cxcywh")
    column = (found[:, 0] / COARSEST).long().clamp(0, columns - 1)
    row = (found[:, 1] / COARSEST).long().clamp(0, rows - 1)
    owner = row * columns + column
    # How many better detections the same cell has: the place of this one.
    place = (owner[:, None] == owner[None]).tril(-1).sum(dim=1)
    kept = place < per_cell
    table[owner[kept], place[kept]] = torch.cat([found, scores[order, None]], dim=1)[kept]
    return table

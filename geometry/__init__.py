"""Boxes, points and masks: the one place that knows the conventions.

Conventions, valid everywhere outside `models/`:
  box    (x1, y1, x2, y2) float pixels of the original image, continuous coordinates: pixel i
         covers [i, i + 1), so a box that covers the first pixel only is (0, 0, 1, 1)
  point  (x, y) in pixels; a point that was read off a map is the integer index of a pixel
  size   (height, width) in pixels; x runs to the right, y down
  mask   (H, W) bool; True inside
Annotation files mostly hold (x, y, width, height), models mostly (centre x, centre y, width,
height) in [0, 1]; both are converted here and nowhere else.

What a system does not give itself is derived here too: a point from a box, a mask from a heat map,
a box from a mask.
"""

from groundwork.geometry.boxes import (
    Box,
    Point,
    Size,
    area,
    as_boxes,
    box_to_point,
    clip_boxes,
    cxcywh01_to_xyxy,
    enclosing_box,
    flip_boxes,
    giou,
    integer_corners,
    iou,
    points_in_boxes,
    scale_boxes,
    union_area,
    xywh_to_xyxy,
    xyxy_to_cxcywh01,
    xyxy_to_xywh,
)
from groundwork.geometry.grounding import Grounding, WordMap
from groundwork.geometry.masks import (
    Resampling,
    decode_mask,
    heatmap_to_mask,
    mask_to_box,
    mask_to_runs,
    otsu_mask,
    resize_mask,
    runs_to_mask,
)

__all__ = [
    "Box", "Grounding", "Point", "Resampling", "Size", "WordMap", "area", "as_boxes",
    "box_to_point", "clip_boxes", "cxcywh01_to_xyxy", "decode_mask", "enclosing_box", "flip_boxes",
    "giou", "heatmap_to_mask", "integer_corners", "iou", "mask_to_box", "mask_to_runs", "otsu_mask",
    "points_in_boxes", "resize_mask", "runs_to_mask", "scale_boxes", "union_area", "xywh_to_xyxy",
    "xyxy_to_cxcywh01", "xyxy_to_xywh",
]  # fmt: skip

"""The papers' metrics as pure functions of predictions and truth.

No model, no device, no file, no printing. Boxes are xyxy float pixels, points (x, y), sizes
(height, width); see `geometry`. Values are fractions in [0, 1] (correlations in [-1, 1]) until
`result_row` turns them into percent.
"""

from groundwork.metrics.boxes import (
    best_proposal,
    box_correct,
    box_iou,
    proposal_correct,
    proposal_iou,
    reaches,
)
from groundwork.metrics.intervals import ROW_KEYS, accuracy_rows, bootstrap_interval, result_row
from groundwork.metrics.maps import (
    area_under,
    best_map_iou,
    energy_inside,
    expected_hit,
    map_iou,
    shared_maximum,
)
from groundwork.metrics.masks import mask_iou, mask_overlap
from groundwork.metrics.pointing import (
    centre_hit,
    map_correlation,
    pointing_any,
    random_hit_probability,
    same_object,
)

__all__ = [
    "ROW_KEYS", "accuracy_rows", "area_under", "best_map_iou", "best_proposal",
    "bootstrap_interval", "box_correct", "box_iou", "centre_hit", "energy_inside", "expected_hit",
    "map_correlation", "map_iou", "mask_iou", "mask_overlap", "pointing_any", "proposal_correct",
    "proposal_iou", "random_hit_probability", "reaches", "result_row", "same_object",
    "shared_maximum",
]  # fmt: skip

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
from groundwork.metrics.masks import mask_iou, mask_overlap
from groundwork.metrics.pointing import (
    centre_hit,
    map_correlation,
    pointing_any,
    random_hit_probability,
    same_object,
)

__all__ = [
    "ROW_KEYS", "accuracy_rows", "best_proposal", "bootstrap_interval", "box_correct", "box_iou",
    "centre_hit", "map_correlation", "mask_iou", "mask_overlap", "pointing_any", "proposal_correct",
    "proposal_iou", "random_hit_probability", "reaches", "result_row", "same_object",
]  # fmt: skip

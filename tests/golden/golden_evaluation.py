"""Golden check of the evaluation: pointing, proposal and any-of-boxes decisions."""

from collections.abc import Mapping

import numpy as np
import torch

from groundwork import geometry, metrics
from groundwork.models.common.heatmap import enlarge, first_maximum


def check_pointing(npz: Mapping[str, np.ndarray]) -> None:
    """Every decision of a `pointing.npz` file is reproduced exactly.

    Args:
        npz: the arrays of tests/golden/README.md: cam, grid, size, box, hit, dets, det_pick,
            det_iou, flickr_boxes, flickr_hit; the number of cases comes from the file.

    Raises:
        AssertionError: the first case that differs, with its number.
    """
    arrays = {key: npz[key] for key in npz}
    assert len(arrays["grid"]) > 0, "the file holds no cases"
    for case in range(len(arrays["grid"])):
        _check_case({key: value[case] for key, value in arrays.items() if value.ndim}, case)


def _check_case(expected: Mapping[str, np.ndarray], case: int) -> None:
    grid = int(expected["grid"])
    size = tuple(expected["size"].tolist())
    heatmap = torch.from_numpy(np.ascontiguousarray(expected["cam"][:grid, :grid]))
    enlarged = enlarge(heatmap[None], size)
    point = tuple(first_maximum(enlarged)[0].tolist())
    truth = geometry.xywh_to_xyxy(expected["box"])
    assert metrics.pointing_any(point, truth) == bool(expected["hit"]), f"case {case}: hit"

    boxes = [box for box in expected["flickr_boxes"] if (box >= 0).all()]
    any_hit = metrics.pointing_any(point, boxes)
    assert any_hit == bool(expected["flickr_hit"]), f"case {case}: hit in any box"

    proposals = geometry.xywh_to_xyxy(expected["dets"])
    index, proposal = metrics.best_proposal(enlarged[0].numpy(), proposals)
    assert index == int(expected["det_pick"]), f"case {case}: chosen proposal"
    overlap = -1.0 if proposal is None else metrics.proposal_iou(proposal, truth)
    assert abs(overlap - float(expected["det_iou"])) < 1e-9, f"case {case}: IoU of the proposal"
    correct = metrics.proposal_correct(proposal, truth)
    assert correct == (float(expected["det_iou"]) >= 0.5), f"case {case}: proposal correct"

"""Accuracy of boxes, predicted or chosen from proposals by a heat map."""

import numpy as np
from numpy.typing import ArrayLike

from groundwork import geometry
from groundwork.geometry import Box


def box_iou(box: ArrayLike | None, truths: ArrayLike) -> float:
    """IoU of a box with the best of the (n, 4) true boxes; 0 without a box or without truth."""
    return 0.0 if box is None else float(geometry.iou(box, truths).max(initial=0))


def reaches(overlap: float, threshold: float, *, inclusive: bool = False) -> bool:
    """Does an IoU count? RefTR asks for more than the threshold, ALVG (`inclusive`) for no less."""
    return overlap >= threshold if inclusive else overlap > threshold


def box_correct(
    box: ArrayLike | None, truths: ArrayLike, threshold: float = 0.5, *, inclusive: bool = False
) -> bool:
    """Acc@IoU: does the box reach the threshold with any of the (n, 4) true boxes, as `reaches`
    says?

    No predicted box, or a phrase without true boxes, is a miss.
    """
    return reaches(box_iou(box, truths), threshold, inclusive=inclusive)


def best_proposal(heatmap: np.ndarray, proposals: ArrayLike) -> tuple[int, Box | None]:
    """The proposal in which the heat map is densest.

    The score of a proposal is the sum of the map inside its integer-truncated corners over the
    square root of its area (spec: the released RefCOCO+ evaluation). The best positive score
    wins, the first of equal ones.

    Args:
        heatmap: (H, W), already enlarged to the image.
        proposals: (n, 4) xyxy; parts outside the image count as area without heat.

    Returns:
        (index, box), or (-1, None) when no proposal scores above 0, which counts as a miss; the
        released code keeps the previous sample's box instead.
    """
    boxes = geometry.as_boxes(proposals)
    corners = geometry.integer_corners(boxes, heatmap.shape)
    # Summed box by box: an integral image is no faster at this number of proposals, and its
    # rounding gives boxes without any heat scores just above 0.
    sums = [heatmap[y1:y2, x1:x2].sum(dtype=np.float64) for x1, y1, x2, y2 in corners]
    areas = geometry.area(boxes)
    scores = np.divide(sums, np.sqrt(areas), out=np.zeros(len(boxes)), where=areas > 0)
    if not (scores > 0).any():
        return -1, None
    index = int(scores.argmax())
    return index, tuple(boxes[index].tolist())


def proposal_iou(proposal: ArrayLike, truth: ArrayLike) -> float:
    """IoU as the REFER evaluation takes it: intersection over pixels, areas over lengths.

    The last pixel of a box is x1 + w - 1; the intersection counts first to last pixel inclusively
    (+1) and is empty unless the last lies beyond the first. Therefore it is the ordinary IoU
    except where boxes overlap by one pixel or less.
    """
    one, two = geometry.as_boxes(proposal)[0], geometry.as_boxes(truth)[0]
    first, last = np.maximum(one[:2], two[:2]), np.minimum(one[2:] - 1, two[2:] - 1)
    overlap = float((last - first + 1).prod()) if (last > first).all() else 0.0
    union = float(geometry.area(one) + geometry.area(two)) - overlap
    return overlap / union if union > 0 else 0.0


def proposal_correct(proposal: ArrayLike | None, truth: ArrayLike, threshold: float = 0.5) -> bool:
    """Does the chosen proposal reach the threshold? No proposal is a miss."""
    return proposal is not None and proposal_iou(proposal, truth) >= threshold

"""What a model found for expressions without boxes: made into labels, compared, filtered.

No annotated box, mask or class is looked at anywhere here.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from groundwork.dataset.formats.labels import CONFIDENCE, Label
from groundwork.dataset.record import Phrase, Record, Records
from groundwork.geometry import Size, iou

MIN_SIDE = 2.0  # pixels; a smaller box is no label


class Unlabelled:
    """Records without annotated boxes, masks and classes: what weak supervision may see."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int, /) -> Record:
        return _without_labels(self._records[index])

    def __iter__(self) -> Iterator[Record]:
        return map(_without_labels, self._records)


def _without_labels(record: Record) -> Record:
    phrases = (
        replace(phrase, boxes=(), masks=(), category="", matches_nothing=False)
        for phrase in record.phrases
    )
    return replace(record, phrases=tuple(phrases))


def label_of(
    record: Record, phrase: Phrase, box: np.ndarray, size: Size, confidence: Mapping[str, float]
) -> Label | None:
    """The label of an expression, its box cut at the image's edges; None if too little is left.

    Args:
        box: (4,) xyxy pixels. size: (H, W). confidence: as of `geometry.Grounding`; what is not
            finite, such as the margin of an only candidate, is left out.
    """
    height, width = size
    x1, y1, x2, y2 = np.clip(box, 0, [width, height, width, height]).tolist()
    if not (x2 - x1 >= MIN_SIDE and y2 - y1 >= MIN_SIDE):
        return None
    known = {name: confidence[name] for name in CONFIDENCE if name in confidence}
    return Label(
        image=record.image,
        width=width,
        height=height,
        text=phrase.text,
        box=(x1, y1, x2, y2),
        split=record.split,
        record_id=record.record_id,
        phrase_id=phrase.phrase_id,
        image_ids=record.image_ids,
        sentence=record.sentence,
        start=phrase.start,
        **{name: value for name, value in known.items() if math.isfinite(value)},
    )


def with_agreement(labels: Sequence[Label]) -> list[Label]:
    """Labels with their `agreement`, None where an object has one expression only.

    Expressions are of one object if they have the same phrase id in the same image.
    """
    objects: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        if label.phrase_id:
            objects[label.image, label.phrase_id].append(index)
    found = [replace(label, agreement=None) for label in labels]
    for members in objects.values():
        boxes = np.array([labels[index].box for index in members])
        if len(members) > 1:
            others = (iou(boxes, boxes).sum(axis=1) - 1) / (len(members) - 1)
            for index, value in zip(members, others.tolist(), strict=True):
                found[index] = replace(found[index], agreement=value)
    return found


def agreeing(labels: Iterable[Label], least: float) -> list[Label]:
    """Those whose `agreement` is at least this, and those that have none."""
    return [label for label in labels if label.agreement is None or label.agreement >= least]


def surest(labels: Sequence[Label], share: float, by: str) -> list[Label]:
    """The share of the labels that is surest by one of CONFIDENCE, in their order; ties are kept.

    Raises:
        ValueError: a label does not have it.
    """
    values = [getattr(label, by) for label in labels]
    require_said([k for k in CONFIDENCE if all(getattr(x, k) is not None for x in labels)], by)
    if not values:
        return []
    least = np.quantile(values, 1 - share, method="lower")
    return [label for label, value in zip(labels, values, strict=True) if value >= least]


def require_said(given: Collection[str], by: str) -> None:
    """Raises ValueError if labels cannot be ranked by one of CONFIDENCE; `given`: what is said of
    every box."""
    if by not in given:
        said = [name for name in CONFIDENCE if name in given]
        raise ValueError(
            f"--by {by}: this system does not say it of every box; it gives "
            f"{', '.join(said) or 'none of ' + ', '.join(CONFIDENCE)}"
        )


def snapped(
    labels: Sequence[Label], proposals: Mapping[str, np.ndarray]
) -> tuple[list[Label], int]:
    """Each box exchanged for the proposal of its image that overlaps it most, or, where none
    does, whose centre is nearest.

    Args:
        proposals: record id -> (n, 4) xyxy.

    Returns:
        The labels, and how many of their boxes have an IoU of at most 0.5 with what took their
        place.

    Raises:
        ValueError: an image has no proposals.
    """
    moved, far = [], 0
    for label in labels:
        boxes = proposals.get(label.record_id, np.zeros((0, 4)))
        if not len(boxes):
            raise ValueError(
                f"no proposals for image {label.record_id} ({label.image}); make them for all"
                " images of the split, e.g. with python -m tools.make_proposals"
            )
        overlap = iou(label.box, boxes)[0]
        centre = np.asarray(label.box).reshape(2, 2).mean(axis=0)
        distance = np.linalg.norm(boxes.reshape(-1, 2, 2).mean(axis=1) - centre, axis=1)
        best = int(overlap.argmax() if overlap.any() else distance.argmin())
        far += bool(overlap[best] <= 0.5)
        moved.append(replace(label, box=tuple(boxes[best].tolist())))
    return moved, far

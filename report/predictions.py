"""The predictions of an evaluation, one per expression, and the verdicts on them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from groundwork import metrics
from groundwork.geometry import (
    Box,
    Grounding,
    Point,
    Resampling,
    Size,
    mask_to_runs,
    resize_mask,
    runs_to_mask,
)
from groundwork.metrics import several
from groundwork.models.common.heatmap import enlarge


@dataclass(frozen=True)
class Run:
    """What was evaluated on what; the columns that all rows of an evaluation share.

    derived: which of "point", "box", "mask" the system does not give itself.
    splits: the splits to report, in order; empty for those that occur.
    image_root: folder that `Prediction.image` is relative to, for the image sheet.
    merged_boxes: the annotation has one box around all boxes of a phrase, as ReSC's Flickr30k
        lists; says which of Flickr30k's protocols the rows follow.
    seed: of the bootstrap.
    opener: how its images were opened, see `dataset.images.OPENERS`.
    identity: hash of weights, configuration and annotation files, origin: of the first two alone;
        "" if it is not known.
    resampling: whose nearest pixel brings true masks to the network's size.
    inclusive: the rows of ALVG's protocol, which counts an IoU of exactly the threshold, stand
        beside the others.
    """

    system: str
    objective: str
    checkpoint: str
    benchmark: str
    derived: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    image_root: str = ""
    note: str = ""
    seed: int = 0
    merged_boxes: bool = False
    opener: str = "pillow"
    identity: str = ""
    origin: str = ""
    resampling: Resampling = "torchvision"
    inclusive: bool = False


class MapScores(NamedTuple):
    """What `metrics.maps` says of a heat map: all in [0, 1]. shared: 0 or 1; expected_hit: the
    pointing game, where the maximum is shared with a point drawn from those cells."""

    energy: float
    best_iou: float
    half_iou: float
    expected_hit: float
    shared: float


@dataclass(frozen=True)
class Prediction:
    """One expression, its truth and what a system made of it.

    boxes: true boxes xyxy, without any of which nothing is right unless `several`; point: the
    predicted (x, y); score: match score; box: predicted box; proposal and proposal_index: the
    chosen one of the given proposals, (None, -1) when none scored, (None, None) when there were
    none to choose from; paraphrase, paraphrase_point, correlation: the same object in other words,
    the point predicted for it and the correlation of the two maps; objects: boxes of all objects of
    the image; mask, true_mask: run lengths (`counts` of `geometry.mask_to_runs`) of the predicted
    and of the true mask in `size`; resized_mask: those of the predicted mask in `resized_size` (h,
    w), the image's size in the network; heatmap: (h, w), kept in the .npz file; alternatives:
    other boxes by what they are, such as the best one (by the truth) of those that the system chose
    from; confidence: named numbers that say how sure the system is; several: any number of boxes
    was asked for, and `found` are those predicted, the best first, of `boxes` there may be none;
    attention: another map (h, w), kept in a file of its own.
    """

    id: str
    image: str
    split: str
    phrase: str
    size: Size
    point: Point
    boxes: tuple[Box, ...]
    score: float | None = None
    box: Box | None = None
    proposal: Box | None = None
    proposal_index: int | None = None
    paraphrase: str | None = None
    paraphrase_point: Point | None = None
    correlation: float | None = None
    objects: tuple[Box, ...] = ()
    mask: str | None = None
    true_mask: str | None = None
    resized_mask: str | None = None
    resized_size: Size | None = None
    heatmap: np.ndarray | None = field(default=None, compare=False, repr=False)
    alternatives: Mapping[str, Box] = field(default_factory=dict)
    confidence: Mapping[str, float] = field(default_factory=dict)
    several: bool = False
    found: tuple[Box, ...] = ()
    attention: np.ndarray | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        grounding: Grounding,
        *,
        id: str,
        image: str,
        split: str,
        boxes: np.ndarray,
        true_mask: np.ndarray | None,
    ) -> "Prediction":
        """What a system made of one expression beside its true boxes (n, 4) and mask (H, W)."""
        return cls(
            id=id,
            image=image,
            split=split,
            phrase=grounding.phrase,
            size=grounding.size,
            point=grounding.point,
            boxes=tuple(map(tuple, boxes.tolist())),
            score=float(grounding.scores[0]) if len(grounding.scores) else None,
            box=tuple(grounding.boxes[0].tolist()) if len(grounding.boxes) else None,
            mask=runs_of(grounding.mask),
            true_mask=runs_of(true_mask),
            heatmap=grounding.heatmap,
        )

    @property
    def hit(self) -> bool:
        """The pointing game: strictly inside any true box."""
        return metrics.pointing_any(self.point, self.boxes)

    @property
    def all_found(self) -> bool:
        """Every target found and nothing else (`several`)."""
        return several.all_found(self.found, self.boxes)

    @property
    def empty_mask(self) -> bool:
        """Is the predicted mask empty?"""
        return self.mask is None or not runs_to_mask(self.mask, self.size).any()

    @property
    def paraphrase_hit(self) -> bool:
        """The pointing game for the paraphrase."""
        return self.paraphrase_point is not None and metrics.pointing_any(
            self.paraphrase_point, self.boxes
        )

    @property
    def proposal_iou(self) -> float:
        """IoU of the chosen proposal with the best true box; 0 without one."""
        if self.proposal is None:
            return 0.0
        scores = (metrics.proposal_iou(self.proposal, box) for box in self.boxes)
        return max(scores, default=0.0)

    @property
    def proposal_correct(self) -> bool:
        """Does the chosen proposal reach IoU 0.5 with any true box?"""
        return any(metrics.proposal_correct(self.proposal, box) for box in self.boxes)

    @cached_property
    def mask_overlap(self) -> tuple[int, int]:
        """(intersection, union) in pixels of predicted and true mask; (0, 0) without a true one."""
        if self.true_mask is None:
            return 0, 0
        predicted = None if self.mask is None else runs_to_mask(self.mask, self.size)
        return metrics.mask_overlap(predicted, runs_to_mask(self.true_mask, self.size))

    @property
    def mask_iou(self) -> float:
        """IoU of predicted and true mask in the original image."""
        return metrics.mask_iou(self.mask_overlap)

    @cached_property
    def map_scores(self) -> MapScores | None:
        """Of the heat map, enlarged to the image as for the point; None without one."""
        if self.heatmap is None:
            return None
        small = np.ascontiguousarray(self.heatmap, dtype=np.float32)
        whole = enlarge(torch.from_numpy(small)[None], self.size)[0].numpy()
        shared = metrics.shared_maximum(small)
        return MapScores(
            energy=metrics.energy_inside(whole, self.boxes),
            best_iou=metrics.best_map_iou(whole, self.boxes),
            half_iou=metrics.map_iou(whole, self.boxes),
            expected_hit=(
                metrics.expected_hit(small, self.boxes, self.size) if shared else float(self.hit)
            ),
            shared=float(shared),
        )

    def resized_overlap(self, resampling: Resampling) -> tuple[int, int]:
        """`mask_overlap` in the network's size, to which the true mask is brought by the nearest
        pixel; (0, 0) without a true mask or that size."""
        if self.true_mask is None or self.resized_size is None:
            return 0, 0
        size = self.resized_size
        truth = resize_mask(runs_to_mask(self.true_mask, self.size), size, resampling)
        found = None if self.resized_mask is None else runs_to_mask(self.resized_mask, size)
        return metrics.mask_overlap(found, truth)

    @property
    def same_object(self) -> bool:
        """Do phrase and paraphrase point into one object? Without `objects`: into a true box."""
        return self.paraphrase_point is not None and metrics.same_object(
            self.point, self.paraphrase_point, self.objects or self.boxes
        )


def gives_boxes(run: Run) -> bool:
    """Does the system give boxes itself, so that they are judged, not points?"""
    return "point" in run.derived and "box" not in run.derived


def correct(prediction: Prediction, *, boxes: bool) -> bool:
    """The verdict on an expression: of any number of targets, all found and nothing else; by boxes
    IoU above 0.5; else the pointing game."""
    if prediction.several:
        return prediction.all_found
    return metrics.box_correct(prediction.box, prediction.boxes) if boxes else prediction.hit


def runs_of(mask: np.ndarray | None) -> str | None:
    """The run lengths of an (H, W) mask as `Prediction` holds them; None without a mask."""
    return None if mask is None else mask_to_runs(mask)["counts"]

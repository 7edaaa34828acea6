"""Explanations from outside: what becomes of an answer when parts of the image are hidden.

For any system: all that is asked of it is how well phrases fit to images. Shapes: B images of H x W
pixels as the network sees them, T phrases of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch
from skimage.segmentation import slic
from torch import Tensor, nn
from torch.nn import functional

from groundwork.geometry import Grounding, iou
from groundwork.models.common.heatmap import enlarge
from groundwork.models.common.system import Parts, Postprocess

if TYPE_CHECKING:
    from groundwork.dataset.batches import EvalBatch

Fit = Callable[[Any], Tensor]
"""Evaluation batch -> (T,): how well each phrase fits to its image, the higher the better."""
AnyBatch = TypeVar("AnyBatch", bound="EvalBatch")
SCALES = (20, 60)
"""Superpixels per image, of several segmentations: one object is seldom one superpixel."""
CELLS = 24
"""Rows and columns of the maps."""


def perturbation_maps(
    fit: Fit, batch: EvalBatch, scales: Sequence[int] = SCALES, cells: int = CELLS
) -> Tensor:
    """Hide one superpixel at a time; a pixel's heat is by how much a phrase fits worse without it.

    A hidden superpixel has the mean colour of its image. Heat is the mean over the segmentations,
    at least 0, and then the mean of each cell.

    Args:
        fit: of the system.
        batch: an evaluation batch.
        scales: about so many superpixels does each segmentation have.

    Returns:
        (T, cells, cells) float32, over the whole image, without the canvas around it.
    """
    owner, before = batch["phrase_image"], fit(batch)
    maps = []
    for count in scales:
        labels = _superpixels(batch, count)
        drops = []
        for label in range(int(labels.max()) + 1):
            now = fit(hidden(batch, labels == label))
            drops.append((before - now).float())
        by_label = torch.stack(drops, dim=1)  # (T, labels)
        heat = [drop[labels[image]] for drop, image in zip(by_label, owner.tolist(), strict=True)]
        maps.append(torch.stack(heat))
    whole = torch.stack(maps).mean(dim=0).relu()
    return torch.stack([
        functional.adaptive_avg_pool2d(_cut(one, batch, image)[None], cells)[0]
        for one, image in zip(whole, owner.tolist(), strict=True)
    ])  # fmt: skip


def hidden(batch: AnyBatch, where: Tensor) -> AnyBatch:
    """The batch with the mean colour of each image where (B, H, W) bool says so."""
    image = batch["image"]
    colour = image.mean(dim=(2, 3), keepdim=True)
    changed = torch.where(where[:, None], colour, image)
    return cast(AnyBatch, {**batch, "image": changed})


def deletion_and_insertion(
    fit: Fit, batch: AnyBatch, heatmaps: Tensor, steps: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """How well phrases fit while what their maps name is deleted, or inserted, the hottest first
    (Petsiuk et al., *RISE*, BMVC 2018); `metrics.area_under` makes a number of a curve.

    What is not there has the mean colour of the image. Of equally hot pixels those of earlier rows
    come first.

    Args:
        heatmaps: (T, h, w). steps: the share of the image that is moved grows by 1 / steps.

    Returns:
        two (T, steps + 1): with the whole image first, and with nothing first.

    Raises:
        ValueError: a sentence with several phrases, which share an image.
    """
    alone = _image_per_phrase(batch)
    owner = alone["phrase_image"]
    size = batch["image"].shape[-2:]
    heat = torch.stack([
        _laid(one, alone, image, size) for one, image in zip(heatmaps, owner.tolist(), strict=True)
    ])  # fmt: skip
    order = heat.flatten(1).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1).unflatten(1, size)
    pixels = size[0] * size[1]
    shares = [round(pixels * step / steps) for step in range(steps + 1)]
    deleted = [fit(hidden(alone, rank < share)).float().cpu().numpy() for share in shares]
    inserted = [fit(hidden(alone, rank >= share)).float().cpu().numpy() for share in shares]
    return np.stack(deleted, axis=1), np.stack(inserted, axis=1)


class BoxFit:
    """How far boxes stay what they were with the whole image: the IoU of the best ones, times the
    score of the new one (D-RISE, Petsiuk et al., CVPR 2021, without classes). Without a box: 0."""

    def __init__(self, model: Callable[[Any], Any], postprocess: Postprocess, batch: EvalBatch):
        self.model, self.postprocess = model, postprocess
        self.before = self._groundings(batch)

    def _groundings(self, batch: Any) -> list[Grounding]:
        with torch.no_grad():
            return self.postprocess(self.model(batch), batch)

    def __call__(self, batch: Any) -> Tensor:
        fits = [
            float(iou(old.boxes[:1], new.boxes[:1])[0, 0] * new.scores[0])
            if len(old.boxes) and len(new.boxes)
            else 0.0
            for old, new in zip(self.before, self._groundings(batch), strict=True)
        ]
        return torch.tensor(fits)


class Perturbation(nn.Module):
    """A system with maps by perturbation: evaluation batch -> (its outputs, maps (T, h, w)).

    A system that points by its heat map points by these; others get them beside their boxes.
    """

    def __init__(self, parts: Parts):
        super().__init__()
        self.evaluated, self.match, self.by_boxes = parts.evaluated, parts.match, parts.postprocess

    def forward(self, batch: EvalBatch) -> tuple[dict[str, Tensor], Tensor]:
        """Args:
        batch: an evaluation batch of the system.
        """
        if self.match is not None:
            maps = perturbation_maps(self.match, batch)
            fits = self.match(batch)
            return {"heatmaps": maps, "score": fits, "evidence": fits}, maps
        fit = BoxFit(self.evaluated, self.by_boxes, batch)
        return self.evaluated(batch), perturbation_maps(fit, batch)

    def postprocess(self, outputs: Any, batch: EvalBatch) -> list[Grounding]:
        """The system's groundings with these maps; `outputs` of `forward`."""
        of_system, maps = outputs
        return [
            replace(grounding, heatmap=heat)
            for grounding, heat in zip(
                self.by_boxes(of_system, batch), maps.cpu().numpy(), strict=True
            )
        ]


def _image_per_phrase(batch: AnyBatch) -> AnyBatch:
    """The batch with an image of its own for every phrase, as their maps differ."""
    owner = batch["phrase_image"]
    every = torch.arange(len(owner), device=owner.device)
    if len(owner) == len(batch["image"]):
        return batch
    if "phrase_text_ids" in batch:
        raise ValueError("deletion and insertion: set data.multi_phrase to false")
    return cast(AnyBatch, {**batch, "image": batch["image"][owner], "phrase_image": every})


def _superpixels(batch: EvalBatch, count: int) -> Tensor:
    """(B, H, W) int64: SLIC on the images as the network sees them, with their range as [0, 1]."""
    images = batch["image"].detach().float()
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    shown = ((images - low) / (high - low).clamp(min=1e-6)).permute(0, 2, 3, 1).cpu().numpy()
    labels = [slic(one, n_segments=count, compactness=10, start_label=0) for one in shown]
    return torch.from_numpy(np.stack(labels)).to(images.device)


def _place(batch: Any, image: int) -> tuple[slice, slice]:
    """Rows and columns of the network's input that hold an image."""
    if "resized" not in batch:
        return slice(None), slice(None)
    (height, width), (left, top) = batch["resized"][image], batch["offset"][image]
    return slice(top, top + height), slice(left, left + width)


def _cut(heat: Tensor, batch: EvalBatch, image: int) -> Tensor:
    rows, columns = _place(batch, image)
    return heat[rows, columns]


def _laid(heatmap: Tensor, batch: EvalBatch, image: int, size: torch.Size) -> Tensor:
    """A map (h, w) where its image lies on the network's input; around it is the coldest."""
    rows, columns = _place(batch, image)
    whole = torch.full(size, -torch.inf, device=heatmap.device)
    height, width = whole[rows, columns].shape
    whole[rows, columns] = enlarge(heatmap[None].float(), (height, width))[0]
    return whole

"""One sample per expression, or per sentence with its phrases, for box and mask systems."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch

from groundwork.dataset.faults import (
    Fault,
    box_fault,
    contradiction,
    mask_fault,
    pixel_fault,
    require_ordered,
    said,
)
from groundwork.dataset.image_text.dataset import check_size
from groundwork.dataset.images import (
    CorruptImageError,
    ImagePlace,
    load_image,
    open_root,
    resolve_image,
)
from groundwork.dataset.masks import phrase_mask, target_masks
from groundwork.dataset.record import Phrase, Record, Records
from groundwork.dataset.referring.text import EncodedText, ReferringText
from groundwork.dataset.referring.transforms import ReferringTransform
from groundwork.dataset.sampler import SizedDataset
from groundwork.dataset.scale_jitter import draw_view
from groundwork.geometry import Size, enclosing_box, xyxy_to_cxcywh01


@dataclass(slots=True)
class ReferringSample:
    """One image with one sentence; the lists run over its phrases. Keys, units and shapes as in
    `dataset/batches.py`.

    index: of the sample in its data set.
    image: None for an image that cannot be decoded and is left out of an evaluation.
    corrupt: images that could not be decoded and were replaced by this one (training).
    faults: what cannot be used as annotated, a line each (`dataset.faults`).
    """

    image: torch.Tensor | None
    size: tuple[int, int]
    image_path: str
    record_id: str
    split: str
    text: EncodedText
    resized: tuple[int, int] = (0, 0)
    offset: tuple[int, int] = (0, 0)
    index: int = 0
    phrase: list[str] = field(default_factory=list)
    phrase_ids: list[str] = field(default_factory=list)
    expression_ids: list[str] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    masks: list[np.ndarray | None] = field(default_factory=list)
    target_boxes: torch.Tensor = field(default_factory=lambda: torch.zeros(0, 4))
    target_mask: torch.Tensor | None = None
    target_masks: torch.Tensor | None = None
    corrupt: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ReferringRules:
    """What a data set makes of its records.

    Attributes:
        image_root, mask_root: folders that the records' images and `.npy` masks are relative to.
        image_roots: collection, such as "vg", -> folder of its images, in image_root's place.
        collections: whose images are taken; empty: all.
        masks: whether samples have a `target_mask`.
        max_phrases: a sentence with more phrases becomes several samples.
        integer_boxes: corners are cut towards zero to integers, as RefTR's released code does.
        last_pixel_boxes: boxes of an image of (H, W) are clipped to [0, W - 1] x [0, H - 1].
        stated_sizes: an image of another size than its record states is an error; False: what the
            record states is not looked at.
        boxes: False: annotated boxes are not looked at; samples have neither `boxes` nor
            `target_boxes`.
        several_targets: an expression may have any number of targets, or none: a target per box.
        one_per_record: a sample is a record with one of its phrases, drawn anew in every epoch of
            training, and once for evaluation.
        one_orientation: training batches are of images wider than high, or of others.
        one_per_object: a training sample is an object with one of its sentences, drawn anew in
            every epoch: phrases in a row with the same id are an object's.
        scale_jitter: training samples are views of their images, see `dataset.scale_jitter`.
        tolerate_corrupt: an image that cannot be decoded is replaced by that of the next sample
            (training) or left out (evaluation); otherwise that is an error.
        allow_outside_paths: take images that are not below `image_root`, too.
        opener: how images are opened, see `dataset.images.OPENERS`.
        strict: a record that cannot be used as annotated is an error.
        seed: of the augmentation.
    """

    image_root: str = ""
    image_roots: dict[str, str] = field(default_factory=dict)
    collections: tuple[str, ...] = ()
    mask_root: str | None = None
    masks: bool = False
    max_phrases: int = 16
    integer_boxes: bool = False
    last_pixel_boxes: bool = False
    stated_sizes: bool = True
    boxes: bool = True
    several_targets: bool = False
    one_per_record: bool = False
    one_per_object: bool = False
    one_orientation: bool = False
    scale_jitter: bool = False
    tolerate_corrupt: bool = False
    allow_outside_paths: bool = False
    opener: str = "shown"
    strict: bool = False
    seed: int = 42

    def takes(self, record: Record) -> bool:
        """Whether a record belongs to the data set at all."""
        return not self.collections or collection_of(record) in self.collections

    def path(self, record: Record) -> ImagePlace:
        """Its image file."""
        root = self.image_roots.get(collection_of(record), self.image_root)
        outside = self.allow_outside_paths
        return resolve_image(root, record.image, record.source, allow_outside=outside)

    def check(self, phrase: Phrase, record: Record) -> None:
        """Raises ValueError, naming the record, for a phrase without the box or mask that it needs,
        or an image of unknown size where batches are of one orientation."""
        if self.one_orientation:
            _is_wide(record)
        if self.several_targets and phrase.matches_nothing:
            return
        if self.boxes and not phrase.boxes:
            raise ValueError(
                f"{record.source}: {phrase.text!r} has no box; this data set needs one for every"
                " expression, leave out those that match nothing"
            )
        if self.masks and not phrase.masks:
            raise ValueError(
                f"{record.source}: {phrase.text!r} has no mask, and model.masks is true; use"
                " annotations with masks"
            )

    def faults(self, phrase: Phrase, record: Record, size: Size) -> list[Fault | None]:
        """What of a phrase in an image of (H, W) cannot be used as annotated.

        Raises:
            ValueError: corners that are exchanged or no numbers.
        """
        found: list[Fault | None] = []
        if self.several_targets:
            found.append(contradiction(phrase, record))
        if self.masks:
            found.append(mask_fault(phrase, record))
        if self.boxes and not (self.several_targets and phrase.matches_nothing):
            require_ordered(phrase, record, size)
            found.append(box_fault(phrase, record, size))
        return found


def collection_of(record: Record) -> str:
    """What the image is part of, such as "coco"; "" if its list does not say."""
    return record.image_ids[0].partition(":")[0] if record.image_ids else ""


def _is_wide(record: Record) -> bool:
    if not record.width or not record.height:
        raise ValueError(
            f"{record.source}: width and height of {record.image} are not stated, and"
            " data.sampling: orientation sorts the samples by them; state them or set it to global"
        )
    return record.width > record.height


def _as_evaluated(phrase: Phrase) -> Phrase:
    """A phrase of nothing has no targets, whatever its entry says besides."""
    return replace(phrase, boxes=(), masks=()) if phrase.matches_nothing else phrase


class ReferringDataset(SizedDataset[ReferringSample]):
    """Samples in the order of the records; all of them are looked through when it is made.

    The index of a training sample is (epoch, i), see `EpochSampler`; its augmentation follows from
    (seed, epoch, i). An evaluation sample has the index i, is not augmented, and brings along the
    masks in original size.

    A target is the box around all boxes of its phrase, as ReSC's lists have it; with
    `several_targets` each of its boxes.

    Args:
        records: of any reader, e.g. a `RecordTable`.
        transform: images to tensors. text: expressions to tokens. rules: the rest.

    Raises:
        ValueError: no records, or one that cannot be used, which is named: an empty expression, a
            phrase without a box or not in its sentence, a sentence of too many tokens, a phrase
            without a mask where masks are asked for.
    """

    def __init__(
        self,
        records: Records,
        transform: ReferringTransform,
        text: ReferringText,
        rules: ReferringRules,
    ) -> None:
        self.records = records
        self.transform = transform
        self.text = text
        self.rules = rules
        for root in (rules.image_root, *rules.image_roots.values()):
            open_root(root)
        # Samples of every split, in the order of the records.
        self.split_sizes: Counter[str] = Counter()
        # (record, first phrase, end of phrases) of every sample, never all as Python objects.
        numbers = (n for pair in enumerate(records) for row in self._rows(*pair) for n in row)
        self._samples = np.fromiter(numbers, dtype=np.int32).reshape(-1, 3)
        if not len(self._samples):
            raise ValueError("no expressions in the annotation files; check the paths and splits")

    def _rows(self, index: int, record: Record) -> Iterator[tuple[int, int, int]]:
        if not self.rules.takes(record):
            return
        self.text.check(record)
        for phrase in record.phrases:
            self.rules.check(phrase, record)
        count = len(record.phrases)
        if self.rules.one_per_record:
            starts = [0]
        elif self.rules.one_per_object:
            ids = [phrase.phrase_id for phrase in record.phrases]
            starts = [i for i in range(count) if i == 0 or ids[i] != ids[i - 1] or not ids[i]]
        else:
            starts = list(range(0, count, self.rules.max_phrases if self.text.multi_phrase else 1))
        self.split_sizes[record.split] += len(starts)
        yield from ((index, start, stop) for start, stop in pairwise([*starts, count]))

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._samples)

    @property
    def landscape(self) -> np.ndarray | None:
        """(n,) bool: whose images are wider than high, as their records state it; None without
        `one_orientation`.

        Raises:
            ValueError: a record does not state the size of its image.
        """
        if not self.rules.one_orientation:
            return None
        return np.array([_is_wide(self.records[number]) for number in self._samples[:, 0].tolist()])

    def expressions(self, index: int) -> list[tuple[Record, Phrase]]:
        """The phrases of an evaluation sample with their record, in the order of a batch's rows."""
        record, start, stop = self._chosen(index, None)
        return [(record, phrase) for phrase in record.phrases[start:stop]]

    def __getitem__(self, index: int | tuple[int, int]) -> ReferringSample:
        if isinstance(index, tuple):
            epoch, number = index
            return self._training_sample(epoch, number)
        try:
            return self._sample(index, None)
        except CorruptImageError:
            if not self.rules.tolerate_corrupt:
                raise
            record, _, _ = self._chosen(index, None)
            path = str(self.rules.path(record))
            return ReferringSample(
                None, (0, 0), path, record.record_id, record.split, EncodedText([])
            )

    def _training_sample(self, epoch: int, number: int) -> ReferringSample:
        corrupt = 0
        while True:
            rng = np.random.default_rng((self.rules.seed, epoch, number))
            try:
                sample = self._sample((number + corrupt) % len(self), rng)
                return replace(sample, corrupt=corrupt)
            except CorruptImageError:
                corrupt += 1
                if not self.rules.tolerate_corrupt or corrupt == len(self):
                    raise

    def _chosen(self, index: int, rng: np.random.Generator | None) -> tuple[Record, int, int]:
        """The record of a sample, and which of its phrases [start, stop) the sample has."""
        number, start, stop = self._samples[index].tolist()
        if self.rules.one_per_record or (self.rules.one_per_object and rng is not None):
            draws = np.random.default_rng((self.rules.seed, index)) if rng is None else rng
            start += int(draws.integers(stop - start))
            stop = start + 1
        return self.records[number], start, stop

    def _sample(self, index: int, rng: np.random.Generator | None) -> ReferringSample:
        record, start, stop = self._chosen(index, rng)
        phrases = record.phrases[start:stop]
        path = self.rules.path(record)
        image = load_image(path, record.source, self.rules.opener)
        size = (image.shape[0], image.shape[1])
        self.transform.require(size, f"{record.source}: image {path}")
        if self.rules.stated_sizes:
            check_size(record, size)
        found = [fault for phrase in phrases for fault in self.rules.faults(phrase, record, size)]
        found += [self.text.fault(phrase, record) for phrase in phrases]
        if rng is None and self.rules.several_targets:
            phrases = tuple(map(_as_evaluated, phrases))
        boxes = [self._boxes(phrase, size) for phrase in phrases if self.rules.boxes]
        masks = [self._mask(phrase, record, size, evaluation=rng is None) for phrase in phrases]
        singles = self._single_masks(phrases[0], record, size)
        for phrase, mask in zip(phrases, masks, strict=True):
            found.append(pixel_fault(phrase, record, [mask] if singles is None else singles))
        faults = said(found, strict=self.rules.strict)
        if rng is not None and self.rules.scale_jitter:
            view = draw_view(size, np.concatenate([np.zeros((0, 4)), *boxes]), rng)
            image, size = view.image(image), view.size
            boxes = [view.boxes(one) for one in boxes]
            masks = [None if mask is None else view.mask(mask) for mask in masks]
            singles = None if singles is None else [view.mask(mask) for mask in singles]
        several = self.rules.several_targets
        targets = np.concatenate(
            [one if several else np.reshape(enclosing_box(one), (1, 4)) for one in boxes]
            or [np.zeros((0, 4))]
        )
        return ReferringSample(
            image=self.transform(image, rng),
            size=size,
            image_path=str(path),
            record_id=record.record_id,
            split=record.split,
            text=self.text.encode(record, phrases),
            resized=self.transform.resized(size),
            offset=self.transform.offset(size),
            index=index,
            phrase=[phrase.text for phrase in phrases],
            phrase_ids=[phrase.phrase_id for phrase in phrases],
            expression_ids=[
                f"{record.record_id}/{phrase.phrase_id}#{index}.{place}"
                for place, phrase in enumerate(phrases, start)
            ],
            boxes=boxes,
            masks=masks,
            target_boxes=torch.from_numpy(xyxy_to_cxcywh01(targets, size)).float(),
            target_mask=self._target_mask(masks) if self.rules.masks else None,
            target_masks=self._target_masks(singles, size),
            faults=faults,
        )

    def _boxes(self, phrase: Phrase, size: tuple[int, int]) -> np.ndarray:
        boxes = np.asarray(phrase.boxes, dtype=np.float64).reshape(-1, 4)
        if self.rules.last_pixel_boxes:
            boxes = np.clip(boxes, 0, [size[1] - 1, size[0] - 1] * 2)
        return np.trunc(boxes) if self.rules.integer_boxes else boxes

    def _mask(
        self, phrase: Phrase, record: Record, size: tuple[int, int], *, evaluation: bool
    ) -> np.ndarray | None:
        if not (self.rules.masks or (evaluation and self.rules.boxes)):
            return None
        if self.rules.several_targets and phrase.matches_nothing and not phrase.masks:
            return np.zeros(size, dtype=bool) if self.rules.masks else None
        return phrase_mask(phrase, size, record.source, self.rules.mask_root)

    def _target_mask(self, masks: Sequence[np.ndarray | None]) -> torch.Tensor:
        union = np.logical_or.reduce([mask for mask in masks if mask is not None])
        return self.transform.mask(union)

    def _single_masks(
        self, phrase: Phrase, record: Record, size: tuple[int, int]
    ) -> list[np.ndarray] | None:
        """One (H, W) per target, with masks and several targets."""
        if not (self.rules.masks and self.rules.several_targets):
            return None
        return target_masks(phrase, size, record.source, self.rules.mask_root)

    def _target_masks(
        self, singles: list[np.ndarray] | None, size: tuple[int, int]
    ) -> torch.Tensor | None:
        """(n, h, w) bool."""
        if singles is None:
            return None
        none = torch.zeros(0, *self.transform.resized(size), dtype=torch.bool)
        return torch.cat([none, *(self.transform.mask(one)[None] for one in singles)])

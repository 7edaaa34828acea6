"""The data sets: training draws one phrase per visit, evaluation takes all phrases of an image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch

from groundwork.dataset.faults import (
    NO_BOX,
    NO_WORD,
    OTHER_SIZE,
    Fault,
    box_fault,
    pixel_fault,
    said,
)
from groundwork.dataset.image_text.transforms import CropTransform, EvalTransform, TrainTransform
from groundwork.dataset.images import (
    TURN_REMEDY,
    CorruptImageError,
    load_image,
    open_root,
    resolve_image,
)
from groundwork.dataset.masks import phrase_mask
from groundwork.dataset.record import Phrase, Record, Records
from groundwork.dataset.regions import covers_a_pixel
from groundwork.dataset.sampler import SizedDataset
from groundwork.dataset.text import PARAPHRASE_RULES, clean_caption, swap_left_right
from groundwork.geometry import Box, Size, integer_corners


@dataclass(slots=True)
class TrainSample:
    """One drawn phrase with its image; keys, units and shapes as in `dataset/batches.py`.

    faults: what of its record cannot be used as annotated, a line each (`dataset.faults`).
    """

    image: torch.Tensor
    phrase: str
    paraphrase: str | None
    region_mask: torch.Tensor | None
    image_path: str
    corrupt: int
    faults: list[str] = field(default_factory=list)


@dataclass(slots=True)
class EvalSample:
    """One image with all its phrases; the lists run over the phrases.

    image: None, with no phrases, for an image that cannot be decoded and is left out.
    index: of the sample in its data set.
    size: (H, W) that boxes, masks and points are in.
    faults: what of its records cannot be used as annotated, a line each.
    """

    image: torch.Tensor | None
    size: tuple[int, int]
    image_path: str
    index: int
    phrase: list[str]
    phrase_ids: list[str]
    boxes: list[np.ndarray]
    masks: list[np.ndarray | None]
    splits: list[str]
    record_ids: list[str]
    faults: list[str] = field(default_factory=list)


def check_size(record: Record, size: tuple[int, int]) -> None:
    """Raises ValueError if the record states another size than the image's (H, W)."""
    if record.width and record.height and (record.height, record.width) != size:
        raise ValueError(
            f"{record.source}: boxes are for {record.image} of {record.width}x{record.height}"
            f" pixels, the file has {size[1]}x{size[0]}; use the original image or scale the"
            " boxes to the images you have (tools/prepare_flickr30k.py --scale-to-images)"
            f"{_turned(record, size)}"
        )


def _turned(record: Record, size: Size) -> str:
    """A remedy where the stated sides are those of the image of (H, W) exchanged."""
    return TURN_REMEDY if (record.width, record.height) == size else ""


def usable_boxes(
    boxes: Sequence[Box], size: tuple[int, int], *, whole_pixels: bool = True
) -> np.ndarray:
    """The (m, 4) xyxy boxes of `boxes` that lie in the image of `size`, clipped to it.

    Left out: a corner that is not a number, crossed corners, no area inside the image, and, with
    `whole_pixels`, less than one pixel after the corners are cut to integers, as masks are drawn.
    """
    height, width = size
    clipped = np.clip(ordered_boxes(boxes), 0, [width, height, width, height])
    corners = integer_corners(clipped, size) if whole_pixels else clipped
    return clipped[(corners[:, :2] < corners[:, 2:]).all(axis=1)]


def ordered_boxes(boxes: Sequence[Box]) -> np.ndarray:
    """The (m, 4) xyxy boxes whose corners are numbers and in order: nothing hits the others."""
    array = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return array[np.isfinite(array).all(axis=1) & (array[:, :2] <= array[:, 2:]).all(axis=1)]


def word_fault(phrase: Phrase, record: Record, max_words: int) -> Fault | None:
    """A phrase of which cleaning leaves no word."""
    if clean_caption(phrase.text, max_words):
        return None
    message = f"{record.source}: phrase {phrase.text!r} has no word; it is read as [CLS] alone"
    return Fault(NO_WORD, message)


def region_fault(phrase: Phrase, record: Record, size: Size) -> Fault | None:
    """A phrase whose boxes cover no pixel of its image of (H, W), so that its region is empty."""
    if not phrase.boxes or covers_a_pixel(phrase.boxes, size).any():
        return None
    return Fault(
        NO_BOX,
        f"{record.source}: no box of {phrase.text!r} covers a pixel of {record.image}"
        f" ({size[1]}x{size[0]}): {[list(box) for box in phrase.boxes]}; its region is empty",
    )


def evaluation_faults(
    record: Record, size: Size, *, stated_size: bool, max_words: int
) -> Iterator[Fault]:
    """What of a record with an image of (H, W) cannot be evaluated as annotated."""
    stated = (record.height, record.width) if record.height and record.width else None
    used = stated if stated_size and stated else size
    for phrase in record.phrases:
        found = (word_fault(phrase, record, max_words), box_fault(phrase, record, used))
        yield from (fault for fault in found if fault is not None)
    if stated and stated != size:
        yield Fault(
            OTHER_SIZE,
            f"{record.source}: boxes are for {record.image} of {record.width}x{record.height}"
            f" pixels, the file has {size[1]}x{size[0]}; points are found in {used[1]}x{used[0]}"
            f"{_turned(record, size)}",
        )


class TrainDataset(SizedDataset[TrainSample]):
    """Training samples; the index is (epoch, i), see `EpochSampler`.

    All randomness of a sample comes from a generator seeded with (seed, epoch, i): whichever
    worker, rank or resumed run visits it draws the same phrase, box and augmentation.

    Args:
        records: the records, e.g. a `RecordTable`.
        image_root: folder that the records' image paths are relative to.
        transform: image and region to tensors; without regions boxes are not looked at.
        max_words: phrases are cut to this many words after cleaning.
        seed: of the run.
        flip_swaps_words: exchange "left" and "right" in the words of a mirrored image.
        all_boxes: the region is all boxes of a phrase, and not a drawn one.
        paraphrase_rule: how a synonym is put into a phrase, a key of
            `dataset.text.PARAPHRASE_RULES`.
        tolerate_corrupt: put the next record with a good image in the place of one that cannot be
            decoded, and count it in `corrupt`; otherwise that is an error.
        allow_outside_paths: take images that are not below `image_root`, too.
        opener: one of `dataset.images.OPENERS`.
        strict: a record that cannot be used as annotated is an error.
    """

    def __init__(
        self,
        records: Records,
        image_root: str,
        transform: TrainTransform | CropTransform,
        max_words: int = 50,
        seed: int = 42,
        *,
        flip_swaps_words: bool = True,
        all_boxes: bool = False,
        paraphrase_rule: str = "released",
        tolerate_corrupt: bool = False,
        allow_outside_paths: bool = False,
        opener: str = "pillow",
        strict: bool = False,
    ) -> None:
        if not len(records):
            raise ValueError("no training records; check train_file")
        self.records = records
        self.image_root = str(image_root)
        open_root(self.image_root)
        self.transform = transform
        self.max_words = max_words
        self.seed = seed
        self.flip_swaps_words = flip_swaps_words
        self.all_boxes = all_boxes
        self.paraphrase = PARAPHRASE_RULES[paraphrase_rule]
        self.tolerate_corrupt = tolerate_corrupt
        self.allow_outside_paths = allow_outside_paths
        self.opener = opener
        self.strict = strict

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: tuple[int, int]) -> TrainSample:
        epoch, i = index
        rng = np.random.default_rng((self.seed, epoch, i))
        record, image, path, corrupt = self._next_good(i)
        phrase = record.phrases[rng.integers(len(record.phrases))]
        size = (image.shape[0], image.shape[1])
        found = [word_fault(phrase, record, self.max_words)]
        if self.transform.regions:
            found.append(region_fault(phrase, record, size))
        faults = said(found, strict=self.strict)
        text = clean_caption(phrase.text, self.max_words)
        alternative = self._paraphrase(phrase, rng)
        boxes = self._region(phrase, record, size, rng)
        tensor, region, flipped = self.transform(image, boxes, rng)
        if flipped and self.flip_swaps_words:
            text = swap_left_right(text)
            alternative = swap_left_right(alternative) if alternative is not None else None
        return TrainSample(tensor, text, alternative, region, path, corrupt, faults)

    def _next_good(self, i: int) -> tuple[Record, np.ndarray, str, int]:
        corrupt = 0
        while True:
            record = self.records[(i + corrupt) % len(self)]
            path = resolve_image(
                self.image_root,
                record.image,
                record.source,
                allow_outside=self.allow_outside_paths,
            )
            try:
                return record, load_image(path, record.source, self.opener), str(path), corrupt
            except CorruptImageError:
                corrupt += 1
                if not self.tolerate_corrupt or corrupt == len(self):
                    raise

    def _paraphrase(self, phrase: Phrase, rng: np.random.Generator) -> str | None:
        candidates = [self.paraphrase(phrase, word, self.max_words) for word in phrase.synonyms]
        usable = [candidate for candidate in candidates if candidate is not None]
        return usable[rng.integers(len(usable))] if usable else None

    def _region(
        self, phrase: Phrase, record: Record, size: Size, rng: np.random.Generator
    ) -> list[Box] | None:
        """The boxes of the region; where none covers a pixel one of them, an empty region."""
        if not self.transform.regions or not phrase.boxes:
            return None
        check_size(record, size)
        usable = np.flatnonzero(covers_a_pixel(phrase.boxes, size))
        if not len(usable):
            usable = np.arange(len(phrase.boxes))
        chosen = usable if self.all_boxes else usable[[rng.integers(len(usable))]]
        return [phrase.boxes[i] for i in chosen]


class EvalDataset(SizedDataset[EvalSample]):
    """Every phrase of every image: one item is one image, so that it is decoded and encoded once.

    Args:
        records: records with boxes; those of one image are merged, in order.
        image_root: folder that the records' image paths are relative to.
        transform: image to tensor.
        max_words: phrases are cut to this many words after cleaning (RefCOCO+, RefCLEF: 30;
            Flickr30k: 50).
        stated_size: boxes, points and masks are in pixels of the size that a record states
            (RefCOCO+, RefCLEF), as far as it does; False: of the image's own (Flickr30k).
        tolerate_corrupt: leave an image that cannot be decoded out, and name it in the batch's
            `corrupt`; otherwise that is an error.
        allow_outside_paths: take images that are not below `image_root`, too.
        opener: one of `dataset.images.OPENERS`.
        strict: a record that cannot be used as annotated is an error.
        known_faults: `Record.source` -> what was found when the record was read.
    """

    def __init__(
        self,
        records: Records,
        image_root: str,
        transform: EvalTransform,
        max_words: int,
        *,
        stated_size: bool = False,
        tolerate_corrupt: bool = False,
        allow_outside_paths: bool = False,
        opener: str = "pillow",
        strict: bool = False,
        known_faults: Mapping[str, Fault] | None = None,
    ) -> None:
        self.image_root = str(image_root)
        open_root(self.image_root)
        self.transform = transform
        self.max_words = max_words
        self.stated_size = stated_size
        self.tolerate_corrupt = tolerate_corrupt
        self.allow_outside_paths = allow_outside_paths
        self.opener = opener
        self.strict = strict
        self.known_faults = known_faults or {}
        by_image: dict[tuple[object, ...], list[Record]] = {}
        for record in records:
            stated = (record.height, record.width) if stated_size else ()
            by_image.setdefault((record.image, *stated), []).append(record)
        if not by_image:
            raise ValueError("no evaluation records; check test_file and the splits asked for")
        self._images = list(by_image.values())

    def __len__(self) -> int:
        """Number of images, each counted once for every size that is stated for it."""
        return len(self._images)

    def expressions(self, index: int) -> list[tuple[Record, Phrase]]:
        """The phrases of a sample with their records, in the order of the batch's rows."""
        return [(record, phrase) for record in self._images[index] for phrase in record.phrases]

    def texts(self) -> Iterator[tuple[str, str]]:
        """Every phrase as the model reads it, with the place where its record was read."""
        for record in chain.from_iterable(self._images):
            for phrase in record.phrases:
                yield clean_caption(phrase.text, self.max_words), record.source

    def __getitem__(self, index: int) -> EvalSample:
        group = self._images[index]
        first = group[0]
        path = resolve_image(
            self.image_root, first.image, first.source, allow_outside=self.allow_outside_paths
        )
        try:
            image = load_image(path, first.source, self.opener)
        except CorruptImageError:
            if not self.tolerate_corrupt:
                raise
            return EvalSample(None, (0, 0), str(path), index, [], [], [], [], [], [])
        size = self._size(first, image)
        sample = EvalSample(self.transform(image), size, str(path), index, [], [], [], [], [], [])
        for record in group:
            own = (image.shape[0], image.shape[1])
            found = evaluation_faults(
                record, own, stated_size=self.stated_size, max_words=self.max_words
            )
            known = self.known_faults.get(record.source)
            sample.faults += said((known, *found), strict=self.strict)
            for phrase in record.phrases:
                sample.phrase.append(clean_caption(phrase.text, self.max_words))
                sample.phrase_ids.append(phrase.phrase_id)
                # Not clipped: clipping would move the edges that pointing is judged by.
                sample.boxes.append(ordered_boxes(phrase.boxes))
                mask = phrase_mask(phrase, size, record.source)
                sample.masks.append(mask)
                sample.faults += said([pixel_fault(phrase, record, [mask])], strict=self.strict)
                sample.splits.append(record.split)
                sample.record_ids.append(record.record_id)
        return sample

    def _size(self, record: Record, image: np.ndarray) -> Size:
        if self.stated_size and record.width and record.height:
            return record.height, record.width
        return image.shape[0], image.shape[1]

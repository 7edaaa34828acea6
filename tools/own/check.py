"""Phrases as people write them down: what is wrong with them, and the same without it."""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from groundwork.dataset.faults import CONTRADICTION, NO_BOX, NO_PIXEL, NO_WORD, OTHER_SIZE, Fault
from groundwork.dataset.formats import entries
from groundwork.dataset.image_text.dataset import check_size
from groundwork.dataset.images import load_image
from groundwork.dataset.record import Record
from groundwork.dataset.text import clean_caption
from groundwork.files.foreign import forward_slashes
from groundwork.files.safe import inside
from groundwork.geometry import (
    Box,
    Size,
    area,
    clip_boxes,
    decode_mask,
    mask_to_box,
    mask_to_runs,
)
from groundwork.tools.findings import REPEATED, STICKS_OUT, Findings

UNREADABLE, NO_MASK = "line that cannot be read", "mask that cannot be drawn"
# Annotators' boxes are often off by this much, in pixels.
_TOLERANCE = 1.0


def is_xywh(stated: bool | None, flag: str | None, records: Iterable[tuple[Record, Size]]) -> bool:
    """Whether boxes are x, y, width, height, and not x1, y1, x2, y2.

    Args:
        stated: what the form of the list says. flag: --boxes. records: with the (H, W) of their
            images, for what neither says: then they are corners, unless more boxes contradict that
            than the other.

    Raises:
        ValueError: the form and the flag, or the boxes and the form, contradict each other.
    """
    if stated is not None and flag not in (None, "xywh" if stated else "xyxy"):
        raise ValueError(f"--boxes {flag}: this list states boxes otherwise; leave the flag out")
    if stated is not None or flag is not None:
        return bool(stated) if flag is None else flag == "xywh"
    only_corners = only_sides = 0
    for record, size in records:
        boxes = record.phrases[0].boxes
        for box, other in zip(boxes, entries.corners(boxes), strict=True):
            only_corners += _fits(box, size) and not _fits(other, size)
            only_sides += _fits(other, size) and not _fits(box, size)
    if only_sides > only_corners:
        raise ValueError(
            f"{only_sides} boxes fit their images only as x, y, width, height, {only_corners} only"
            " as x1, y1, x2, y2; say --boxes xywh, or --boxes xyxy to see which are wrong"
        )
    return False


def _fits(box: Box, size: Size) -> bool:
    (x1, y1, x2, y2), (height, width) = box, size
    fits = min(x1, y1) >= -_TOLERANCE and max(x2 - width, y2 - height) <= _TOLERANCE
    return fits and x1 < x2 and y1 < y2


@dataclass(frozen=True)
class Checker:
    """findings: receives what is wrong, a kind and an example. masks: folder of mask files."""

    findings: Findings
    masks: Path

    def checked(self, record: Record, size: Size) -> Record | None:
        """The record of one phrase of an image of (H, W): its boxes inside the image, every mask a
        COCO segmentation, with a box around each where none is stated. None if something is wrong.
        """
        faults = list(self._faults(record, size))
        masks: list[tuple[str, np.ndarray]] = []
        for text in record.phrases[0].masks:
            try:
                masks.append(_drawn(text, size, self.masks))
            except (ValueError, OSError) as error:
                faults.append(Fault(NO_MASK, f"{record.source}: {error}"))
        around = [mask_to_box(mask) for _, mask in masks]
        if None in around:
            faults.append(Fault(NO_PIXEL, f"{record.source}: a mask has no pixel in the image"))
        for fault in faults:
            self.findings.add(*fault)
        if faults:
            return None
        (phrase,) = record.phrases
        boxes = phrase.boxes or tuple(box for box in around if box is not None)
        boxes = tuple(map(tuple, clip_boxes(np.reshape(boxes, (-1, 4)), size).tolist()))
        phrase = replace(phrase, boxes=boxes, masks=tuple(text for text, _ in masks))
        return replace(record, width=size[1], height=size[0], phrases=(phrase,))

    def _faults(self, record: Record, size: Size) -> Iterator[Fault]:
        (phrase,) = record.phrases
        if not clean_caption(phrase.text, sys.maxsize):
            yield Fault(NO_WORD, f"{record.source}: the phrase {phrase.text!r} has no word")
        try:
            check_size(record, size)
        except ValueError as error:
            yield Fault(OTHER_SIZE, str(error))
        height, width = size
        for box in phrase.boxes:
            about = f"{record.source}: {list(box)} in {width}x{height} pixels"
            if not area(clip_boxes(np.asarray([box]), size))[0] > 0:
                shares = max(map(abs, box)) <= 1
                remedy = "; boxes are in pixels, not in shares of the image" if shares else ""
                yield Fault(NO_BOX, about + remedy)
            elif not _fits(box, size):
                yield Fault(STICKS_OUT, about)

    def merged(self, records: Iterable[Record]) -> list[Record]:
        """Records of one phrase each, in which an image has no phrase twice: where it comes again
        with other boxes it has them all."""
        found: dict[tuple[str, str, str], Record] = {}
        for record in records:
            words = " ".join(record.phrases[0].text.lower().split())
            key = (record.image, record.sentence, words)
            other = found.get(key)
            found[key] = record if other is None else self._both(other, record)
        return list(found.values())

    def _both(self, first: Record, second: Record) -> Record:
        (one,), (two,) = first.phrases, second.phrases
        about = f"{second.source}: {two.text!r}, as {first.source}"
        if one.matches_nothing != two.matches_nothing and one.boxes + two.boxes:
            self.findings.add(CONTRADICTION, f"{about}: once it is there, once it is not")
            return first
        if not one.boxes and not one.matches_nothing:
            return second
        further = [i for i, box in enumerate(two.boxes) if box not in one.boxes]
        if not further:
            self.findings.add(REPEATED, about)
            return first
        boxes = one.boxes + tuple(two.boxes[i] for i in further)
        masks = one.masks + tuple(two.masks[i] for i in further if two.masks)
        masks = masks if len(masks) == len(boxes) else ()
        return replace(first, phrases=(replace(one, boxes=boxes, masks=masks),))


def _drawn(text: str, size: Size, folder: Path) -> tuple[str, np.ndarray]:
    """The text and the (H, W) mask of a segmentation, or of a file."""
    if text[:1] in ("[", "{"):
        return text, decode_mask(text, size)
    if text.endswith(".npy"):
        mask = decode_mask(text, size, folder)
    else:
        mask = load_image(folder / inside(forward_slashes(text), "mask"), text, "shown").any(axis=2)
        if mask.shape != size:
            raise ValueError(f"mask {text} has (H, W) = {mask.shape}, its image {size}")
    return json.dumps(mask_to_runs(mask), separators=(",", ":")), mask


def with_objects(records: Iterable[Record]) -> list[Record]:
    """The same image by image, what is of one sentence or object in a row, each phrase with the
    number of its object as id.

    Phrases of the same boxes, or for which the list names the same object, are of one object.
    """
    numbers: dict[str, dict[object, int]] = {}
    found: dict[str, dict[object, list[Record]]] = {}
    for record in records:
        (phrase,) = record.phrases
        known = numbers.setdefault(record.image, {})
        same = phrase.phrase_id or phrase.boxes or ("alone", len(known))
        number = known.setdefault(same, len(known))
        rows = found.setdefault(record.image, {}).setdefault(record.sentence or number, [])
        rows.append(replace(record, phrases=(replace(phrase, phrase_id=str(number)),)))
    return [one for groups in found.values() for rows in groups.values() for one in rows]

"""What the embedded data set says, written in a published format and read again, is the same.

A format takes part with one entry of `ROUND_TRIPS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dataset.formats import grefcoco, refer, tuples
from dataset.record import Phrase, Record
from geometry import decode_mask


@dataclass(frozen=True)
class RoundTrip:
    """One format.

    expected: of the drawn records, those that the format can hold, less what it does not state;
    write, read: records to a folder and back. `source` and `image_ids` are not compared.
    """

    expected: Callable[[list[Record]], list[Record]]
    write: Callable[[list[Record], Path], object]
    read: Callable[[Path], Iterable[Record]]


@pytest.fixture(scope="module")
def drawn(tiny_data):
    """One record per set of objects that a scene's expressions refer to, as in scenes.jsonl."""
    records = []
    for line in (tiny_data / "scenes.jsonl").read_text().splitlines():
        scene = json.loads(line)
        texts: dict[tuple[int, ...], dict[str, None]] = {}
        for expression in scene["expressions"]:
            texts.setdefault(tuple(expression["targets"]), {})[expression["text"]] = None
        for targets, said in texts.items():
            records.append(record_of(scene, targets, said, str(len(records) + 1)))
    return records


def record_of(scene, targets, said, number):
    objects = [scene["objects"][target] for target in targets]
    shapes = [thing["shape"] for thing in objects]
    first = Phrase(
        text="",
        phrase_id=number,
        boxes=tuple(tuple(map(float, thing["box"])) for thing in objects),
        masks=tuple(json.dumps(thing["mask"], separators=(",", ":")) for thing in objects),
        category=",".join(shapes[:1] if len(set(shapes)) == 1 else shapes),
        matches_nothing=not objects,
    )
    height, width = scene["size"]
    phrases = tuple(replace(first, text=text) for text in said)
    record_id = str(scene["image_id"])
    return Record(scene["image"], width, height, phrases, scene["split"], record_id)


def single_targets(records: list[Record]) -> list[Record]:
    return [record for record in records if len(record.phrases[0].boxes) == 1]


def tuple_records(records: list[Record], *, ids: bool, masks: bool) -> list[Record]:
    """One record per phrase of one object, as the tuples state them."""
    return [
        Record(
            image=record.image,
            width=None,
            height=None,
            phrases=(
                Phrase(
                    text=phrase.text,
                    phrase_id=phrase.phrase_id if ids else "",
                    boxes=phrase.boxes,
                    masks=(f"{phrase.phrase_id}.npy",) if masks else (),
                ),
            ),
            split="val",
        )
        for record in single_targets(records)
        for phrase in record.phrases
    ]


def sentence_records(records: list[Record]) -> list[Record]:
    """One record per picture: a sentence of what is said about its objects."""
    pictures: dict[str, list[Phrase]] = {}
    for record in single_targets(records):
        first = record.phrases[0]
        phrases = pictures.setdefault(record.image, [])
        start = sum(len(phrase.text) + len(" and ") for phrase in phrases)
        phrases.append(Phrase(first.text, first.phrase_id, first.boxes, start=start))
    return [
        Record(
            image, None, None, tuple(p), "val", sentence=" and ".join(phrase.text for phrase in p)
        )
        for image, p in pictures.items()
    ]


def tuple_format(layout: str, expected: Callable[[list[Record]], list[Record]]) -> RoundTrip:
    """Tuple lists have no image ids of their own: they follow from the picture's name."""

    def numbered(records: list[Record], coco: bool) -> list[Record]:
        # The names of COCO's pictures are not those of the embedded data set.
        named = ((r, int(Path(r.image).stem)) for r in expected(records))
        if coco:
            return [
                replace(r, image=f"COCO_{r.split}2014_{n:012d}.jpg", record_id=str(n))
                for r, n in named
            ]
        return [replace(r, record_id=str(n)) for r, n in named]

    coco = tuples.LAYOUTS[layout].collection == "coco"
    return RoundTrip(
        expected=partial(numbered, coco=coco),
        write=lambda records, folder: tuples.write(records, folder / "x_val.pth", layout),
        read=lambda folder: tuples.read(folder / "x_val.pth", layout),
    )


ROUND_TRIPS = {
    "refer": RoundTrip(
        expected=single_targets,
        write=partial(refer.write, split_by="unc"),
        read=lambda folder: refer.read(folder / "refs(unc).p", folder / "instances.json"),
    ),
    "grefcoco": RoundTrip(
        expected=list,
        write=grefcoco.write,
        read=lambda folder: grefcoco.read(folder / "grefs(unc).json", folder / "instances.json"),
    ),
    **{
        f"tuples-{layout}": tuple_format(layout, partial(tuple_records, ids=ids, masks=masks))
        for layout, ids, masks in (
            ("unc", True, False),
            ("unc+", True, False),
            ("gref", True, False),
            ("gref_umd", True, False),
            ("referit", True, False),
            ("flickr", False, False),
            ("vg", False, False),
            ("res", False, True),
        )
    },
    "tuples-multi": tuple_format("multi", sentence_records),
}


@pytest.mark.parametrize("trip", ROUND_TRIPS.values(), ids=ROUND_TRIPS)
def test_what_is_written_is_read_again(tmp_path, drawn, trip):
    expected = trip.expected(drawn)
    assert expected
    trip.write(expected, tmp_path)
    found = [replace(record, source="", image_ids=()) for record in trip.read(tmp_path)]
    for one, other in zip(found, expected, strict=True):
        assert one == other


def test_masks_mean_the_same_after_the_round_trip(tmp_path, drawn):
    grefcoco.write(drawn, tmp_path)
    read = ROUND_TRIPS["grefcoco"].read(tmp_path)
    for record, original in zip(read, drawn, strict=True):
        size = record.height, record.width
        for phrase, first in zip(record.phrases, original.phrases, strict=True):
            for box, mask, text in zip(phrase.boxes, phrase.masks, first.masks, strict=True):
                x1, y1, x2, y2 = map(int, box)
                pixels = decode_mask(mask, size)
                assert pixels[y1:y2, x1:x2].sum() == pixels.sum() > 0
                assert np.array_equal(pixels, decode_mask(text, size))

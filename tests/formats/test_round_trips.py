"""What the embedded data set says, written in a published format and read again, is the same.

A format takes part with one entry of `ROUND_TRIPS`.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from groundwork.dataset.formats import (
    coco,
    entities,
    finetune_grefcoco,
    flickr30k,
    grefcoco,
    instances_json,
    paraphrases,
    phrases,
    refer,
    simrec,
    tuples,
    vg,
    visual_genome,
)
from groundwork.dataset.formats.grouping import by_image, by_object
from groundwork.dataset.record import Phrase, Record
from groundwork.geometry import decode_mask


@dataclass(frozen=True)
class RoundTrip:
    """One format.

    expected: of the drawn records, those that the format can hold, less what it does not state;
    write, read: records to a folder and back. `source` is not compared, nor `image_ids` where none
    are expected.
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
    """One record per image: a sentence of what is said about its objects."""
    images: dict[str, list[Phrase]] = {}
    for record in single_targets(records):
        first = record.phrases[0]
        phrases = images.setdefault(record.image, [])
        start = sum(len(phrase.text) + len(" and ") for phrase in phrases)
        phrases.append(Phrase(first.text, first.phrase_id, first.boxes, start=start))
    return [
        Record(
            image, None, None, tuple(p), "val", sentence=" and ".join(phrase.text for phrase in p)
        )
        for image, p in images.items()
    ]


def tuple_format(layout: str, expected: Callable[[list[Record]], list[Record]]) -> RoundTrip:
    """Tuple lists have no image ids of their own: they follow from the image's name."""

    def numbered(records: list[Record], coco: bool) -> list[Record]:
        # The names of COCO's images are not those of the embedded data set.
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


def coco_named(records: Iterable[Record]) -> list[Record]:
    """The records with the names that COCO's images have."""
    return [
        replace(
            record,
            image=f"COCO_train2014_{int(record.record_id):012d}.jpg",
            image_ids=(f"coco:{record.record_id}",),
        )
        for record in records
    ]


def mixed(records: Iterable[Record], folder: str = "") -> list[Record]:
    """The records with images of four collections in turn."""
    found = coco_named(records)
    for place, kind in enumerate(("vg", "flickr", "saiapr"), 1):
        for index in range(place, len(found), 4):
            number = found[index].record_id
            image = f"{folder if kind == 'vg' else ''}{number}.jpg"
            found[index] = replace(found[index], image=image, image_ids=(f"{kind}:{number}",))
    return found


def stated(records: Iterable[Record], sizes: bool = True, **changes: object) -> list[Record]:
    """The records with what a format does not state of their phrases changed to `changes`."""
    found = []
    for record in records:
        phrases = tuple(replace(phrase, **changes) for phrase in record.phrases)
        size = {} if sizes else {"width": None, "height": None}
        found.append(replace(record, phrases=phrases, **size))
    return found


def regions(records: list[Record], *, objects: bool = False) -> list[Record]:
    """One record per image with what is said about single objects, as Visual Genome has it."""
    images: dict[str, tuple[Record, list[Phrase]]] = {}
    for record in stated(single_targets(records), masks=()):
        first = record.phrases[0]
        if objects:
            first = replace(first, text=f"{first.text} {first.category}")
        else:
            first = replace(first, category="")
        images.setdefault(record.record_id, (record, []))[1].append(first)
    return [
        Record(
            f"VG_100K_2/{number}.jpg", record.width, record.height, tuple(phrases), "train",
            number, image_ids=(f"vg:{number}", f"coco:{number}7"),
        )
        for number, (record, phrases) in images.items()
    ]  # fmt: skip


def listed(records: list[Record], *, boxes: bool) -> list[Record]:
    """Entries of a training list, every other one with a relation."""
    return [
        Record(
            record.image, None, None,
            tuple(
                Phrase(
                    phrase.text,
                    boxes=phrase.boxes if boxes else (),
                    group=phrase.category if index % 2 else "",
                    synonyms=("thing", "shape") if index % 2 else (),
                )
                for phrase in record.phrases
            ),
            "train",
        )
        for index, record in enumerate(records)
        if record.phrases[0].boxes
    ]  # fmt: skip


def captions(records: list[Record]) -> list[Record]:
    """Every second sentence of an image, of what is said about one and about several objects."""
    images: dict[str, list[Record]] = {}
    for record in records:
        if record.phrases[0].boxes:
            images.setdefault(record.record_id, []).append(record)
    found = []
    for number, rows in images.items():
        for index, row in enumerate(rows):
            other = rows[index - 1]
            texts = [one.phrases[0].text for one in (row, other)]
            starts = (len("see "), len(f"see {texts[0]} and "))
            phrases = tuple(
                Phrase(text, one.phrases[0].phrase_id, one.phrases[0].boxes, start=start,
                       category="other/scene")
                for text, one, start in zip(texts, (row, other), starts, strict=True)
            )  # fmt: skip
            sentence = f"see {texts[0]} and {texts[1]} ."
            found.append(
                Record(
                    f"{number}.jpg", row.width, row.height, phrases, "val",
                    f"{number}#{2 * index + 1}", sentence=sentence,
                    image_ids=(f"flickr:{number}",),
                )
            )  # fmt: skip
    return found


def pairs(records: list[Record]) -> list[Record]:
    found = [record for record in single_targets(records) if len(record.phrases) > 1]
    return [
        replace(
            record,
            record_id=f"seen-{index}",
            split="seen",
            phrases=tuple(
                Phrase(phrase.text, name, phrase.boxes)
                for phrase, name in zip(record.phrases, PAIR, strict=False)
            ),
        )
        for index, record in enumerate(found)
    ]


PAIR = (paraphrases.PHRASE, paraphrases.PARAPHRASE)
SHAPES = {"circle": 0, "square": 1, "triangle": 2, "star": 3, "cross": 4, "ring": 5}


def in_anns(records: Iterable[Record]) -> list[Record]:
    return stated(by_object(records, SHAPES), sizes=False, masks=())


def in_instances(records: Iterable[Record]) -> list[Record]:
    return stated(records, phrase_id="", category="")


def by_sentence(records: Iterable[Record]) -> list[Record]:
    rows = stated(coco_named(records), phrase_id="", category="", masks=())
    return [
        replace(record, phrases=(phrase,), split="testA")
        for record in rows
        for phrase in record.phrases
    ]


def own(records: Iterable[Record]) -> list[Record]:
    """Phrases of all kinds, one of them of an unknown place, and sentences with their parts."""
    found = [
        replace(record, record_id=record.image, split="val")
        for record in stated(records, category="")
    ]
    parts = [replace(one, record_id=one.image) for one in sentence_records(records)]
    unplaced = replace(found[0], phrases=(Phrase("unseen", "unseen"),))
    return [*found, *parts, unplaced]


def json_format(
    expected: Callable[[list[Record]], list[Record]],
    module: object,
    name: str = "x.json",
    *arguments: object,
    **options: object,
) -> RoundTrip:
    """A format of one file; `arguments` of its `read`, `options` of its `write`."""
    return RoundTrip(
        expected=expected,
        write=lambda records, folder: module.write(records, folder / name, **options),
        read=lambda folder: module.read(folder / name, *arguments),
    )


VISUAL_GENOME = {
    "visual_genome-regions": RoundTrip(
        expected=regions,
        write=lambda records, folder: visual_genome.write(records, [], folder),
        read=visual_genome.read,
    ),
    "visual_genome-attributes": RoundTrip(
        expected=partial(regions, objects=True),
        write=lambda records, folder: visual_genome.write([], records, folder),
        read=visual_genome.read_attributes,
    ),
}
FLICKR30K = {
    "entities": RoundTrip(
        expected=captions,
        write=entities.write,
        read=lambda folder: entities.read(
            folder, sorted(path.stem for path in (folder / "Sentences").iterdir()), "val"
        ),
    ),
    "flickr30k": RoundTrip(
        expected=captions,
        write=lambda records, folder: flickr30k.write(records, folder, "val"),
        read=lambda folder: flickr30k.read(folder, "val"),
    ),
}

ROUND_TRIPS = {
    **VISUAL_GENOME,
    **FLICKR30K,
    "vg": json_format(partial(listed, boxes=True), vg),
    "coco": json_format(partial(listed, boxes=False), coco),
    "phrases": json_format(own, phrases, "x.jsonl", "val"),
    "paraphrases": json_format(pairs, paraphrases, "x.json", "seen"),
    "simrec": json_format(lambda all_: in_anns(coco_named(single_targets(all_))), simrec),
    "simrec-merged": json_format(
        lambda all_: in_anns(mixed(single_targets(all_), "VG_100K/")), simrec, merged=True
    ),
    "instances-single": json_format(
        lambda all_: in_instances(coco_named(single_targets(all_))), instances_json
    ),
    "instances-mixed": json_format(
        lambda all_: in_instances(mixed(single_targets(all_))), instances_json
    ),
    "instances-grefcoco": json_format(
        lambda all_: sorted(in_instances(by_image(coco_named(all_))), key=lambda r: r.split),
        instances_json,
    ),
    "finetune_grefcoco": json_format(
        by_sentence, finetune_grefcoco, "finetune_grefcoco_testA.json"
    ),
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
    for found, wanted in zip(trip.read(tmp_path), expected, strict=True):
        ids = found.image_ids if wanted.image_ids else ()
        assert replace(found, source="", image_ids=ids) == wanted


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

"""Every file of the embedded data set, read by its format, says what is true of the scenes."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from groundwork.dataset.formats import (
    entities,
    finetune_grefcoco,
    flickr30k,
    grefcoco,
    instances_json,
    refer,
    simrec,
    tuples,
    vg,
    visual_genome,
)
from groundwork.dataset.record import Record
from groundwork.geometry import decode_mask, enclosing_box
from tests.unit.test_synthetic import canonical, matches

REFCOCO = ("train", "val", "testA", "testB")
REFCLEF = ("val", "test")
FLICKR = ("train", "val", "test")


@dataclass(frozen=True)
class Written:
    """One format of the embedded data set.

    read: its files below the folder. images: folder of its images. says: formats of one name
    hold the same expressions. united: one box around all. masks: below this folder, or in it.
    """

    read: Callable[[Path], Iterable[Record]]
    pictures: str
    says: str
    united: bool = False
    masks: str | None = None


def per_split(module, pattern: str, splits: tuple[str, ...]) -> Callable[[Path], Iterable[Record]]:
    return lambda folder: chain(*(module.read(folder / pattern.format(s)) for s in splits))


def in_file(module, name: str) -> Callable[[Path], Iterable[Record]]:
    return lambda folder: module.read(folder / name)


def read_entities(folder: Path) -> Iterable[Record]:
    raw = folder / "flickr30k_entities"
    ids = {split: flickr30k.read_ids(raw / f"{split}.txt") for split in FLICKR}
    return chain(*(entities.read(raw, rows, split) for split, rows in ids.items()))


def read_regions(folder: Path) -> Iterable[Record]:
    captions = {(record.image, record.phrases) for record in vg.read(folder / "vg/captions.json")}
    records = vg.read(folder / "vg/train.json")
    return (record for record in records if (record.image, record.phrases) not in captions)


COCO, FLICKR_PICTURES = "images/train2014", "flickr30k/images"
FORMATS = {
    "refcoco+": Written(
        lambda folder: refer.read(*refer.files(folder, "refcoco+")), "images", "refcoco+", masks=""
    ),
    "refclef": Written(
        lambda folder: refer.read(*refer.files(folder, "refclef")), "images", "refclef", masks=""
    ),
    "unc+": Written(
        per_split(tuples, "annotations_resc/unc+/unc+_{}.pth", REFCOCO), COCO, "refcoco+"
    ),
    "referit": Written(
        per_split(tuples, "annotations_resc/referit/referit_{}.pth", REFCLEF), "images", "refclef"
    ),
    "res": Written(
        per_split(tuples, "refcoco/anns/refcoco+/refcoco+_unc_{}.pth", REFCOCO),
        COCO, "refcoco+", masks="refcoco/masks/refcoco+",
    ),
    "simrec": Written(in_file(simrec, "anns/refcoco+.json"), COCO, "refcoco+"),
    "simrec-refclef": Written(in_file(simrec, "anns/refclef.json"), "images", "refclef"),
    "alvg": Written(
        in_file(instances_json, "annotations/refcocoplus-unc/instances.json"),
        COCO, "refcoco+", masks="",
    ),
    "alvg-refclef": Written(
        in_file(instances_json, "annotations/referitgame-berkeley/instances.json"),
        "images", "refclef", masks="",
    ),
    "entities": Written(read_entities, FLICKR_PICTURES, "flickr"),
    "info-ground": Written(
        lambda folder: chain(*(flickr30k.read(folder / "flickr30k", s) for s in ("val", "test"))),
        FLICKR_PICTURES, "flickr held",
    ),
    "multi": Written(
        per_split(tuples, "annotations/flickr/flickr_{}.pth", FLICKR),
        FLICKR_PICTURES, "flickr", united=True,
    ),
    "flickr": Written(
        per_split(tuples, "annotations_resc/flickr/flickr_{}.pth", FLICKR),
        FLICKR_PICTURES, "flickr", united=True,
    ),
    "simrec-flickr": Written(
        in_file(simrec, "anns/flickr30k.json"), FLICKR_PICTURES, "flickr", united=True
    ),
    "alvg-flickr": Written(
        in_file(instances_json, "annotations/flickr30k/instances.json"),
        FLICKR_PICTURES, "flickr", united=True,
    ),
    "vg": Written(read_regions, "images", "regions"),
    "visual_genome": Written(
        lambda folder: visual_genome.read(folder / "visual_genome"), "images", "regions"
    ),
    "visual_genome-objects": Written(
        lambda folder: visual_genome.read_attributes(folder / "visual_genome"), "images", "objects"
    ),
    "vg_all": Written(in_file(tuples, "annotations_resc/vg/vg_all.pth"), "images", "regions"),
    "grefcoco": Written(
        lambda folder: grefcoco.read(
            folder / "grefcoco/grefs(unc).json", folder / "grefcoco/instances.json"
        ),
        COCO, "grefcoco", masks="",
    ),
    "finetune_grefcoco": Written(
        per_split(finetune_grefcoco, "grefcoco/finetune_grefcoco_{}.json", REFCOCO),
        COCO, "grefcoco",
    ),
    "alvg-grefcoco": Written(
        in_file(instances_json, "annotations/grefcoco/instances.json"), COCO, "grefcoco", masks=""
    ),
    "simrec-merged": Written(in_file(simrec, "anns/merged.json"), "", "merged", united=True),
    "alvg-mixed": Written(
        in_file(instances_json, "annotations/mixed/instances.json"), "", "merged", united=True
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tiny_data):
    """Scene by the number and by the name of its image."""
    found = {}
    for line in (tiny_data / "scenes.jsonl").read_text().splitlines():
        scene = json.loads(line)
        found[scene["image_id"]] = found[scene["image"]] = scene
    return found


@pytest.fixture(scope="module")
def synonyms(tiny_data):
    return json.loads((tiny_data / "synonyms.json").read_text())


def scene_of(record: Record, scenes: dict) -> dict:
    if record.image in scenes:
        return scenes[record.image]
    return scenes[int(re.findall(r"\d+", Path(record.image).stem)[-1])]


@pytest.mark.parametrize("written", FORMATS.values(), ids=FORMATS)
def test_what_is_read_is_true_of_the_scene(tiny_data, scenes, synonyms, written):
    records = list(written.read(tiny_data))
    assert records
    for record in records:
        scene = scene_of(record, scenes)
        for phrase in record.phrases:
            words = canonical(phrase.text, synonyms)
            targets = sorted(matches(words, scene))
            boxes = [tuple(scene["objects"][target]["box"]) for target in targets]
            if written.united:
                boxes = [enclosing_box(boxes)]
            assert sorted(phrase.boxes) == sorted(boxes), (record.source, phrase.text)
            assert phrase.matches_nothing == (not targets)
            if phrase.start >= 0:
                assert record.sentence[phrase.start :].startswith(phrase.text)


@pytest.mark.parametrize("name", [name for name, one in FORMATS.items() if one.masks is not None])
def test_masks_show_the_objects(tiny_data, scenes, name):
    root = tiny_data / (FORMATS[name].masks or "")
    kinds = set()
    for record in FORMATS[name].read(tiny_data):
        scene = scene_of(record, scenes)
        size = tuple(scene["size"])
        truth = {
            tuple(thing["box"]): decode_mask(json.dumps(thing["mask"]), size)
            for thing in scene["objects"]
        }
        for phrase in record.phrases:
            assert len(phrase.masks) == len(phrase.boxes)
            for box, text in zip(phrase.boxes, phrase.masks, strict=True):
                mask = decode_mask(text, size, root)
                assert (mask & truth[box]).sum() / (mask | truth[box]).sum() > 0.8
                kinds.add(text[0])
    assert kinds == ({"u"} if name == "res" else {"[", "{"})


@pytest.mark.parametrize("written", FORMATS.values(), ids=FORMATS)
def test_the_images_are_where_the_lists_say_and_show_the_scene(tiny_data, scenes, written):
    for record in {record.image: record for record in written.read(tiny_data)}.values():
        scene = scene_of(record, scenes)
        kind = record.image_ids[0].partition(":")[0] if record.image_ids else ""
        folder = written.pictures or {"coco": COCO, "flickr": FLICKR_PICTURES}.get(kind, "images")
        picture = (tiny_data / folder / record.image).read_bytes()
        assert picture == (tiny_data / "images" / scene["image"]).read_bytes()
        if record.width is not None:
            assert [record.height, record.width] == scene["size"]


def said(records: Iterable[Record], scenes: dict) -> list[tuple]:
    return sorted(
        (scene_of(record, scenes)["image_id"], record.split, phrase.text, sorted(phrase.boxes))
        for record in records
        for phrase in record.phrases
    )


@pytest.mark.parametrize(
    "topic", ["refcoco+", "refclef", "flickr", "regions", "grefcoco", "merged"]
)
def test_formats_of_the_same_data_say_the_same(tiny_data, scenes, topic):
    one, *others = (written for written in FORMATS.values() if written.says == topic)
    wanted = said(united(one.read(tiny_data), others), scenes)
    for other in others:
        found = said(united(other.read(tiny_data), others), scenes)
        # The one list of Visual Genome has a split of all.
        assert [(row[0], *row[2:]) for row in found] == [(row[0], *row[2:]) for row in wanted]
        assert {row[1] for row in found} in ({row[1] for row in wanted}, {"all"})


def united(records: Iterable[Record], formats: list[Written]) -> Iterable[Record]:
    """The records with the box around all boxes, if some format states no more."""
    if not any(one.united for one in formats):
        return records
    return (
        Record(
            record.image, None, None,
            tuple(
                type(phrase)(phrase.text, boxes=(enclosing_box(phrase.boxes),))
                for phrase in record.phrases
            ),
            record.split,
        )
        for record in records
    )  # fmt: skip


def test_there_are_expressions_of_no_one_and_several_objects_in_every_split(tiny_data):
    counts: dict[str, set[int]] = {}
    for record in FORMATS["alvg-grefcoco"].read(tiny_data):
        sizes = {min(len(phrase.boxes), 2) for phrase in record.phrases}
        counts.setdefault(record.split, set()).update(sizes)
    assert counts == dict.fromkeys(REFCOCO, {0, 1, 2})


def test_sentences_have_several_phrases(tiny_data):
    sizes = [len(record.phrases) for record in FORMATS["multi"].read(tiny_data)]
    assert np.mean(sizes) > 1.5 and max(sizes) > 2

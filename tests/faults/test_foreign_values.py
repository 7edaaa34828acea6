"""Nulls, numbers and texts in the places of lists and objects, in every published form."""

import pytest

from groundwork.dataset.formats import (
    instances_json,
    simrec,
    visual_genome,
)
from tests.helpers.dataset_files import write_json
from tests.helpers.foreign import UNREADABLE, check, edit, several


def first_of(images):
    return next(iter(images))


NO_LIST = "expected a list of entries, got NoneType"
NULLS = [
    (
        "tiny/Grounding_flickr", "flickr30k/sentences_val.json",
        lambda images: images.update({first_of(images): None}), f"]: {NO_LIST}",
    ),
    (
        "tiny/Grounding_flickr", "flickr30k/sentences_val.json",
        lambda images: images[first_of(images)][0].update(phrases=None),
        f"][0]: phrases: {NO_LIST}",
    ),
    (
        "tiny/Grounding_flickr", "flickr30k/bounding_boxes_val.json",
        lambda images: images.update({first_of(images): None}), "]: expected an object, got None",
    ),
    *(
        (
            "tiny/Grounding_refcoco", "refcoco+/instances.json",
            lambda content, kind=kind: content.update({kind: None}), f" {kind}: {NO_LIST}",
        )
        for kind in ("images", "annotations", "categories")
    ),
    (
        "alvg/grefcoco", "annotations/grefcoco/instances.json",
        lambda splits: several(splits).update(bbox=[5] * len(several(splits)["bbox"])),
        " bbox: expected a list of entries, got int",
    ),
    *(
        (
            "alvg/grefcoco", "annotations/grefcoco/instances.json",
            lambda splits, value=value: splits["val"][2].update(data_source=value),
            f"[val][2]: data_source must be one of coco, vg, visual-genome, saiaprtc12, flickr, got"
            f" {value}",
        )
        for value in (["coco"], 7)
    ),
    (
        "refclip/refcoco+", "anns/refcoco+.json",
        lambda splits: splits.update(val=None), f"[val]: {NO_LIST}",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("config", "name", "spoil", "message"), NULLS)
def test_a_null_or_number_in_the_place_of_a_list_is_named(config, name, spoil, message, data):
    edit(data / name, spoil)
    errors, _, examples = check(config, data)
    assert errors == UNREADABLE
    assert f"{data / name}" in examples and message in examples


def test_a_null_as_data_source_is_the_usual_one(data):
    path = data / "annotations" / "grefcoco" / "instances.json"
    before = list(instances_json.read(path, ["val"]))
    edit(path, lambda splits: [entry.update(data_source=None) for entry in splits["val"]])
    assert list(instances_json.read(path, ["val"])) == before
    anns = {"val": [{"iid": 1, "bbox": [1, 2, 3, 4], "refs": ["a cup"], "data_source": None}]}
    (record,) = simrec.read(write_json(data / "anns" / "refcoco.json", anns))
    assert record.image_ids == ("coco:1",)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("region_descriptions", {"regions": None}, rf"descriptions\.json\[0\]: regions: {NO_LIST}"),
        ("attributes", {"attributes": None}, rf"attributes\.json\[0\]: attributes: {NO_LIST}"),
        ("attributes", {"attributes": [None]}, r"attributes\.json\[0\]: expected an object"),
        ("object", {"attributes": 5}, r"attributes\.json\[0\]: attributes must be a string or a"),
        ("object", {"names": None}, r"attributes\.json\[0\]: names must be a string or a list"),
        ("image_data", {"url": None}, r"image_data\.json image 1: url of image 1 names no folder"),
        ("image_data", {"width": "x"}, r"image_data\.json image 1: width must be"),
        ("image_data", {"coco_id": "x"}, r"image_data\.json image 1: coco_id must be"),
    ],
)
def test_faults_of_visual_genome_name_their_own_file(file, change, message, tmp_path):
    image = {"image_id": 1, "url": "x/VG_100K/1.jpg", "width": 80, "height": 60, "coco_id": None}
    region = {"region_id": 5, "phrase": "a cup", "x": 1, "y": 2, "width": 3, "height": 4}
    thing = {
        "object_id": 6,
        "names": ["cup"],
        "attributes": ["red"],
        "x": 1,
        "y": 2,
        "w": 3,
        "h": 4,
    }
    entries = {
        "image_data": image,
        "region_descriptions": {"id": 1, "regions": [region]},
        "attributes": {"image_id": 1, "attributes": [thing]},
    }
    (thing if file == "object" else entries[file]).update(change)
    for name, entry in entries.items():
        write_json(tmp_path / f"{name}.json", [entry])
    with pytest.raises(ValueError, match=message) as caught:
        list(visual_genome.read(tmp_path)) + list(visual_genome.read_attributes(tmp_path))
    assert file != "image_data" or "region_descriptions" not in str(caught.value)

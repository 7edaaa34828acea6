"""instances.json of SeqTR, SimVG and ALVG: single target, mixed, gRefCOCO."""

import json
from dataclasses import replace

import pytest

from groundwork.dataset.formats import instances_json
from tests.helpers.dataset_files import write_json

SQUARE = [[1, 1, 9, 1, 9, 9, 1, 9]]
SINGLE = {
    "image_id": 72, "height": 60, "width": 80, "expressions": ["man", "hat"],
    "bbox": [1, 2, 3, 4], "mask": SQUARE,
}  # fmt: skip
SEVERAL = {
    "image_id": 72, "height": 60, "width": 80, "expressions": ["two men", "a whale"],
    "annotations": [[{"category_id": 1}, {"category_id": 1}], [{"category_id": -1}]],
    "bbox": [[[1, 1, 8, 8], [5, 5, 2, 2]], [[0, 0, 0, 0]]],
    "segmentation": [[SQUARE, SQUARE], []],
}  # fmt: skip


def test_a_single_target_has_its_box_and_mask_in_every_phrase(tmp_path):
    content = {"info": {"made": "by"}, "train": [SINGLE]}
    (record,) = instances_json.read(write_json(tmp_path / "instances.json", content))
    assert (record.split, record.width, record.height) == ("train", 80, 60)
    assert [p.text for p in record.phrases] == ["man", "hat"]
    assert all(p.boxes == ((1, 2, 4, 6),) for p in record.phrases)
    assert all(json.loads(p.masks[0]) == SQUARE for p in record.phrases)


@pytest.mark.parametrize(
    ("kind", "image", "identity"),
    [
        ("coco", "COCO_train2014_000000000072.jpg", "coco:72"),
        ("visual-genome", "72.jpg", "vg:72"),
        ("vg", "72.jpg", "vg:72"),
        ("flickr", "72.jpg", "flickr:72"),
        ("saiaprtc12", "72.jpg", "saiapr:72"),
    ],
)
def test_a_mixed_list_names_the_source_of_each_image(tmp_path, kind, image, identity):
    content = {"train": [SINGLE | {"data_source": kind}]}
    (record,) = instances_json.read(write_json(tmp_path / "instances.json", content))
    assert (record.image, record.image_ids) == (image, (identity,))


def test_grefcoco_has_several_targets_or_none(tmp_path):
    (record,) = instances_json.read(write_json(tmp_path / "instances.json", {"val": [SEVERAL]}))
    two, none = record.phrases
    assert two.boxes == ((1, 1, 9, 9), (5, 5, 7, 7)) and len(two.masks) == 2
    assert none.matches_nothing and not none.boxes and not none.masks


def test_lists_of_different_length_are_an_error(tmp_path):
    path = write_json(tmp_path / "instances.json", {"val": [SEVERAL | {"bbox": []}]})
    with pytest.raises(ValueError, match=r"\[val\]\[0\].*differ in length"):
        list(instances_json.read(path))


def test_a_target_of_minus_one_among_others_makes_it_an_expression_of_nothing(tmp_path):
    mixed = SEVERAL | {
        "annotations": [[{"category_id": -1}, {"category_id": 1}], [{"category_id": -1}]],
    }
    (record,) = instances_json.read(write_json(tmp_path / "mixed.json", {"val": [mixed]}))
    first, second = record.phrases
    assert first.matches_nothing and first.boxes == ((5, 5, 7, 7),) and len(first.masks) == 1
    assert second.matches_nothing and not second.boxes and not second.masks
    instances_json.write([record], tmp_path / "again.json")
    (again,) = instances_json.read(tmp_path / "again.json")
    assert again.phrases == record.phrases


def test_lists_of_targets_must_be_as_long_as_each_other(tmp_path):
    short = SEVERAL | {"annotations": [[{"category_id": 1}], [{"category_id": -1}]]}
    with pytest.raises(ValueError, match="'two men' has 1 annotations, 2 boxes, 2 masks"):
        list(instances_json.read(write_json(tmp_path / "short.json", {"val": [short]})))


def test_what_is_written_is_read_again(tmp_path):
    path = write_json(tmp_path / "instances.json", {"train": [SINGLE], "val": [SEVERAL]})
    records = list(instances_json.read(path))
    assert instances_json.write(records, tmp_path / "again.json") == {"train": 1, "val": 1}
    again = list(instances_json.read(tmp_path / "again.json"))
    assert [replace(r, source="") for r in again] == [replace(r, source="") for r in records]

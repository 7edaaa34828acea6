"""gRefCOCO: references to several objects or to none."""

from dataclasses import replace

import pytest

from groundwork.dataset.formats import grefcoco
from groundwork.dataset.record import Phrase, Record
from tests.helpers.dataset_files import write_json

NAME = "COCO_train2014_000000000500.jpg"
SQUARE = [[10, 20, 40, 20, 40, 35, 10, 35]]
INSTANCES = {
    "images": [{"id": 500, "file_name": NAME, "width": 80, "height": 60}],
    "annotations": [
        {"id": 50, "image_id": 500, "bbox": [10, 20, 30, 15], "category_id": 1}
        | {"segmentation": SQUARE},
        {"id": 51, "image_id": 500, "bbox": [0, 0, 5, 5], "category_id": 3}
        | {"segmentation": {"size": [60, 80], "counts": [0, 5, 4795]}},
    ],
    "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
}


def ref(**changes):
    sentences = [{"sent": "both", "sent_id": 1}, {"sent": "the two", "sent_id": 2}]
    whole = {"ref_id": 5, "ann_id": [50, 51], "image_id": 500, "split": "testA"}
    return whole | {"sentences": sentences} | changes


def read(tmp_path, *refs, splits=None):
    instances = write_json(tmp_path / "instances.json", INSTANCES)
    return list(grefcoco.read(write_json(tmp_path / "grefs(unc).json", refs), instances, splits))


def test_a_reference_has_the_boxes_masks_and_classes_of_all_its_objects(tmp_path):
    (record,) = read(tmp_path, ref())
    assert (record.image, record.width, record.height) == (NAME, 80, 60)
    assert (record.record_id, record.image_ids) == ("500", ("coco:500",))
    assert [phrase.text for phrase in record.phrases] == ["both", "the two"]
    for phrase in record.phrases:
        assert phrase.boxes == ((10, 20, 40, 35), (0, 0, 5, 5))
        assert phrase.masks[0] == "[[10,20,40,20,40,35,10,35]]"
        assert len(phrase.masks) == 2
        assert phrase.category == "person,car"
        assert not phrase.matches_nothing


@pytest.mark.parametrize("nothing", [[-1], [], -1])
def test_a_reference_without_objects_matches_nothing(tmp_path, nothing):
    (record,) = read(tmp_path, ref(ann_id=nothing, no_target=True))
    assert all(phrase.matches_nothing and not phrase.boxes for phrase in record.phrases)


def test_splits_are_chosen_and_an_empty_one_is_an_error(tmp_path):
    refs = [ref(), ref(ref_id=6, split="val"), ref(ref_id=7, split="train")]
    records = read(tmp_path, *refs, splits=["val", "testA"])
    assert [record.split for record in records] == ["testA", "val"]
    with pytest.raises(ValueError, match=r"no reference of split 'testB' \(it has: testA, train"):
        read(tmp_path, *refs, splits=["testB"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ann_id": [50, -1]}, "says that nothing is meant"),
        ({"no_target": True}, "says that nothing is meant"),
        ({"ann_id": [50, 50]}, "twice"),
        ({"ann_id": ["x"]}, "ann_id must be"),
        ({"ann_id": [52]}, "annotations: key 52 is missing"),
        ({"image_id": 501}, "belong together"),
    ],
)
def test_a_contradiction_is_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=rf"grefs\(unc\)\.json\[0\].*{message}"):
        read(tmp_path, ref(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masks": ("[]",)}, "2 boxes, but 1 masks"),
        ({"category": "a,b,c"}, "3 classes"),
        ({"boxes": ()}, "must have boxes or be marked"),
        ({"matches_nothing": True}, "must have boxes or be marked"),
        ({"masks": ("5.npy", "6.npy")}, "is a file"),
    ],
)
def test_a_record_that_contradicts_itself_is_not_written(tmp_path, changes, message):
    phrase = replace(Phrase("both", boxes=((1, 2, 3, 4), (2, 3, 4, 5))), **changes)
    record = Record("x.jpg", 8, 9, (phrase,), "val")
    with pytest.raises(ValueError, match=message):
        grefcoco.write([record], tmp_path)
    assert not list(tmp_path.iterdir())

"""SimREC's and RefCLIP's annotation files."""

import json
from dataclasses import replace

import pytest

from groundwork.dataset.formats import simrec
from tests.helpers.dataset_files import write_json

ENTRY = {
    "iid": 72,
    "bbox": [10, 20, 30.5, 15],
    "cat_id": 3,
    "refs": ["man", "red hat"],
    "mask_id": 9,
}


def test_an_entry_is_a_record_with_all_its_sentences(tmp_path):
    path = write_json(tmp_path / "refcoco.json", {"train": [ENTRY], "val": []})
    (record,) = simrec.read(path)
    assert record.image == "COCO_train2014_000000000072.jpg"
    assert record.image_ids == ("coco:72",)
    assert [phrase.text for phrase in record.phrases] == ["man", "red hat"]
    assert record.phrases[0].boxes == ((10, 20, 40.5, 35),)


def test_refclef_has_images_of_its_own(tmp_path):
    (record,) = simrec.read(write_json(tmp_path / "refclef.json", {"test": [ENTRY]}))
    assert (record.image, record.image_ids) == ("72.jpg", ("saiapr:72",))


def test_what_is_written_is_read_again(tmp_path):
    records = list(simrec.read(write_json(tmp_path / "refcoco.json", {"train": [ENTRY]})))
    assert simrec.write(records, tmp_path / "out" / "refcoco.json") == {"train": 1}
    again = list(simrec.read(tmp_path / "out" / "refcoco.json"))
    assert [replace(r, source="") for r in again] == [replace(r, source="") for r in records]


def test_outside_training_one_entry_has_one_sentence(tmp_path):
    records = simrec.read(write_json(tmp_path / "refcoco.json", {"val": [ENTRY]}))
    assert simrec.write(records, tmp_path / "out.json") == {"val": 2}
    rows = json.loads((tmp_path / "out.json").read_text())["val"]
    assert [row["refs"] for row in rows] == [["man"], ["red hat"]]


@pytest.mark.parametrize("key", ["iid", "bbox", "refs"])
def test_a_missing_key_is_named_with_its_entry(tmp_path, key):
    entry = {name: value for name, value in ENTRY.items() if name != key}
    path = write_json(tmp_path / "refcoco.json", {"val": [entry]})
    with pytest.raises(ValueError, match=rf"refcoco\.json\[val\]\[0\].*{key}"):
        list(simrec.read(path))


def test_without_mask_id_and_class_an_entry_is_an_object_of_its_own(tmp_path):
    bare = {key: value for key, value in ENTRY.items() if key not in ("cat_id", "mask_id")}
    path = write_json(tmp_path / "refcoco.json", {"train": [bare, bare], "val": [bare]})
    records = list(simrec.read(path))
    ids = [[(p.phrase_id, p.category) for p in record.phrases] for record in records]
    assert ids == [[("0", "")] * 2, [("1", "")] * 2, [("2", "")] * 2]
    assert [p.phrase_id for r in simrec.read(path, ["val"]) for p in r.phrases] == ["2", "2"]


def test_flickr30ks_images_are_flickrs(tmp_path):
    (record,) = simrec.read(write_json(tmp_path / "flickr30k.json", {"val": [ENTRY]}))
    assert (record.image, record.image_ids) == ("72.jpg", ("flickr:72",))


def test_a_merged_list_names_the_collection_of_each_image(tmp_path):
    url = "https://cs.stanford.edu/people/rak248/VG_100K_2/73.jpg"
    rows = [
        ENTRY | {"iid": "72", "data_source": "coco"},
        ENTRY | {"iid": "73", "data_source": "vg", "url": url},
        ENTRY | {"iid": "74", "data_source": "flickr"},
    ]
    records = list(simrec.read(write_json(tmp_path / "merged.json", {"train": rows})))
    assert [(record.image, record.image_ids) for record in records] == [
        ("COCO_train2014_000000000072.jpg", ("coco:72",)),
        ("VG_100K_2/73.jpg", ("vg:73",)),
        ("74.jpg", ("flickr:74",)),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iid": "a.jpg"}, "iid must be an integer"),
        ({"data_source": "elsewhere"}, "data_source: key 'elsewhere' is missing"),
        ({"data_source": "vg", "url": "73.jpg"}, "names no folder"),
        ({"data_source": "vg", "url": "https://x/../73.jpg"}, "names no folder"),
    ],
)
def test_an_image_that_cannot_be_named_is_an_error(tmp_path, changes, message):
    path = write_json(tmp_path / "merged.json", {"train": [ENTRY | changes]})
    with pytest.raises(ValueError, match=rf"merged\.json\[train\]\[0\].*{message}"):
        list(simrec.read(path))


def test_a_merged_list_of_unknown_images_is_not_written(tmp_path):
    (record,) = simrec.read(write_json(tmp_path / "refcoco.json", {"train": [ENTRY]}))
    with pytest.raises(ValueError, match="first image id"):
        simrec.write([replace(record, image_ids=())], tmp_path / "out.json", merged=True)
    assert not (tmp_path / "out.json").exists()

"""SimREC's and RefCLIP's annotation files."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dataset.formats import simrec
from tests.dataset_files import write_json

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


def test_refclef_has_pictures_of_its_own(tmp_path):
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


@pytest.mark.parametrize("key", ENTRY)
def test_a_missing_key_is_named_with_its_entry(tmp_path, key):
    entry = {name: value for name, value in ENTRY.items() if name != key}
    path = write_json(tmp_path / "refcoco.json", {"val": [entry]})
    with pytest.raises(ValueError, match=rf"refcoco\.json\[val\]\[0\].*{key}"):
        list(simrec.read(path))

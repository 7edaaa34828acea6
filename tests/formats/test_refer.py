"""REFER's data sets as a whole: references with sentences, boxes, masks, classes."""

import json
import pickle

import numpy as np
import pytest

from groundwork.dataset.formats import refer
from groundwork.dataset.record import Phrase, Record
from groundwork.geometry import decode_mask, mask_to_runs
from tests.helpers.dataset_files import write_json

NAME = "COCO_train2014_000000000500.jpg"
SENTENCES = [{"sent": "red hat", "raw": "Red hat!", "sent_id": 1}, {"sent": "hat", "sent_id": 2}]
REF = {"ref_id": 5, "ann_id": 50, "image_id": 500, "category_id": 1, "split": "testA"}
REF |= {"sentences": SENTENCES, "file_name": "COCO_train2014_000000000500_3.jpg"}
# [{"ref_id": 5, "ann_id": 50, "image_id": <numpy int64 500>, "split": "train",
#   "sentences": [{"sent": "caf\xe9"}]}] as Python 2 writes it with protocol 0 and with protocol 2.
PROTOCOL_0 = (
    b"(lp0\n(dp1\nS'ref_id'\np2\nI5\nsS'ann_id'\np3\nL50L\nsS'image_id'\np4\n"
    b"cnumpy.core.multiarray\nscalar\np5\n(cnumpy\ndtype\np6\n(S'i8'\np7\nI0\nI1\ntp8\nRp9\n"
    b"(I3\nS'<'\np10\nNNNI-1\nI-1\nI0\ntp11\nb"
    b"S'\\xf4\\x01\\x00\\x00\\x00\\x00\\x00\\x00'\np12\ntp13\nRp14\n"
    b"sS'split'\np15\nS'train'\np16\nsS'sentences'\np17\n(lp18\n(dp19\n"
    b"S'sent'\np20\nS'caf\\xe9'\np21\nsasa."
)
PROTOCOL_2 = (
    b"\x80\x02]q\x00}q\x01(U\x06ref_idK\x05U\x06ann_idK2U\x08image_id"
    b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nU\x02i8K\x00K\x01\x87R"
    b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    b"U\x08\xf4\x01\x00\x00\x00\x00\x00\x00\x86RU\x05splitU\x05train"
    b"U\x09sentences]}U\x04sentU\x04caf\xe9sau"
    b"U\x03setc__builtin__\nset\n]K\x01a\x85Rsa."
)


def write(folder, refs, segmentation=None, name=NAME, split_by="unc"):
    annotation = {"id": 50, "image_id": 500, "bbox": [10, 20, 30, 15], "category_id": 1}
    content = {
        "images": [{"id": 500, "file_name": name, "width": 80, "height": 60}],
        "annotations": [annotation | ({"segmentation": segmentation} if segmentation else {})],
        "categories": [{"id": 1, "name": "person"}],
    }
    instances = write_json(folder / "instances.json", content)
    path = folder / f"refs({split_by}).p"
    path.write_bytes(refs if isinstance(refs, bytes) else pickle.dumps(refs, protocol=2))
    return path, instances


def test_a_reference_is_a_record_with_all_its_sentences(tmp_path):
    polygon = [[10, 20, 40, 20, 40, 35, 10, 35]]
    (record,) = refer.read(*write(tmp_path / "refcoco", [REF], polygon))
    assert (record.image, record.width, record.height) == (NAME, 80, 60)
    assert (record.split, record.record_id, record.image_ids) == ("testA", "500", ("coco:500",))
    phrase = Phrase("red hat", "5", ((10, 20, 40, 35),), masks=(json.dumps(polygon),))
    assert [p.text for p in record.phrases] == ["red hat", "hat"]
    assert record.phrases[0].boxes == phrase.boxes
    assert json.loads(record.phrases[0].masks[0]) == polygon
    assert {p.category for p in record.phrases} == {"person"}
    assert {p.phrase_id for p in record.phrases} == {"5"}


@pytest.mark.parametrize("content", [PROTOCOL_0, PROTOCOL_2], ids=["protocol 0", "protocol 2"])
def test_references_of_python2_with_numpy_numbers_are_read(tmp_path, content):
    (record,) = refer.read(*write(tmp_path / "refcoco", content))
    assert (record.record_id, record.split) == ("500", "train")
    assert record.phrases[0].text == "café"


@pytest.mark.parametrize("parts", [1, 2])
def test_refclefs_lists_of_run_lengths_become_one_mask(tmp_path, parts):
    masks = np.zeros((parts, 60, 80), dtype=bool)
    for index in range(parts):
        masks[index, 20:35, 10 + 15 * index : 25 + 15 * index] = True
    files = write(
        tmp_path / "refclef", [REF], [mask_to_runs(m) for m in masks], "500.jpg", "berkeley"
    )
    (record,) = refer.read(*files)
    assert np.array_equal(decode_mask(record.phrases[0].masks[0], (60, 80)), masks.any(axis=0))
    assert record.image_ids == ("saiapr:500",)


@pytest.mark.parametrize(
    ("split", "found"),
    [("train", ["train"]), ("test", ["testA", "testAB", "testC"]), ("testA", ["testA", "testAB"])],
)
def test_test_splits_that_overlap_are_chosen_by_their_letters(tmp_path, split, found):
    names = ["train", "testA", "testAB", "testC", "val"]
    refs = [REF | {"ref_id": i, "split": name} for i, name in enumerate(names)]
    records = refer.read(*write(tmp_path / "refclef", refs), splits=[split])
    assert [record.split for record in records] == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ann_id": 51}, "annotations: key 51 is missing"),
        ({"ann_id": None}, "ann_id must be an integer"),
        ({"image_id": 501}, "do not belong together"),
        ({"sentences": [{"raw": "x"}]}, "key 'sent' is missing"),
        ({"sentences": "x"}, "sentences must be"),
    ],
)
def test_a_reference_that_cannot_be_joined_is_named(tmp_path, change, message):
    files = write(tmp_path / "refcoco", [REF | change])
    with pytest.raises(ValueError, match=rf"refs\(unc\)\.p\[0\].*{message}"):
        list(refer.read(*files))


def test_a_segmentation_or_class_that_is_unknown_is_named(tmp_path):
    path, instances = write(tmp_path, [REF])
    content = json.loads(instances.read_text())
    content["annotations"][0]["category_id"] = 9
    write_json(instances, content)
    with pytest.raises(ValueError, match=r"annotation 50: category_id 9 is not in"):
        list(refer.read(path, instances))


def test_written_references_are_what_refers_own_tools_expect(tmp_path):
    phrases = (Phrase("a b", "", ((1, 2, 4, 6),), category="cat"),)
    record = Record("x.jpg", 8, 9, phrases, "val", source="list[4]")
    assert refer.write([record, record], tmp_path, "umd") == {"val": (2, 2)}
    content = (tmp_path / "refs(umd).p").read_bytes()
    assert content[:2] == b"\x80\x02"
    first, second = refer.load_refs(tmp_path / "refs(umd).p")
    assert (first["ref_id"], second["ref_id"], first["ann_id"], second["ann_id"]) == (1, 2, 1, 1)
    assert second["sentences"] == [
        {"sent": "a b", "raw": "a b", "tokens": ["a", "b"], "sent_id": 2}
    ]
    assert second["sent_ids"] == [2]


def test_records_that_are_no_references_are_named_and_nothing_is_written(tmp_path):
    two = Phrase("both", "1", ((1, 2, 4, 6), (2, 3, 4, 5)))
    for phrases, size, message in (
        ((two,), 8, "one object"),
        ((), 8, "needs a phrase"),
        ((Phrase("a", boxes=((1, 2, 3, 4),)),), None, "width and height"),
    ):
        record = Record("x.jpg", size, size, phrases, "val", source="list[4]")
        with pytest.raises(ValueError, match=rf"list\[4\]: .*{message}"):
            refer.write([record], tmp_path, "umd")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("folder", "split_by", "splits"),
    [("refcoco+", "unc", ["testA", "testB"]), ("refclef", "berkeley", ["test"])],
)
def test_the_embedded_data_sets_references_are_its_scenes(tiny_data, folder, split_by, splits):
    scenes = map(json.loads, (tiny_data / "scenes.jsonl").read_text().splitlines())
    truth = {str(scene["image_id"]): scene for scene in scenes}
    root = tiny_data / folder
    files = root / f"refs({split_by}).p", root / "instances.json"
    records = list(refer.read(*files, splits))
    tests = json.loads((root / "test.json").read_text())
    said = [(r.image, p.text, int(p.phrase_id)) for r in records for p in r.phrases]
    listed = [(t["image"], t["text"], t["ref_id"]) for t in tests if "test/" in t["image"]]
    assert said == listed
    for record in records:
        scene = truth[record.record_id]
        assert (record.height, record.width) == tuple(scene["size"])
        for phrase in record.phrases:
            (thing,) = (t for t in scene["objects"] if tuple(t["box"]) == phrase.boxes[0])
            assert phrase.category == thing["shape"]
            drawn = decode_mask(json.dumps(thing["mask"]), tuple(scene["size"]))
            read = decode_mask(phrase.masks[0], tuple(scene["size"]))
            assert (drawn & read).sum() > 0.8 * (drawn | read).sum()

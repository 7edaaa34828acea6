"""RefCOCO+ and RefCLEF: REFER's pickles, instances and the test lists."""

import json
import os
import pickle

import pytest

from groundwork.dataset.formats import detections, refer
from groundwork.dataset.formats.refer_agreement import Agreement
from tests.helpers.dataset_files import write_json

REF = {"ref_id": 5, "ann_id": 50, "image_id": 500, "split": "testA", "sent_ids": [1, 2]}
INSTANCES = {
    "images": [{"id": 500, "file_name": "500.jpg", "width": 80, "height": 60}],
    "annotations": [{"id": 50, "image_id": 500, "bbox": [10.5, 20, 30, 15], "category_id": 1}],
}
# What Python 2 wrote with protocol 0 and 2: byte strings, longs, unicode and __builtin__ names.
PYTHON2_TEXT = (
    b"(lp0\n(dp1\nS'ref_id'\np2\nI5\nsS'ann_id'\np3\nL50L\nsS'split'\np4\nVtest\\u00e9\np5\nsa."
)
PYTHON2_SET = (
    b"\x80\x02]q\x00}q\x01U\x03idsq\x02c__builtin__\nset\nq\x03]q\x04(K\x01K\x02e\x85q\x05Rq\x06sa."
)


class Malicious:
    def __reduce__(self):
        return os.system, ("echo owned",)


def write_refer(root, name, splits, refs):
    folder = root / name
    write_json(folder / "instances.json", INSTANCES)
    (folder / f"refs({splits}).p").write_bytes(pickle.dumps(refs))
    return root


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_python3_protocol_are_read(tmp_path, protocol):
    refs = [REF | {"box": [1.5, (2, 3)], "none": None, "set": {1}}]
    (tmp_path / "refs.p").write_bytes(pickle.dumps(refs, protocol=protocol))
    assert refer.load_refs(tmp_path / "refs.p") == refs


def test_pickles_of_python2_are_read(tmp_path):
    (tmp_path / "text.p").write_bytes(PYTHON2_TEXT)
    (tmp_path / "set.p").write_bytes(PYTHON2_SET)
    assert refer.load_refs(tmp_path / "text.p") == [{"ref_id": 5, "ann_id": 50, "split": "testé"}]
    assert refer.load_refs(tmp_path / "set.p") == [{"ids": {1, 2}}]


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path, capfd):
    (tmp_path / "refs.p").write_bytes(pickle.dumps([REF, Malicious()]))
    with pytest.raises(ValueError, match=r"refs\.p is not a pickle of plain data.*system"):
        refer.load_refs(tmp_path / "refs.p")
    assert "owned" not in capfd.readouterr().out


@pytest.mark.parametrize("name", ["eval", "exec", "getattr", "__import__"])
def test_no_builtin_function_can_be_reached_through_a_pickle(tmp_path, name):
    (tmp_path / "refs.p").write_bytes(f"cbuiltins\n{name}\n.".encode())
    with pytest.raises(ValueError, match=f"builtins.{name}"):
        refer.load_refs(tmp_path / "refs.p")


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps([REF])[:-9], pickle.dumps({})])
def test_a_damaged_pickle_is_named(tmp_path, content):
    (tmp_path / "refs.p").write_bytes(content)
    with pytest.raises(ValueError, match=r"refs\.p"):
        refer.load_refs(tmp_path / "refs.p")


def test_refcoco_plus_joins_the_list_with_box_size_split_and_image_id(tmp_path):
    root = write_refer(tmp_path, "refcoco+", "unc", [REF])
    entry = {"image": "train2014/500.jpg", "text": "red hat", "ref_id": 5}
    test_file = write_json(tmp_path / "test.json", [entry])
    (record,) = refer.read_refcoco_plus(test_file, root)
    assert record.image == "train2014/500.jpg"
    assert (record.width, record.height) == (80, 60)
    assert (record.split, record.record_id) == ("testA", "500")
    (phrase,) = record.phrases
    assert (phrase.text, phrase.phrase_id) == ("red hat", "5")
    assert phrase.boxes == ((10.5, 20.0, 40.5, 35.0),)
    assert record.source == f"{test_file}[0]"


@pytest.mark.parametrize(
    ("written", "reported"),
    [("val", "val"), ("test", "test"), ("testB", "test"), ("my_test", "test"), ("val2", "val2")],
)
def test_refclef_takes_its_split_from_the_list_and_reports_every_test_as_test(
    tmp_path, written, reported
):
    root = write_refer(tmp_path, "refclef", "unc", [REF])
    entry = {"image": "500.jpg", "text": "sky", "ref_id": 5, "split": written}
    (record,) = refer.read_refclef(write_json(tmp_path / "test.json", [entry]), root, "unc")
    assert record.split == reported


def test_an_entry_whose_reference_does_not_exist_is_named(tmp_path):
    root = write_refer(tmp_path, "refcoco+", "unc", [REF])
    test_file = write_json(tmp_path / "test.json", [{"image": "1.jpg", "text": "a", "ref_id": 6}])
    message = r"1 of 1 ref_ids are not in .*refs\(unc\)\.p \(.*test\.json\[0\]: 6\); data\.split_by"
    with pytest.raises(ValueError, match=message):
        list(refer.read_refcoco_plus(test_file, root))


@pytest.mark.parametrize(
    ("image", "text", "agrees"),
    [("a/500.jpg", "sky", True), ("7.jpg", "Red hat.", True), ("7.jpg", "sky", False)],
)
def test_a_reference_of_another_image_and_text_is_told(tmp_path, image, text, agrees):
    ref = REF | {"sentences": [{"sent_id": 1, "sent": "red hat"}]}
    root = write_refer(tmp_path, "refclef", "unc", [ref])
    entry = {"image": image, "text": text, "ref_id": 5, "split": "val"}
    agreement = Agreement()
    path = write_json(tmp_path / "test.json", [entry])
    (record,) = refer.read_refclef(path, root, "unc", agreement)
    assert (record.source in agreement.faults) is not agrees
    assert str(agreement).startswith(f"1 entries, 1 ref_ids found, {int(agrees)} of them")


def test_a_missing_refer_folder_is_named_with_the_layout(tmp_path):
    test_file = write_json(tmp_path / "test.json", [])
    with pytest.raises(FileNotFoundError, match=r"refcoco_data is the folder with"):
        list(refer.read_refcoco_plus(test_file, tmp_path / "none"))


def test_a_proposal_of_negative_size_keeps_its_place_and_has_no_area(tmp_path):
    path = tmp_path / "dets.json"
    path.write_text(json.dumps({"7": [[10, 10, -3, 5, 0.9], [1, 2, 3, 4]]}))
    assert detections.read(path)["7"].tolist() == [[10, 10, 10, 10], [1, 2, 4, 6]]

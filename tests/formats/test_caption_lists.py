"""Training lists of Visual Genome and COCO, detections, and the record table they go into."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundwork.dataset.formats import coco, detections, vg
from groundwork.dataset.record import Phrase, Record, RecordTable
from groundwork.dataset.sources import read_splits
from tests.helpers.dataset_files import write_json

BOXES = ((1.0, 2.0, 30.0, 40.0), (5.0, 6.0, 7.0, 8.5))
RELATION = {"group": "man", "synonym": ["guy", "fellow"], "antonym": ["woman"], "union": []}


def vg_entry(**changes):
    return {"image": "VG_100K/1.jpg", "caption": "a man", "bbox": [list(BOXES[0])]} | changes


def test_a_vg_entry_keeps_every_caption_and_every_box(tmp_path):
    entry = vg_entry(caption=["a man", "the guy"], bbox=[list(box) for box in BOXES])
    path = write_json(tmp_path / "train.json", [entry])
    expected = Record(
        image="VG_100K/1.jpg",
        width=None,
        height=None,
        phrases=(Phrase("a man", boxes=BOXES), Phrase("the guy", boxes=BOXES)),
        split="train",
        source=f"{path}[0]",
    )
    assert list(vg.read(path)) == [expected]


def test_a_vg_relation_gives_every_caption_its_synonyms(tmp_path):
    path = write_json(tmp_path / "relation.json", [vg_entry(relation=RELATION)])
    (record,) = vg.read(path)
    assert record.phrases[0].group == "man"
    assert record.phrases[0].synonyms == ("guy", "fellow")


@pytest.mark.parametrize("relation", [None, {}, {"group": None, "synonym": None}])
def test_an_empty_relation_means_no_synonyms(tmp_path, relation):
    (record,) = vg.read(write_json(tmp_path / "r.json", [vg_entry(relation=relation)]))
    assert (record.phrases[0].group, record.phrases[0].synonyms) == ("", ())


@pytest.mark.parametrize("chunks", ["a man", ["a man", "a red hat"]])
def test_coco_entries_have_phrases_and_synonyms_but_no_boxes(tmp_path, chunks):
    entry = {"image": "train2014/1.jpg", "phrase_chunks": chunks, "relation": RELATION}
    (record,) = coco.read(write_json(tmp_path / "coco.json", [entry]))
    texts = [chunks] if isinstance(chunks, str) else chunks
    assert [phrase.text for phrase in record.phrases] == texts
    assert all(phrase.boxes == () for phrase in record.phrases)
    assert all(phrase.synonyms == ("guy", "fellow") for phrase in record.phrases)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"caption": None}, "caption"),
        ({"caption": []}, "caption is empty"),
        ({"caption": [3]}, "caption"),
        ({"bbox": [[1, 2, 3]]}, "four finite numbers"),
        ({"bbox": [[1, 2, 3, "4"]]}, "four finite numbers"),
        ({"bbox": [[1, 2, 3, float("nan")]]}, "four finite numbers"),
        ({"relation": ["man"]}, "relation"),
        ({"relation": {"group": "man", "synonym": [1]}}, "synonym"),
    ],
)
def test_a_malformed_entry_is_named_by_file_number_and_key(tmp_path, change, message):
    path = write_json(tmp_path / "train.json", [vg_entry(), vg_entry(**change)])
    with pytest.raises(ValueError, match=rf"train\.json\[1\].*{message}"):
        list(vg.read(path))


def test_a_missing_key_is_named_with_the_keys_that_are_there(tmp_path):
    path = write_json(tmp_path / "train.json", [{"image": "1.jpg", "phrase": "a man"}])
    with pytest.raises(ValueError, match=r"train\.json\[0\]: key 'caption'.*image, phrase"):
        list(vg.read(path))


def test_a_missing_or_damaged_annotation_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        list(vg.read(tmp_path / "none.json"))
    (tmp_path / "cut.json").write_text('[{"image": "1.j')
    with pytest.raises(ValueError, match=r"cut\.json is not valid JSON"):
        list(vg.read(tmp_path / "cut.json"))
    with pytest.raises(ValueError, match="expected a list"):
        list(vg.read(write_json(tmp_path / "object.json", {})))


def test_detections_become_xyxy_and_extra_columns_are_dropped(tmp_path):
    path = write_json(tmp_path / "dets.json", {"7": [[1, 2, 3, 4, 0.9, 5]], "8": []})
    boxes = detections.read(path)
    np.testing.assert_array_equal(boxes["7"], [[1, 2, 4, 6]])
    assert boxes["8"].shape == (0, 4)


def test_malformed_detections_are_named_by_image(tmp_path):
    with pytest.raises(ValueError, match=r"dets\.json\[7\]"):
        detections.read(write_json(tmp_path / "dets.json", {"7": [[1, 2, 3]]}))


names = st.text(st.characters(codec="utf-8"), max_size=5)
numbers = st.floats(allow_nan=False, allow_infinity=False)
phrases = st.builds(
    Phrase,
    text=names,
    phrase_id=names,
    boxes=st.lists(st.tuples(*[numbers] * 4), max_size=3).map(tuple),
    synonyms=st.lists(names, max_size=3).map(tuple),
    group=names,
)
sides = st.none() | st.integers(1, 10**6)
records = st.builds(
    Record,
    image=names,
    width=sides,
    height=sides,
    phrases=st.lists(phrases, max_size=3).map(tuple),
    split=names,
    record_id=names,
    source=names,
)


@settings(deadline=None, max_examples=50)
@given(st.lists(records, max_size=5))
def test_a_record_table_gives_back_exactly_what_went_in(wanted):
    table = RecordTable.from_records(wanted)
    assert list(table) == wanted
    assert [table[index] for index in range(len(table))] == wanted


def some_records(count: int = 3) -> list[Record]:
    return [Record(f"{i}.jpg", 8, 9, (Phrase(f"p{i}", boxes=BOXES),)) for i in range(count)]


def test_a_saved_table_opens_memory_mapped_and_travels_to_a_worker_as_its_path(tmp_path):
    path = tmp_path / "table.arrow"
    table = RecordTable.convert(some_records(), path)
    content = pickle.dumps(table)
    assert len(content) < 300
    assert list(pickle.loads(content)) == some_records()


def test_indices_outside_the_table_are_refused():
    table = RecordTable.from_records(some_records())
    with pytest.raises(IndexError, match="record 3 of 3"):
        table[3]


def test_a_damaged_table_is_named_with_the_remedy(tmp_path):
    path = tmp_path / "table.arrow"
    RecordTable.convert(some_records(), path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"table\.arrow.*delete it"):
        RecordTable.open(path)
    with pytest.raises(FileNotFoundError, match=r"none\.arrow"):
        RecordTable.open(tmp_path / "none.arrow")


def test_several_files_make_one_table_and_the_cache_is_used_until_a_file_changes(tmp_path):
    first = write_json(tmp_path / "a.json", [vg_entry()])
    second = write_json(tmp_path / "b.json", [vg_entry(image="2.jpg"), vg_entry(image="3.jpg")])
    cache = str(tmp_path / "cache")
    uncached = list(read_splits({"train": [first, second]}, "vg"))
    assert [record.image for record in uncached] == ["VG_100K/1.jpg", "2.jpg", "3.jpg"]
    assert list(read_splits({"train": [first, second]}, "vg", cache)) == uncached
    assert list(read_splits({"train": [first, second]}, "vg", cache)) == uncached
    # The notes, of nothing here, are written last: they say that the table is whole.
    table, notes = sorted(map(Path, os.listdir(cache)))
    assert (table.suffix, notes.name) == (".arrow", f"{table.stem}.notes.json")
    write_json(second, [vg_entry(image="other.jpg")])
    changed = read_splits({"train": [first, second]}, "vg", cache)
    assert [record.image for record in changed][1] == "other.jpg"


def test_an_unknown_format_lists_the_legal_ones(tmp_path):
    with pytest.raises(ValueError, match=r"legal are .*\bvg, coco\b"):
        read_splits({"train": [tmp_path / "a.json"]}, "voc")


def test_a_key_that_comes_twice_in_an_entry_is_an_error(tmp_path):
    path = tmp_path / "train.json"
    path.write_text('[{"image": "1.jpg", "caption": "x", "bbox": [[1, 1, 9, 9]], "bbox": []}]')
    with pytest.raises(ValueError, match=r"train\.json.*'bbox' comes twice in one object"):
        list(vg.read(path))

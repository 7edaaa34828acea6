"""Visual Genome's own files, and lists that are read piece by piece."""

from dataclasses import replace

import pytest

from groundwork.dataset.formats import entries, visual_genome
from tests.helpers.dataset_files import write_json

REGION = {
    "region_id": 5,
    "image_id": 1,
    "phrase": "a clock",
    "x": 4,
    "y": 7,
    "width": 10,
    "height": 5,
}
IMAGE = {
    "image_id": 1, "url": "https://example.org/VG_100K_2/1.jpg", "width": 80, "height": 60,
    "coco_id": 391895, "flickr_id": None,
}  # fmt: skip
THING = {
    "object_id": 8,
    "names": ["building"],
    "attributes": ["tall"],
    "x": 1,
    "y": 2,
    "w": 3,
    "h": 4,
}


@pytest.fixture
def folder(tmp_path):
    write_json(tmp_path / "image_data.json", [IMAGE])
    write_json(tmp_path / "region_descriptions.json", [{"id": 1, "regions": [REGION]}])
    write_json(tmp_path / "attributes.json", [{"image_id": 1, "attributes": [THING]}])
    return tmp_path


def test_regions_are_phrases_of_their_image(folder):
    (record,) = visual_genome.read(folder)
    assert (record.image, record.width, record.height) == ("VG_100K_2/1.jpg", 80, 60)
    assert record.image_ids == ("vg:1", "coco:391895")
    (phrase,) = record.phrases
    assert (phrase.text, phrase.phrase_id, phrase.boxes) == ("a clock", "5", ((4, 7, 14, 12),))


def test_attributes_stand_before_the_name_of_the_object(folder):
    (record,) = visual_genome.read_attributes(folder)
    (phrase,) = record.phrases
    assert (phrase.text, phrase.category) == ("tall building", "building")
    assert phrase.boxes == ((1, 2, 4, 6),)


def test_an_image_without_data_is_an_error(folder):
    write_json(folder / "image_data.json", [])
    with pytest.raises(ValueError, match=r"region_descriptions\.json\[0\].*image_data\.json"):
        list(visual_genome.read(folder))


def test_an_image_without_a_folder_is_an_error(folder):
    write_json(folder / "image_data.json", [IMAGE | {"url": "1.jpg"}])
    with pytest.raises(ValueError, match=r"image_data\.json image 1.*names no folder"):
        list(visual_genome.read(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": ()}, "one box and a number"),
        ({"phrase_id": "a"}, "one box and a number"),
        ({"category": "house"}, "must end in 'house'"),
    ],
)
def test_what_the_files_cannot_hold_is_not_written(folder, tmp_path, changes, message):
    (record,) = visual_genome.read_attributes(folder)
    phrase = replace(record.phrases[0], **changes)
    with pytest.raises(ValueError, match=message):
        visual_genome.write([], [replace(record, phrases=(phrase,))], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_a_list_is_the_same_in_pieces_of_any_size(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(entries._Text, "PIECE", piece)
    wanted = [{"text": 'a "ring" ]é,', "n": [1.5, -20, 1e3]}, {}, {"deep": {"null": None}}]
    path = write_json(tmp_path / "list.json", wanted)
    assert [entry for _, entry in entries.load_entries(path)] == wanted


@pytest.mark.parametrize("text", ["", "[{}", "[{} {}]", "[{},]", "[{}] x", '[{"a": 1', "[{}}"])
def test_a_damaged_list_is_named(tmp_path, text):
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(ValueError, match=r"list\.json is not valid JSON"):
        list(entries.load_entries(tmp_path / "list.json"))

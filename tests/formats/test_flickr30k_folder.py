"""Flickr30k Entities, as published and as info-ground writes it, and the tool between the two."""

import dataclasses
import json
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from groundwork.dataset.formats import entities, flickr30k, vg
from groundwork.tools import prepare_flickr30k
from tests.helpers.dataset_files import write_image, write_json

XML = """<annotation>
  <filename>{name}.jpg</filename>
  <size><width>100</width><height>50</height><depth>3</depth></size>
  <object><name>1</name><name>2</name>
    <bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object>
  <object><name>1</name>
    <bndbox><xmin>50</xmin><ymin>5</ymin><xmax>100</xmax><ymax>50</ymax></bndbox></object>
  <object><name>3</name><scene>1</scene><nobndbox>1</nobndbox></object>
</annotation>"""
SENTENCES = """[/EN#1/people Two dogs] chase [/EN#0/notvisual it] in [/EN#3/scene the park] .
[/EN#1/animals/people A pair , in red] with [/EN#2/clothing a hat] .
Nothing here .
[/EN#1/people Two dogs] .
[/EN#2/clothing ...] .
"""
FIRST, SECOND = (1.0, 2.0, 30.0, 40.0), (50.0, 5.0, 100.0, 50.0)


@pytest.fixture
def raw(tmp_path) -> Path:
    """Entities of three images, one per split."""
    folder = tmp_path / "raw"
    for kind in ("Annotations", "Sentences"):
        (folder / kind).mkdir(parents=True)
    for split, name in (("train", "11"), ("val", "12"), ("test", "13")):
        (folder / f"{split}.txt").write_text(f"{name}\n")
        (folder / "Annotations" / f"{name}.xml").write_text(XML.format(name=name))
        (folder / "Sentences" / f"{name}.txt").write_text(SENTENCES)
    return folder


def prepare(raw: Path, out: Path, *more: str) -> Path:
    prepare_flickr30k.main(["--raw", str(raw), "--out", str(out), *more])
    return out


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files but the tool's own note of what it wrote."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def without_source(records):
    return [dataclasses.replace(record, source="") for record in records]


def test_an_object_with_several_names_gives_its_box_to_each(raw):
    annotation, _ = entities.read_image(raw, "11")
    assert (annotation.width, annotation.height) == (100, 50)
    assert annotation.boxes == {"1": (FIRST, SECOND), "2": (FIRST,)}


def test_marked_phrases_keep_their_words_chains_and_types(raw):
    _, sentences = entities.read_image(raw, "11")
    assert [len(chunks) for chunks in sentences] == [3, 2, 0, 1, 1]
    assert sentences[1][0] == entities.Chunk("A pair , in red", "1", ("animals", "people"))


def test_each_sentence_with_a_boxed_phrase_is_a_record(raw):
    records = list(entities.read(raw, ["11"], "train"))
    assert [record.record_id for record in records] == ["11#0", "11#1", "11#3", "11#4"]
    assert [phrase.text for phrase in records[0].phrases] == ["Two dogs"]
    assert records[0].phrases[0].boxes == (FIRST, SECOND)
    assert records[0].image == "11.jpg"


def test_an_annotation_with_a_doctype_is_refused_before_anything_is_expanded():
    bomb = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]>' + XML.format(name="&y;")
    with pytest.raises(ValueError, match=r"bad\.xml.*DOCTYPE"):
        entities.parse_annotation(bomb.encode(), "bad.xml")


@pytest.mark.parametrize(
    "content", ["<annotation>", "<annotation/>", XML.replace("<xmin>1</xmin>", "<xmin>one</xmin>")]
)
def test_a_damaged_annotation_is_named(content):
    with pytest.raises(ValueError, match=r"bad\.xml"):
        entities.parse_annotation(content.encode(), "bad.xml")


def test_a_damaged_phrase_mark_is_named_by_line():
    with pytest.raises(ValueError, match=r"1\.txt, line 2"):
        entities.parse_sentences("fine\n[/EN#5/people A man walks", "1.txt")


def test_the_tool_writes_files_that_read_back_as_the_published_ones_do(raw, tmp_path):
    out = prepare(raw, tmp_path / "out")
    for split, name in (("train", "11"), ("val", "12"), ("test", "13")):
        wanted = without_source(entities.read(raw, [name], split))
        assert without_source(flickr30k.read(out, split)) == wanted


def test_the_tool_writes_one_training_entry_per_chain_with_boxes(raw, tmp_path, capsys):
    records = list(vg.read(prepare(raw, tmp_path / "out") / "vg_train.json"))
    assert [record.image for record in records] == ["11.jpg", "11.jpg"]
    captions = [[phrase.text for phrase in record.phrases] for record in records]
    assert captions == [["Two dogs", "A pair , in red"], ["a hat"]]
    assert records[0].phrases[0].boxes == (FIRST, SECOND)
    printed = capsys.readouterr().out
    assert "1 phrases that repeat another of their chain, 1 phrases without a word" in printed


def test_running_the_tool_again_changes_nothing(raw, tmp_path):
    out = prepare(raw, tmp_path / "out")
    before = contents(out)
    prepare(raw, out, "--again")
    assert contents(out) == before
    assert len(before) == 18


def test_the_tool_reads_the_archive_as_downloaded(raw, tmp_path):
    packed = tmp_path / "packed"
    packed.mkdir()
    with tarfile.open(packed / "annotations.tar.xz", "w:xz") as archive:
        for kind in ("Annotations", "Sentences"):
            archive.add(raw / kind, kind)
    for split in ("train", "val", "test"):
        (packed / f"{split}.txt").write_text((raw / f"{split}.txt").read_text())
    one, other = prepare(raw, tmp_path / "one"), prepare(packed, tmp_path / "other")
    assert contents(one) == contents(other)


def test_the_summary_counts_phrases_beside_the_published_numbers(raw, tmp_path, capsys):
    prepare(raw, tmp_path / "out")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["images", "1", "1", "1", "3", "31,783"] in rows
    assert ["phrases", "7", "7", "7", "21", "559,767"] in rows
    assert ["phrases", "with", "boxes", "5", "5", "5", "15", "456,140"] in rows


def test_the_tool_can_keep_only_images_that_are_there(raw, tmp_path):
    write_image(tmp_path / "images" / "13.jpg", (50, 100))
    out = prepare(raw, tmp_path / "out", "--images", str(tmp_path / "images"))
    assert (out / "train.txt").read_text() == ""
    assert [record.image for record in flickr30k.read(out, "test")] == ["13.jpg"] * 4


def test_boxes_of_resized_images_are_scaled_only_on_request(raw, tmp_path):
    write_image(tmp_path / "images" / "11.jpg", (25, 25))
    images = ["--images", str(tmp_path / "images")]
    with pytest.raises(ValueError, match=r"11\.jpg has 25x25 pixels.*--scale-to-images"):
        prepare(raw, tmp_path / "out", *images)
    out = prepare(raw, tmp_path / "out", *images, "--scale-to-images")
    record = next(flickr30k.read(out, "train"))
    assert (record.width, record.height) == (25, 25)
    assert record.phrases[0].boxes == ((0.25, 1.0, 7.5, 20.0), (12.5, 2.5, 25.0, 25.0))


def test_the_tool_names_what_is_missing(raw, tmp_path):
    with pytest.raises(FileNotFoundError, match="--images"):
        prepare(raw, tmp_path / "out", "--images", str(tmp_path / "none"))
    (raw / "Sentences" / "12.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"12\.txt"):
        prepare(raw, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"train\.txt"):
        prepare(tmp_path / "nowhere", tmp_path / "out")


def test_info_ground_files_need_neither_sizes_nor_string_ids(tmp_path):
    (tmp_path / "val.txt").write_text("11\n")
    write_json(tmp_path / "bounding_boxes_val.json", {"11": {"boxes": {"7": [[1, 2, 3, 4]]}}})
    phrases = [{"phrase": "a dog", "phrase_id": 7}, {"phrase": "it", "phrase_id": 0}]
    write_json(tmp_path / "sentences_val.json", {"11": [{"phrases": phrases}]})
    (record,) = flickr30k.read(tmp_path, "val")
    assert (record.width, record.height, record.split) == (None, None, "val")
    assert [phrase.phrase_id for phrase in record.phrases] == ["7"]


def test_the_ids_may_lie_in_a_folder_of_their_own_and_empty_lists_of_boxes_be_kept(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "val.txt").write_text("11\n")
    write_json(
        tmp_path / "bounding_boxes_val.json", {"11": {"boxes": {"7": [[1, 2, 3, 4]], "8": []}}}
    )
    phrases = [{"phrase": name, "phrase_id": name} for name in ("7", "8", "0")]
    write_json(tmp_path / "sentences_val.json", {"11": [{"phrases": phrases}]})
    (boxed,) = flickr30k.read(tmp_path, "val", tmp_path / "lists")
    (every,) = flickr30k.read(tmp_path, "val", tmp_path / "lists", empty=True)
    assert [phrase.phrase_id for phrase in boxed.phrases] == ["7"]
    assert [phrase.boxes for phrase in every.phrases] == [((1.0, 2.0, 3.0, 4.0),), ()]


def test_an_image_without_annotation_is_named(tmp_path):
    (tmp_path / "val.txt").write_text("11\n")
    write_json(tmp_path / "bounding_boxes_val.json", {})
    write_json(tmp_path / "sentences_val.json", {})
    with pytest.raises(ValueError, match=r"bounding_boxes_val\.json: key '11' is missing"):
        list(flickr30k.read(tmp_path, "val"))


# Real images are not part of the project: these claims exist where the folder is named.
REALDATA = os.environ.get("GROUNDWORK_REALDATA")
if REALDATA:

    @pytest.mark.parametrize("name", ["flickr30k_mini_fullsize", "flickr30k_valtest_224"])
    def test_real_annotations_agree_with_the_independent_list_of_pairs(name):
        folder = Path(REALDATA, name)
        wanted = []
        for line in (folder / "pairs.jsonl").read_text().splitlines():
            pair = json.loads(line)
            keys = ("image", "split", "width", "height", "sent", "chain", "phrase", "boxes")
            wanted.append(tuple(pair[key] for key in keys))
        yielded = [
            (
                f"images/{record.image}",
                split,
                record.width,
                record.height,
                int(record.record_id.split("#")[1]),
                phrase.phrase_id,
                phrase.text,
                [list(box) for box in phrase.boxes],
            )
            for split in ("train", "val", "test")
            for record in entities.read(folder, flickr30k.read_ids(folder / f"{split}.txt"), split)
            for phrase in record.phrases
        ]
        assert sorted(yielded) == sorted(wanted)

    def test_the_whole_data_set_has_the_published_counts(tmp_path, capsys):
        prepare(Path(REALDATA, "flickr30k_entities_full"), tmp_path)
        printed = capsys.readouterr().out
        for row in ("31,783", "158,915", "559,767", "456,140"):
            assert any(line.split()[-2:] == [row, row] for line in printed.splitlines()), row
        assert "DIFFERS" not in printed

    def test_real_images_at_full_size_have_the_annotated_size():
        folder = Path(REALDATA, "flickr30k_mini_fullsize")
        for record in entities.read(folder, flickr30k.read_ids(folder / "train.txt"), "train"):
            with Image.open(folder / "images" / record.image) as picture:
                assert picture.size == (record.width, record.height)

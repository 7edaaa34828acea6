"""Annotation files as other people leave them, on the published forms: what is read, what is
refused, and that the check before a run says the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import grounding_eval_singlegpu
from groundwork.dataset import detection
from groundwork.dataset.formats import (
    detections,
    entities,
    finetune_grefcoco,
    flickr30k,
    grefcoco,
    instances_json,
    labels,
    refer,
    simrec,
    tuples,
    visual_genome,
)
from groundwork.dataset.leakage import identity_of_name
from groundwork.dataset.record import Phrase, Record
from groundwork.dataset.referring.text import FoldedSentence, ReferringText
from groundwork.dataset.text import clean_caption, load_tokenizer
from groundwork.dataset.words import is_blank, split_words
from groundwork.settings import load_config
from groundwork.tools import prepare_grefcoco
from tests.helpers.dataset_files import write_json
from tests.helpers.foreign import UNREADABLE, check, edit, several
from tests.helpers.script_runs import CONFIGS, error_of, evaluate

# --- encodings ------------------------------------------------------------------------------------

ENCODED = [
    ("tiny/Pretrain_vg_amc", "vg/train.json"),
    ("tiny/Grounding_flickr", "flickr30k/sentences_val.json"),
    ("tiny/Grounding_flickr", "flickr30k/val.txt"),
    ("tiny/Grounding_refcoco", "refcoco+/instances.json"),
    ("alvg/grefcoco", "annotations/grefcoco/instances.json"),
]


@pytest.mark.parametrize(("config", "name"), ENCODED)
def test_a_byte_order_mark_is_read_and_other_encodings_are_named(config, name, data):
    path = data / name
    text = path.read_text()
    path.write_text(text, encoding="utf-8-sig")
    assert not check(config, data)[0]
    path.write_text(text, encoding="utf-16")
    errors, _, examples = check(config, data)
    assert errors == UNREADABLE
    assert f"{path} is UTF-16, or no text at all; save it as UTF-8" in examples
    path.write_bytes(b"\n\xe9" + text.encode())
    errors, _, examples = check(config, data)
    assert errors == UNREADABLE
    assert f"{path} is not UTF-8: byte 0xe9 in line 2 (byte 1 of the file)" in examples
    assert "save it as UTF-8" in examples


def test_sentences_of_flickr30k_in_latin_1_are_named(data):
    path = data / "flickr30k_entities" / "Sentences" / "2000001.txt"
    path.write_bytes("Ein gr\xfcner Kreis\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"2000001\.txt is not UTF-8: byte 0xfc.*save it as UTF-8"):
        entities.read_image(data / "flickr30k_entities", "2000001")


def test_a_configuration_with_a_byte_order_mark_is_read_and_cp1252_is_named(tmp_path):
    path = tmp_path / "own.yaml"
    text = f"# gr\xfcn\nbase: {CONFIGS / 'tiny/Pretrain_vg.yaml'}\n"
    path.write_text(text, encoding="utf-8-sig")
    assert load_config(path) == load_config(CONFIGS / "tiny/Pretrain_vg.yaml")
    path.write_text(text, encoding="cp1252")
    with pytest.raises(ValueError, match=r"own\.yaml is not UTF-8: byte 0xfc in line 1"):
        load_config(path)


def test_text_of_two_bytes_a_letter_without_a_mark_is_named(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text('{"image": "1.jpg"}\n', encoding="utf-16-le")
    with pytest.raises(ValueError, match="UTF-16"):
        list(labels.load(path))


# --- identity -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["annotations", "images", "categories"])
def test_two_of_one_id_are_an_error_that_names_it(kind, data, trained):
    path = data / "refcoco+" / "instances.json"

    def spoil(content):
        row = content[kind][1]
        row["id"] = spoil.id = content[kind][0]["id"]

    edit(path, spoil)
    expected = f"{path} {kind}[1]: id {spoil.id} is that of another entry, too"
    errors, _, examples = check("tiny/Grounding_refcoco", data)
    assert errors == UNREADABLE and expected in examples
    overrides = [f"roots.embedded={data}"]
    run = (grounding_eval_singlegpu, "tiny/Grounding_refcoco", trained, data / "out")
    assert expected in error_of(lambda: evaluate(*run, overrides=overrides))
    with pytest.raises(ValueError, match=rf"{kind}\[1\]: id {spoil.id} is that of another"):
        detection.read_instances([path])


def test_a_reference_an_image_and_a_key_of_one_id_are_named(tmp_path, data):
    refs = refer.load_refs(data / "refcoco+" / "refs(unc).p")
    refs[1]["ref_id"] = refs[0]["ref_id"]
    refer.save_refs(data / "refcoco+" / "refs(unc).p", refs)
    with pytest.raises(ValueError, match=rf"\[1\]: ref_id {refs[0]['ref_id']} is that of another"):
        list(refer.read_refcoco_plus(data / "refcoco+" / "test.json", data))
    pair = {"id": 3, "original_id": 9, "caption": "a cup", "height": 8, "width": 9}
    path = write_json(
        tmp_path / "finetune_grefcoco_val.json", {"images": [pair, pair], "annotations": []}
    )
    with pytest.raises(ValueError, match=r"images\[1\]: id 3 is that of another"):
        list(finetune_grefcoco.read(path))
    (tmp_path / "dets.json").write_text('{"7": [], "7": [[1, 2, 3, 4]]}')
    with pytest.raises(ValueError, match=r"dets\.json.*the key '7' comes twice"):
        detections.read(tmp_path / "dets.json")


def test_the_same_reference_or_image_twice_is_named_by_the_readers(tmp_path, data):
    folder = data / "refcoco+"
    refs = refer.load_refs(folder / "refs(unc).p")
    refs[1]["ref_id"] = refs[0]["ref_id"]
    refer.save_refs(folder / "refs(unc).p", refs)
    expected = rf"\[1\]: ref_id {refs[0]['ref_id']} is that of another"
    with pytest.raises(ValueError, match=rf"refs\(unc\)\.p{expected}"):
        list(refer.read(folder / "refs(unc).p", folder / "instances.json"))
    path = write_json(tmp_path / "grefs(unc).json", refs)
    with pytest.raises(ValueError, match=rf"grefs\(unc\)\.json{expected}"):
        list(grefcoco.read(path, folder / "instances.json"))
    ids = data / "flickr30k" / "val.txt"
    first = ids.read_text().split()[0]
    ids.write_text(f"{ids.read_text()}{first}.jpg\n")
    errors, _, examples = check("tiny/Grounding_flickr", data)
    assert errors == UNREADABLE and f"split file {ids} has the id {first} twice" in examples


# --- numbers --------------------------------------------------------------------------------------


def test_texts_of_digits_are_numbers(data):
    folder = data / "refcoco+"
    before = list(refer.read(folder / "refs(unc).p", folder / "instances.json"))

    def spoil(content):
        for row in content["annotations"]:
            row |= {key: str(row[key]) for key in ("category_id", "image_id", "id")}
        for row in content["images"]:
            row |= {key: str(row[key]) for key in ("width", "height")}

    edit(folder / "instances.json", spoil)
    assert list(refer.read(folder / "refs(unc).p", folder / "instances.json")) == before
    assert not check("tiny/Grounding_refcoco", data)[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_id", "COCO_1.jpg"),
        ("image_id", "COCO_train2014_000000000009.jpg"),
        ("image_id", None),
        ("image_id", True),
        ("width", "640px"),
        ("height", -4),
    ],
)
def test_what_is_no_number_is_named_with_record_and_key(key, value, data):
    path = data / "annotations" / "grefcoco" / "instances.json"
    edit(path, lambda splits: splits["val"][2].update({key: value}))
    with pytest.raises(ValueError, match=rf"\[val\]\[2\]: {key} must be"):
        list(instances_json.read(path))
    errors, _, examples = check("alvg/grefcoco", data)
    assert errors == UNREADABLE and f"{path}[val][2]: {key} must be" in examples


def test_numbers_of_other_lists_are_read_or_named_alike(tmp_path, data):
    anns = {"val": [{"iid": "COCO_1.jpg", "bbox": [1, 2, 3, 4], "refs": ["a cup"]}]}
    with pytest.raises(
        ValueError, match=r"\[val\]\[0\]: iid must be an integer, got 'COCO_1\.jpg'"
    ):
        list(simrec.read(write_json(tmp_path / "refcoco.json", anns)))
    write_json(tmp_path / "image_data.json", [{"image_id": "1", "url": r"x\VG_100K\1.jpg"}])
    region = {"region_id": 5, "phrase": "a cup", "x": 1, "y": 2, "width": 3, "height": 4}
    regions = [{"id": "1", "regions": [region]}]
    write_json(tmp_path / "region_descriptions.json", regions)
    (record,) = visual_genome.read(tmp_path)
    assert (record.image, record.record_id) == ("VG_100K/1.jpg", "1")
    boxes = data / "flickr30k" / "bounding_boxes_val.json"
    edit(boxes, lambda images: next(iter(images.values())).update(width="wide"))
    with pytest.raises(ValueError, match=r"bounding_boxes_val\.json\[\d+\]: width must be"):
        list(flickr30k.read(data / "flickr30k", "val"))


# --- expressions ----------------------------------------------------------------------------------


def test_references_without_a_sentence_are_left_out_counted_and_said(tmp_path, capsys, caplog):
    image = {"id": 9, "file_name": "COCO_train2014_000000000009.jpg", "width": 80, "height": 60}
    annotation = {"id": 1, "image_id": 9, "category_id": 1, "bbox": [1, 2, 30, 40]}
    write_json(
        tmp_path / "instances.json",
        {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "cup"}]},
    )
    sentence = {"sent_id": 0, "sent": "the cup", "raw": "The cup.", "tokens": ["the", "cup"]}
    ref = {"ref_id": 1, "ann_id": [1], "category_id": [1], "image_id": 9, "no_target": False,
           "file_name": image["file_name"], "split": "train", "sentences": [sentence]}  # fmt: skip
    refs = [ref | {"ref_id": n, "sentences": []} for n in (2, 3)] + [ref]
    path = write_json(tmp_path / "grefs(unc).json", refs)
    (record,) = grefcoco.read(path, tmp_path / "instances.json")
    assert [phrase.text for phrase in record.phrases] == ["the cup"]
    said = f"2 times: {path}: references without a sentence are left out: {path}[0], {path}[1]"
    assert said in caplog.text
    prepare_grefcoco.main(["--raw", str(tmp_path), "--out", str(tmp_path / "out")])
    assert said in capsys.readouterr().out


def test_entries_without_an_expression_are_left_out_and_the_check_counts_them(data, tmp_path):
    edit(
        data / "annotations" / "grefcoco" / "instances.json",
        lambda splits: [entry.update(expressions=[]) for entry in splits["val"][:3]],
    )
    edit(data / "anns" / "refcoco+.json", lambda splits: splits["val"][1].update(refs=[]))
    for name, count in (("alvg/grefcoco", 3), ("refclip/refcoco+", 1)):
        errors, warnings, examples = check(name, data)
        assert not errors and warnings["not read as it stands"] == count
        assert "are left out" in examples
    for _ in range(2):  # the second time from the cache
        cache = f"data.cache_dir={tmp_path / 'cache'}"
        _, warnings, _ = check("tiny/refclip/refcoco+", data, cache)
        assert warnings["not read as it stands"] == 1


@pytest.mark.parametrize(
    "text", ["\u200b", "\u200b\ufeff", "\x00\x07", "\u2060 \u00ad", "\u3164", "\ufe0f"]
)
def test_a_word_of_no_characters_is_an_empty_phrase_everywhere(text, data):
    assert is_blank(text) and not clean_caption(text, 50) and not split_words(text)
    edit(data / "vg" / "train.json", lambda rows: rows[0].update(caption=[text]))
    _, warnings, _ = check("tiny/Pretrain_vg_amc", data)
    assert warnings["phrase without a word"] == 1
    edit(data / "anns" / "refcoco+.json", lambda splits: splits["val"][1].update(refs=[text]))
    _, warnings, _ = check("tiny/refclip/refcoco+", data)
    assert warnings["phrase without a word"] == 1
    path = data / "annotations" / "grefcoco" / "instances.json"
    edit(path, lambda splits: splits["val"][0].update(expressions=[text]))
    errors, _, examples = check("alvg/grefcoco", data)
    assert errors == {"stops the run": 1} and "the expression is empty" in examples


@pytest.mark.parametrize("text", ["a\u200bcup", "\xe9", "\U0001f600", "7", "\u676f"])
def test_what_can_be_seen_is_not_empty(text):
    assert not is_blank(text) and clean_caption(text, 50) and split_words(text)


GERMAN = "Ein gro\xdfer Mann in wei\xdfer Hose auf der Stra\xdfe h\xe4lt einen roten Ball fest"
SPANS = [
    (GERMAN, "einen roten Ball", GERMAN.index("einen")),
    (GERMAN, "EINEN ROTEN BALL", GERMAN.index("einen")),
    (GERMAN, "auf der Strasse", GERMAN.index("auf")),
    ("\u0130stanbul and \u0130zmir, a red tram", "a red tram", 20),
    ("the o\ufb03ce, \ufb01ve red doors", "\ufb01ve red doors", 10),
    ("the o\ufb03ce, \ufb01ve red doors", "five red doors", 10),
]


@pytest.mark.parametrize(("sentence", "text", "start"), SPANS)
def test_spans_are_found_in_the_original_text(sentence, text, start):
    stop = start + len(sentence[start:].split(" h\xe4lt")[0].split(" fest")[0])
    for stated in (start, -1, 0):
        assert FoldedSentence(sentence, "list").span_of(Phrase(text, start=stated)) == (start, stop)


@pytest.mark.parametrize("start", [3, -1, 0])
def test_blanks_around_a_phrase_are_not_of_its_span(start):
    assert FoldedSentence("the  red hat ", "list").span_of(Phrase("  red ", start=start)) == (5, 8)
    assert FoldedSentence("red hat", "list").span_of(Phrase(" hat ", start=3)) == (4, 7)


@pytest.mark.parametrize("multi_phrase", [True, False])
@pytest.mark.parametrize("text", ["\ufffd", "red \ufffd"])
def test_what_a_tokeniser_drops_is_found_by_the_check(text, multi_phrase):
    """Not by the training that comes to it: a phrase, or the end of one, without a token."""
    rules = ReferringText(load_tokenizer("bert-base-uncased"), multi_phrase)
    record = Record("1.jpg", 8, 8, (Phrase(text),), source="list[3]", sentence=f"a {text} hat")
    if text.startswith("red") and not multi_phrase:
        return rules.check(record)
    with pytest.raises(ValueError, match=r"list\[3\]: .*correct"):
        rules.check(record)


def test_a_span_does_not_begin_within_a_letter():
    with pytest.raises(ValueError, match="is not in its sentence"):
        FoldedSentence("Stra\xdfe", "list").span_of(Phrase("se"))


def test_a_list_of_sentences_with_such_letters_passes_the_check(data):
    path = data / "annotations" / "flickr" / "flickr_val.pth"
    (record, *_) = tuples.read(path)
    box = record.phrases[0].boxes
    text = "einen roten Ball"
    phrase = Phrase(text, "1", box, start=GERMAN.index(text))
    tuples.write([replace(record, phrases=(phrase,), sentence=GERMAN)], path, "multi")
    assert not check("tiny/reftr/flickr30k", data)[0]


# --- targets --------------------------------------------------------------------------------------


def test_an_empty_list_is_no_target(data):
    path = data / "annotations" / "grefcoco" / "instances.json"

    def spoil(splits):
        entry = several(splits)
        entry["annotations"][0], entry["bbox"][0], entry["segmentation"][0] = [], [], []

    edit(path, spoil)
    phrase = next(r for r in instances_json.read(path, ["train"]) if len(r.phrases) > 1).phrases[0]
    assert phrase.matches_nothing and not phrase.boxes and not phrase.masks
    assert not check("alvg/grefcoco", data)[0]
    assert not check("tiny/alvg/grefcoco", data)[0]


@pytest.mark.parametrize("form", [[None], None, [[]], "none", [{"category_id": None}]])
def test_other_forms_of_no_target_are_named(form, data):
    path = data / "annotations" / "grefcoco" / "instances.json"
    edit(path, lambda splits: several(splits)["annotations"].__setitem__(1, form))
    errors, _, examples = check("alvg/grefcoco", data)
    assert errors == UNREADABLE
    assert f"{path}[train][" in examples
    assert "an empty list where nothing is meant" in examples or "category_id must be" in examples


@pytest.mark.parametrize("form", [None, [], {}])
def test_no_list_of_targets_at_all_is_named(form, data):
    path = data / "annotations" / "grefcoco" / "instances.json"
    edit(path, lambda splits: several(splits).update(annotations=form))
    with pytest.raises(ValueError, match=r"\[train\]\[\d+\]: .* differ in length: annotations"):
        list(instances_json.read(path))


# --- other published forms ------------------------------------------------------------------------


def test_paths_of_windows_name_the_same_image(data):
    def spoil(rows):
        for row in rows:
            row["image"] = "D:\\somewhere\\images\\" + row["image"].replace("/", "\\")

    edit(data / "vg" / "train.json", spoil)
    assert not check("tiny/Pretrain_vg_amc", data)[0]
    assert identity_of_name("VG_100K\\12.jpg", "vg") == "vg:12"
    assert identity_of_name("train2014\\COCO_train2014_000000000009.jpg", None) == "coco:9"


def test_a_way_out_by_backslashes_is_refused(data):
    edit(data / "vg" / "train.json", lambda rows: rows[0].update(image="..\\secret.jpg"))
    errors, _, examples = check("tiny/Pretrain_vg_amc", data)
    assert errors == {"file outside image_root": 1} and "leads out of the folder" in examples


def test_proposals_in_mattnets_form_are_read_at_their_place(data, trained):
    place = load_config(
        CONFIGS / "tiny/Grounding_refcoco.yaml", [f"roots.embedded={data}"], purpose="evaluation"
    ).data.det_file
    before = detections.read(place)
    rows = [
        {"det_id": 0, "h5_id": 0, "image_id": int(image_id), "category_id": 1,
         "category_name": "cup", "score": 0.9, "box": [x1, y1, x2 - x1, y2 - y1]}
        for image_id, boxes in before.items() for x1, y1, x2, y2 in boxes.tolist()
    ]  # fmt: skip
    overrides = [f"roots.embedded={data}"]
    run = (grounding_eval_singlegpu, "tiny/Grounding_refcoco", trained / "checkpoint_01.pth")
    values = [row["value"] for row in evaluate(*run, data / "first", overrides=overrides)]
    write_json(Path(place), rows)
    for image_id, boxes in detections.read(place).items():
        np.testing.assert_allclose(boxes, before[image_id])
    assert not check("tiny/Grounding_refcoco", data)[0]
    again = [row["value"] for row in evaluate(*run, data / "second", overrides=overrides)]
    assert again == values
    write_json(Path(place), [{"image_id": 1}])
    errors, _, examples = check("tiny/Grounding_refcoco", data)
    assert errors == UNREADABLE and "[0]: key 'box' is missing" in examples


XML = """<annotation><size><width>80</width><height>60</height></size>
<object><name>1</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>
</object></annotation>"""


@pytest.mark.parametrize(
    ("stated", "read"),
    [
        ((5, 5, 5, 30), (5, 5, 6, 30)),
        ((5, 5, 5, 5), (5, 5, 6, 6)),
        ((80, 60, 80, 60), (79, 59, 80, 60)),
        ((5, 5, 9, 30), (5, 5, 9, 30)),
    ],
)
def test_one_pixel_of_flickr30k_entities_is_one_pixel(stated, read, caplog):
    annotation = entities.parse_annotation(XML.format(*stated).encode(), "Annotations/1.xml")
    assert annotation.boxes["1"] == (read,)
    assert ("Annotations/1.xml" in caplog.text) == (stated != read)


@pytest.mark.parametrize("stated", [(9, 5, 5, 30), (5, "x", 9, 30), (5, "nan", 9, 30)])
def test_corners_of_flickr30k_entities_that_are_none_are_named(stated):
    with pytest.raises(ValueError, match=r"Annotations/1\.xml: .*(exchanged|is no number)"):
        entities.parse_annotation(XML.format(*stated).encode(), "Annotations/1.xml")


def test_a_tokeniser_gives_the_tokens_of_the_span():
    tokenizer = load_tokenizer("bert-base-uncased")
    phrase = Phrase("einen roten Ball", start=GERMAN.index("einen"))
    record = Record("1.jpg", None, None, (phrase,), sentence=GERMAN, source="list")
    encoded = ReferringText(tokenizer, multi_phrase=True).encode(record, (phrase,))
    start, stop = encoded.spans[0]
    assert encoded.ids[start:stop] == encoded.phrases[0][1:-1]

"""gRefCOCO as GREC releases it, and its way into the converted form."""

import pytest

from groundwork.dataset.formats import finetune_grefcoco, instances_json
from groundwork.dataset.record import Phrase, Record
from groundwork.tools import prepare_grefcoco
from tests.helpers.dataset_files import write_json

IMAGES = [
    {"id": 0, "original_id": 500, "caption": "both dogs", "height": 60, "width": 80},
    {"id": 1, "original_id": 500, "caption": "a cat", "height": 60, "width": 80},
    {"id": 2, "original_id": 501, "caption": "no cat", "height": 50, "width": 40},
]
ANNOTATIONS = [
    {"id": 0, "image_id": 0, "bbox": [1, 2, 3, 4], "category_id": 18},
    {"id": 1, "image_id": 0, "bbox": [5, 6, 7, 8.5], "category_id": 18},
    {"id": 2, "image_id": 1, "bbox": [0, 0, 0, 0], "category_id": -1},
]


def read(folder, images=IMAGES, annotations=ANNOTATIONS, split="val"):
    content = {"images": images, "annotations": annotations, "categories": []}
    path = write_json(folder / f"finetune_grefcoco_{split}.json", content)
    return list(finetune_grefcoco.read(path))


def test_a_sentence_has_its_boxes_or_matches_nothing(tmp_path):
    both, marked, bare = read(tmp_path)
    assert (both.image, both.width, both.height) == ("COCO_train2014_000000000500.jpg", 80, 60)
    assert (both.split, both.record_id, both.image_ids) == ("val", "500", ("coco:500",))
    assert both.phrases == (Phrase("both dogs", boxes=((1, 2, 4, 6), (5, 6, 12, 14.5))),)
    assert marked.phrases == (Phrase("a cat", matches_nothing=True),)
    assert bare.phrases == (Phrase("no cat", matches_nothing=True),)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"image_id": 1, "bbox": [1, 2, 3, 4], "category_id": 1}, "matches nothing"),
        ({"image_id": 7, "bbox": [1, 2, 3, 4], "category_id": 1}, "image 7, which is not there"),
        ({"image_id": 0, "category_id": 1}, "key 'bbox' is missing"),
        ({"image_id": 0, "bbox": [1, 2, 3, 4]}, "key 'category_id' is missing"),
    ],
)
def test_a_contradiction_is_named(tmp_path, annotation, message):
    with pytest.raises(ValueError, match=rf"finetune_grefcoco_val\.json.*{message}"):
        read(tmp_path, annotations=[*ANNOTATIONS, {"id": 3, **annotation}])


def test_a_phrase_that_says_neither_is_not_written(tmp_path):
    record = Record("x.jpg", 8, 9, (Phrase("both"),), "val", "5")
    with pytest.raises(ValueError, match="'both' has boxes, or else matches nothing"):
        finetune_grefcoco.write([record], tmp_path / "finetune_grefcoco_val.json")
    assert not list(tmp_path.iterdir())


def test_the_preparation_converts_them(tmp_path, capsys):
    for split in prepare_grefcoco.SPLITS:
        read(tmp_path / "raw", split=split)
    out = tmp_path / "out"
    prepare_grefcoco.main(["--raw", str(tmp_path / "raw"), "--out", str(out)])
    records = list(instances_json.read(out / prepare_grefcoco.NAME))
    found = {(record.split, tuple(phrase.text for phrase in record.phrases)) for record in records}
    single = {(split, (row["caption"],)) for split in ("val", "testA", "testB") for row in IMAGES}
    assert found == single | {("train", ("both dogs", "a cat")), ("train", ("no cat",))}
    printed = capsys.readouterr().out
    assert ["of", "nothing", "8", "32,202"] in [line.split() for line in printed.splitlines()]
    assert "instances.json: 12 expressions" in printed


def test_a_missing_split_is_named_by_the_preparation(tmp_path):
    read(tmp_path, split="train")
    with pytest.raises(FileNotFoundError, match="finetune_grefcoco_testB"):
        prepare_grefcoco.main(["--raw", str(tmp_path), "--out", str(tmp_path / "out")])

"""prepare_flickr30k's and prepare_coco's files: the same phrases in every tree, evaluation images
out."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from groundwork.dataset.formats import coco, entities, flickr30k, instances_json
from groundwork.tools import prepare_coco, prepare_flickr30k
from groundwork.tools.evaluation_images import REFS
from tests.formats.test_flickr30k_folder import SENTENCES, XML
from tests.helpers.dataset_files import write_json

SPLITS = {"train": "11", "val": "12", "test": "13"}


@pytest.fixture
def raw(tmp_path) -> Path:
    folder = tmp_path / "raw"
    for kind in ("Annotations", "Sentences"):
        (folder / kind).mkdir(parents=True)
    for split, name in SPLITS.items():
        (folder / f"{split}.txt").write_text(f"{name}\n")
        (folder / "Annotations" / f"{name}.xml").write_text(XML.format(name=name))
        (folder / "Sentences" / f"{name}.txt").write_text(SENTENCES)
    return folder


def prepare(tool, raw: Path, out: Path, *more: str) -> Path:
    tool.main(["--raw", str(raw), "--out", str(out), *more])
    return out


def test_phrases_stand_in_their_sentence_where_the_record_says(raw):
    first, second, *_ = entities.read(raw, ["11"], "train")
    assert first.sentence == "Two dogs chase it in the park ."
    assert second.sentence == "A pair , in red with a hat ."
    assert [phrase.start for phrase in second.phrases] == [0, 21]
    assert first.image_ids == ("flickr:11",)


def test_the_multi_phrase_list_has_offsets_one_box_per_phrase_and_the_sentence(raw, tmp_path):
    out = prepare(prepare_flickr30k, raw, tmp_path / "out")
    rows = torch.load(out / "annotations/flickr/flickr_val.pth", weights_only=True)
    image, starts, boxes, phrases, _, sentence = rows[1]
    assert (image, starts, phrases) == ("12.jpg", [0, 21], ["A pair , in red", "a hat"])
    assert [sentence[s : s + len(p)] for s, p in zip(starts, phrases, strict=True)] == phrases
    assert boxes == [[1, 2, 100, 50], [1, 2, 30, 40]]


def test_every_list_of_flickr30k_holds_the_same_phrases(raw, tmp_path):
    tree = tmp_path / "tree"
    out = prepare(prepare_flickr30k, raw, tmp_path / "out", "--tree", str(tree))
    anns = json.loads((tree / "anns" / "flickr30k.json").read_text())
    for split in SPLITS:
        wanted = sorted(p.text for record in flickr30k.read(out, split) for p in record.phrases)
        several = torch.load(tree / f"annotations/flickr/flickr_{split}.pth", weights_only=True)
        single = torch.load(tree / f"annotations_resc/flickr/flickr_{split}.pth")
        assert sorted(text for row in several for text in row[3]) == wanted
        assert sorted(text for *_, text in single) == wanted
        assert sorted(text for row in anns[split] for text in row["refs"]) == wanted
    assert [len(row["refs"]) for row in anns["train"]] == [3, 2]
    first = anns["val"][0]
    assert (first["iid"], first["bbox"], first["refs"]) == (12, [1, 2, 99, 48], ["Two dogs"])
    alvg = instances_json.read(tree / "annotations/flickr30k/instances.json", data_source="flickr")
    assert sum(len(record.phrases) for record in alvg) == 15
    assert {
        one
        for record in instances_json.read(tree / "annotations/flickr30k/instances.json")
        for one in record.image_ids
    } == {"flickr:11", "flickr:12", "flickr:13"}


def test_a_second_run_reads_nothing_and_a_changed_input_is_read_again(raw, tmp_path, capsys):
    prepare(prepare_flickr30k, raw, tmp_path / "out")
    prepare(prepare_flickr30k, raw, tmp_path / "out")
    assert "nothing to do for Flickr30k Entities, every file is there" in capsys.readouterr().out
    (raw / "Sentences" / "13.txt").write_text("[/EN#2/clothing a cap] .\n")
    out = prepare(prepare_flickr30k, raw, tmp_path / "out")
    assert [r.sentence for r in flickr30k.read(out, "test")] == ["a cap ."]


def test_a_dry_run_of_flickr30k_writes_nothing(raw, tmp_path, capsys):
    prepare(prepare_flickr30k, raw, tmp_path / "out", "--dry-run")
    assert not (tmp_path / "out").exists()
    assert "456,140" in capsys.readouterr().out


def test_the_summary_is_loud_where_a_count_is_not_the_published_one(raw, tmp_path, capsys):
    prepare(prepare_flickr30k, raw, tmp_path / "out")
    assert "!!! DIFFERS: Flickr30k Entities has 3 images, published are 31,783" in (
        capsys.readouterr().out
    )


@pytest.fixture
def captions(tmp_path) -> Path:
    """COCO's captions of three images, of which RefCOCO evaluates one and trains on another."""
    images = [{"id": i, "file_name": f"COCO_train2014_{i:012d}.jpg"} for i in (7, 8, 9)]
    rows = [(7, "A dog."), (7, "Two dogs"), (8, "A cat "), (9, "A man"), (9, "...")]
    annotations = [{"id": n, "image_id": i, "caption": text} for n, (i, text) in enumerate(rows)]
    folder = tmp_path / "coco"
    content = {"images": images, "annotations": annotations}
    write_json(folder / "annotations" / "captions_train2014.json", content)
    for name in REFS:
        path = folder / "refer" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        refs = [{"image_id": 7, "split": "testA"}, {"image_id": 8, "split": "train"}]
        path.write_bytes(pickle.dumps(refs, protocol=2))
    return folder


def test_cocos_captions_become_a_training_list_without_evaluation_images(
    captions, tmp_path, capsys
):
    out = prepare(prepare_coco, captions, tmp_path / "out")
    records = list(coco.read(out / "captions.json"))
    assert [(record.image, record.phrases[0].text) for record in records] == [
        ("train2014/COCO_train2014_000000000008.jpg", "A cat"),
        ("train2014/COCO_train2014_000000000009.jpg", "A man"),
    ]
    printed = capsys.readouterr().out
    assert "left out: 2 records on 1 images, which are among the 1 val and test images" in printed
    assert "1 captions without a word" in printed
    assert "!!! DIFFERS: COCO train2014 has 5 captions, published are 414,113" in printed


def test_evaluation_images_are_kept_only_when_told(captions, tmp_path, capsys):
    out = prepare(prepare_coco, captions, tmp_path / "out", "--keep-evaluation-images")
    assert len(list(coco.read(out / "captions.json"))) == 4
    assert "were NOT left out" in capsys.readouterr().out


def test_without_refer_the_remedy_is_named(captions, tmp_path):
    arguments = ["--refer", str(tmp_path / "none")]
    with pytest.raises(FileNotFoundError, match="--refer, or --keep-evaluation-images"):
        prepare(prepare_coco, captions, tmp_path / "out", *arguments)


REALDATA = os.environ.get("GROUNDWORK_REALDATA")


@pytest.mark.skipif(not REALDATA, reason="GROUNDWORK_REALDATA names no folder of real data")
def test_real_sentences_hold_their_phrases_at_the_offsets_of_the_list(tmp_path):
    raw = Path(REALDATA or "", "flickr30k_mini_fullsize")
    out = prepare(prepare_flickr30k, raw, tmp_path)
    total = 0
    for split in SPLITS:
        for _, starts, boxes, phrases, _, sentence in torch.load(
            out / f"annotations/flickr/flickr_{split}.pth", weights_only=True
        ):
            assert len(starts) == len(boxes) == len(phrases)
            total += len(phrases)
            for start, phrase in zip(starts, phrases, strict=True):
                assert sentence[start : start + len(phrase)] == phrase
    assert total == 4502

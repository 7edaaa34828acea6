"""One command makes every list of Flickr30k Entities from its owners' files, and no list lacks
anything.

The real annotations are not part of the project: GROUNDWORK_REALDATA names the folder that holds
them.
"""

import json
import os
from pathlib import Path

import pytest

from groundwork.dataset.formats import entities, flickr30k, instances_json, simrec, tuples, vg
from groundwork.tools import prepare_flickr30k

REALDATA = os.environ.get("GROUNDWORK_REALDATA")
pytestmark = pytest.mark.skipif(
    not REALDATA, reason="GROUNDWORK_REALDATA names no folder of real data"
)
SPLITS = ("train", "val", "test")
# Folder -> images and phrases with boxes by split, as the folder's own description counts them.
COUNTS = {
    "flickr30k_mini_fullsize": ((309, 7, 7), 4502),
    "flickr30k_valtest_224": ((0, 247, 285), 3239 + 3868),
}


@pytest.fixture(scope="module", params=COUNTS)
def prepared(request, tmp_path_factory):
    """(name, the owners' files, what the one command made of them)"""
    raw, out = Path(REALDATA or "", request.param), tmp_path_factory.mktemp("out")
    prepare_flickr30k.main(["--raw", str(raw), "--out", str(out)])
    return request.param, raw, out


def sentences(records):
    """What is said where, in any order: (image, place of the phrase, phrase, boxes)."""
    return sorted(
        (record.image, record.sentence, phrase.start, phrase.text, phrase.boxes)
        for record in records
        for phrase in record.phrases
    )


def said(records):
    """(image, phrase, box around all boxes), in any order."""
    return sorted(
        (record.image, phrase.text, around(phrase.boxes))
        for record in records
        for phrase in record.phrases
    )


def around(boxes):
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return min(x1), min(y1), max(x2), max(y2)


def test_the_files_have_the_counts_of_the_independent_list(prepared):
    name, raw, out = prepared
    images, phrases = COUNTS[name]
    assert tuple(len(flickr30k.read_ids(out / f"{split}.txt")) for split in SPLITS) == images
    pairs = [json.loads(line) for line in (raw / "pairs.jsonl").read_text().splitlines()]
    assert len(pairs) == phrases
    for split in SPLITS:
        wanted = sorted(
            (f"{pair['image'].rpartition('/')[2]}", pair["phrase"], around(pair["boxes"]))
            for pair in pairs
            if pair["split"] == split
        )
        for read in (read_info_ground, read_multi, read_single, read_simrec, read_alvg):
            assert said(read(out, split)) == wanted, (split, read.__name__)


def read_info_ground(out, split):
    return flickr30k.read(out, split)


def read_multi(out, split):
    return tuples.read(out / f"annotations/flickr/flickr_{split}.pth")


def read_single(out, split):
    return tuples.read(out / f"annotations_resc/flickr/flickr_{split}.pth")


def read_simrec(out, split):
    return simrec.read(out / "anns/flickr30k.json", [split]) if split_in(out, split) else ()


def read_alvg(out, split):
    path = out / "annotations/flickr30k/instances.json"
    return instances_json.read(path, [split]) if split_in(out, split) else ()


def split_in(out, split):
    """A split without images has no key in these files."""
    return bool(flickr30k.read_ids(out / f"{split}.txt"))


def test_info_ground_has_the_sentences_of_the_owners_files(prepared):
    _, raw, out = prepared
    for split in SPLITS:
        ids = flickr30k.read_ids(raw / f"{split}.txt")
        owners = sentences(entities.read(raw, ids, split))
        assert sentences(flickr30k.read(out, split)) == owners
        multi = [(*row[:4], around(row[4])) for row in owners]
        assert [(*row[:4], around(row[4])) for row in sentences(read_multi(out, split))] == multi


def test_the_training_list_has_every_phrase_of_the_training_split_once_per_chain(prepared):
    _, raw, out = prepared
    wanted = {
        (record.image, phrase.text, around(phrase.boxes))
        for record in entities.read(raw, flickr30k.read_ids(raw / "train.txt"), "train")
        for phrase in record.phrases
    }
    assert set(said(vg.read(out / "vg_train.json"))) == wanted


def test_what_is_written_in_the_owners_layout_is_read_again(prepared, tmp_path):
    _, raw, _ = prepared
    ids = [image for split in SPLITS for image in flickr30k.read_ids(raw / f"{split}.txt")][:60]
    records = list(entities.read(raw, ids, "val"))
    entities.write(records, tmp_path)
    there = [image for image in ids if (tmp_path / "Sentences" / f"{image}.txt").exists()]
    assert sentences(entities.read(tmp_path, there, "val")) == sentences(records)

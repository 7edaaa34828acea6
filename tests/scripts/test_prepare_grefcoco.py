"""prepare_grefcoco: expressions of one, several and no objects, grouped as ALVG reads them."""

from pathlib import Path

import pytest

from groundwork.dataset.formats import grefcoco, instances_json
from groundwork.dataset.record import Phrase, Record
from groundwork.tools import prepare_grefcoco

BOXES = ((10.0, 5.0, 30.0, 25.0), (40.0, 5.0, 60.0, 25.0))
TRIANGLES = ("[[10,5,30,5,30,25]]", "[[40,5,60,5,60,25]]")


def record(number: int, image: int, split: str, count: int, *texts: str) -> Record:
    phrases = tuple(
        Phrase(
            text,
            str(number),
            BOXES[:count],
            masks=TRIANGLES[:count],
            category="dog" if count else "",
            matches_nothing=not count,
        )
        for text in texts
    )
    name = f"COCO_train2014_{image:012d}.jpg"
    return Record(name, 80, 60, phrases, split, str(image), image_ids=(f"coco:{image}",))


@pytest.fixture
def raw(tmp_path) -> Path:
    records = [
        record(1, 7, "train", 1, "left dog", "the dog on the left"),
        record(2, 7, "train", 2, "both dogs"),
        record(3, 8, "val", 0, "a cat", "no dog"),
        record(4, 8, "val", 2, "two dogs"),
    ]
    grefcoco.write(records, tmp_path / "raw")
    return tmp_path / "raw"


def prepare(raw: Path, out: Path, *more: str) -> Path:
    prepare_grefcoco.main(["--raw", str(raw), "--out", str(out), *more])
    return out / "annotations" / "grefcoco" / "instances.json"


def test_training_is_grouped_by_image_and_the_rest_by_expression(raw, tmp_path):
    read = list(instances_json.read(prepare(raw, tmp_path / "out")))
    found = {
        (r.split, r.record_id, tuple((p.text, p.boxes, p.matches_nothing) for p in r.phrases))
        for r in read
    }
    training = (
        ("left dog", BOXES[:1], False),
        ("the dog on the left", BOXES[:1], False),
        ("both dogs", BOXES, False),
    )
    assert found == {
        ("train", "7", training),
        ("val", "8", (("a cat", (), True),)),
        ("val", "8", (("no dog", (), True),)),
        ("val", "8", (("two dogs", BOXES, False),)),
    }


def test_kinds_of_expressions_are_counted_beside_the_papers(raw, tmp_path, capsys):
    prepare(raw, tmp_path / "out")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["of", "several", "objects", "2", "80,022"] in rows
    assert ["of", "nothing", "2", "32,202"] in rows
    assert ["train", "expressions", "3", "-"] in rows


def test_a_second_run_has_nothing_to_do_and_a_dry_run_writes_nothing(raw, tmp_path, capsys):
    assert not prepare(raw, tmp_path / "dry", "--dry-run").exists()
    prepare(raw, tmp_path / "out")
    capsys.readouterr()
    prepare(raw, tmp_path / "out")
    assert "nothing to do" in capsys.readouterr().out


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"lacks grefs\(unc\)\.json, instances\.json"):
        prepare(tmp_path, tmp_path / "out")

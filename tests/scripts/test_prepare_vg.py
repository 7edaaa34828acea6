"""prepare_vg on files as the Visual Genome project publishes them."""

import pickle
from pathlib import Path

import pytest

from groundwork.dataset.formats import tuples, vg
from groundwork.tools import prepare_vg
from groundwork.tools.evaluation_images import REFS
from tests.helpers.dataset_files import write_json


def region(image: int, phrase: str, *box: int) -> dict:
    keys = ("x", "y", "width", "height")
    return {
        "region_id": 1,
        "image_id": image,
        "phrase": phrase,
        **dict(zip(keys, box, strict=True)),
    }


@pytest.fixture
def raw(tmp_path) -> Path:
    """Two images; the second is COCO's 7, which RefCOCO evaluates on."""
    folder = tmp_path / "raw"
    images = [
        {"image_id": 1, "coco_id": None, "url": "https://x.edu/rak248/VG_100K_2/1.jpg"},
        {"image_id": 2, "coco_id": 7, "url": "https://x.edu/rak248/VG_100K/2.jpg"},
    ]
    write_json(folder / "image_data.json", [{**row, "width": 80, "height": 60} for row in images])
    regions = [
        {"id": 1, "regions": [region(1, "a dog ", 10, 5, 20, 30), region(1, "?", 1, 1, 9, 9),
                              region(1, "over the edge", 70, 50, 40, 40),
                              region(1, "outside", 90, 5, 10, 10)]},
        {"id": 2, "regions": [region(2, "a cat", 1, 2, 3, 4), region(2, "a man", 5, 5, 9, 9)]},
    ]  # fmt: skip
    write_json(folder / "region_descriptions.json", regions)
    things = [
        {
            "object_id": 5,
            "names": ["car"],
            "attributes": ["red", "small "],
            "x": 1,
            "y": 2,
            "w": 30,
            "h": 40,
        },
        {"object_id": 6, "names": ["tree"], "x": 1, "y": 2, "w": 30, "h": 40},
    ]
    write_json(folder / "attributes.json", [{"image_id": 1, "attributes": things}])
    for name in REFS:
        path = folder / "refer" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps([{"image_id": 7, "split": "val"}], protocol=2))
    return folder


def prepare(raw: Path, out: Path, *more: str) -> Path:
    prepare_vg.main(["--raw", str(raw), "--out", str(out), *more])
    return out


def read(path: Path) -> list[tuple]:
    return [(r.image, p.text, p.boxes) for r in vg.read(path) for p in r.phrases]


def test_regions_become_a_training_list_without_evaluation_images(raw, tmp_path, capsys):
    out = prepare(raw, tmp_path / "out")
    wanted = [
        ("VG_100K_2/1.jpg", "a dog", ((10, 5, 30, 35),)),
        ("VG_100K_2/1.jpg", "over the edge", ((70, 50, 80, 60),)),
    ]
    assert read(out / "train.json") == wanted
    printed = capsys.readouterr().out
    assert "train.json: 6 read, 2 kept" in printed
    assert "left out: 2 records on 1 images, which are among the 1 val and test images" in printed
    assert "1 without a pixel in the image, 1 without a word" in printed
    assert "!!! DIFFERS: Visual Genome has 2 images, published are 108,077" in printed


def test_reftr_gets_the_same_regions(raw, tmp_path):
    out = prepare(raw, tmp_path / "out", "--tree", str(tmp_path / "tree"))
    listed = tuples.read(tmp_path / "tree" / "annotations_resc" / "vg" / "vg_all.pth")
    assert [(r.image, p.text, p.boxes) for r in listed for p in r.phrases] == read(
        out / "train.json"
    )


def test_objects_are_named_by_their_attributes(raw, tmp_path):
    out = prepare(raw, tmp_path / "out")
    assert read(out / "objects.json") == [("VG_100K_2/1.jpg", "red small car", ((1, 2, 31, 42),))]


def test_evaluation_images_are_trained_on_only_when_told(raw, tmp_path, capsys):
    out = prepare(raw, tmp_path / "out", "--keep-evaluation-images")
    assert len(read(out / "train.json")) == 4
    assert "!!! evaluation images of RefCOCO/+/g were NOT left out" in capsys.readouterr().out


def test_a_second_run_has_nothing_to_do_and_a_dry_run_writes_nothing(raw, tmp_path, capsys):
    prepare(raw, tmp_path / "dry", "--dry-run")
    assert not (tmp_path / "dry").exists()
    prepare(raw, tmp_path / "out")
    capsys.readouterr()
    prepare(raw, tmp_path / "out")
    assert "nothing to do" in capsys.readouterr().out


def test_what_is_missing_or_wrong_is_named(raw, tmp_path):
    write_json(
        raw / "region_descriptions.json", [{"id": 9, "regions": [region(9, "a", 1, 1, 1, 1)]}]
    )
    with pytest.raises(ValueError, match=r"region_descriptions\.json\[0\].*image_data\.json.*9"):
        prepare(raw, tmp_path / "out")
    (raw / "image_data.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks image_data\.json; Visual Genome"):
        prepare(raw, tmp_path / "out")

"""Images are the same image in every collection, and what is evaluated on is not trained on."""

import json
import pickle
from pathlib import Path

import pytest

from groundwork.dataset import leakage
from groundwork.dataset.record import Record
from groundwork.tools import check_leakage
from tests.helpers.dataset_files import write_json

IMAGE_DATA = [
    {"image_id": 1, "coco_id": 100, "flickr_id": 7000},
    {"image_id": 2, "coco_id": None, "flickr_id": 8000},
    {"image_id": 3, "coco_id": 300, "flickr_id": None},
    {"image_id": 4, "coco_id": None, "flickr_id": None},
]
COCO = "COCO_train2014_%012d.jpg"


def vg_list(path: Path, *images: int) -> Path:
    rows = [
        {"image": f"VG_100K/{image}.jpg", "caption": f"a dog {index}", "bbox": [[1, 2, 3, 4]]}
        for index, image in enumerate(images)
    ]
    return write_json(path, rows)


def refs(path: Path, **images: list[int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"image_id": one, "split": split} for split, many in images.items() for one in many]
    path.write_bytes(pickle.dumps(rows, protocol=2))
    return path


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    (tmp_path / "flickr").mkdir()
    (tmp_path / "flickr" / "val.txt").write_text("7000\n9000\n")
    (tmp_path / "flickr" / "test.txt").write_text("8000\n")
    return {
        "vg": vg_list(tmp_path / "vg.json", 1, 1, 2, 3, 4),
        "refer": refs(
            tmp_path / "refcoco" / "refs(unc).p", train=[300], val=[100, 101], testA=[102]
        ),
        "flickr30k": tmp_path / "flickr",
        "image_data": write_json(tmp_path / "image_data.json", IMAGE_DATA),
    }


def record(image: str, *image_ids: str) -> Record:
    return Record(image, None, None, (), source="list[0]", image_ids=image_ids)


def test_a_name_of_coco_says_which_image_it_is_and_a_number_needs_its_collection():
    assert leakage.identities(record(f"train2014/{COCO % 42}")) == {"coco:42"}
    assert leakage.identities(record("COCO_train2014_000000000042_7.jpg")) == {"coco:42"}
    assert leakage.identities(record("VG_100K/42.jpg"), collection="vg") == {"vg:42"}
    with pytest.raises(ValueError, match=r"list\[0\].*'42\.jpg'.*name the collection"):
        leakage.identities(record("42.jpg"))


def test_an_image_that_names_its_identity_needs_no_collection():
    assert leakage.identities(record("42.jpg", "flickr:42")) == {"flickr:42"}


def test_collections_are_joined_through_visual_genome_and_cocos_addresses(tmp_path):
    images = [{"id": 300, "flickr_url": "http://farm1.staticflickr.com/5/6000_0a1bff_z.jpg"}]
    coco = write_json(tmp_path / "captions.json", {"images": images})
    data = write_json(tmp_path / "image_data.json", IMAGE_DATA)
    links = leakage.Links().read_image_data(data).read_coco_images(coco)
    assert links.of(["vg:1"]) == {"vg:1", "coco:100", "flickr:7000"}
    assert links.of(["vg:3"]) == {"vg:3", "coco:300", "flickr:6000"} == links.of(["flickr:6000"])
    assert links.of(["vg:4"]) == {"vg:4"}


def test_the_tool_names_every_split_with_shared_images_and_fails(files, tmp_path, capsys):
    arguments = ["--train", f"vg={files['vg']}", "--eval", f"refer={files['refer']}"]
    arguments += [f"flickr30k={files['flickr30k']}", "--json", str(tmp_path / "out.json")]
    with pytest.raises(SystemExit) as ended:
        check_leakage.main([*arguments, "--image-data", str(files["image_data"])])
    assert ended.value.code == 1
    printed = capsys.readouterr().out
    assert "5 records on 4 images" in printed
    assert f"!!!   {files['refer']} val: 1 of 2 images are trained on, 2 records" in printed
    assert f"  {files['refer']} testA: 0 of 1 images" in printed
    assert f"{files['flickr30k']} val: 1 of 2 images are trained on" in printed
    assert f"{files['flickr30k']} test: 1 of 1 images are trained on" in printed
    (found,) = json.loads((tmp_path / "out.json").read_text()).values()
    assert found[f"{files['refer']} val"]["shared"] == ["coco:100"]


def test_the_tool_says_that_nothing_joins_the_collections(files, capsys):
    train, evaluated = f"vg={files['vg']}", f"refer={files['refer']}"
    check_leakage.main(["--train", train, "--eval", evaluated])
    assert "collections were not joined" in capsys.readouterr().out


def test_refer_lists_are_compared_with_each_other(files, tmp_path, capsys):
    other = refs(tmp_path / "refcocog" / "refs(umd).p", train=[102, 5], val=[6])
    with pytest.raises(SystemExit):
        check_leakage.main(["--train", f"refer={other}", "--eval", f"refer={files['refer']}"])
    assert "testA: 1 of 1 images are trained on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("vg.json", "FORMAT=PATH"),
        ("xml=a", "'xml' is unknown"),
        ("ids=none", "none does not exist"),
    ],
)
def test_a_list_that_cannot_be_read_is_named(train, message, files):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        check_leakage.main(["--train", train, "--eval", f"refer={files['refer']}"])


def test_an_exclusion_keeps_the_other_images_and_counts(files):
    links = leakage.Links().read_image_data(files["image_data"])
    records = [record(f"VG_100K/{image}.jpg") for image in (1, 1, 2, 3)]
    forbidden = leakage.refer_images(files["refer"], "coco")["val"].identities
    left_out = leakage.Exclusion(forbidden, links, "vg")
    assert [one.image for one in left_out.keep(records)] == ["VG_100K/2.jpg", "VG_100K/3.jpg"]
    assert (left_out.records, left_out.images) == (2, {"VG_100K/1.jpg"})

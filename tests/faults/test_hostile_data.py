"""Data that want more than to be read: files elsewhere, entities; through the real scripts."""

import json

import pytest

import grounding_eval_singlegpu_flickr
import Pretrain_vg
from groundwork import geometry
from groundwork.dataset.images import resolve_image
from groundwork.tools import check_data, make_proposals, prepare_flickr30k
from tests.helpers.dataset_files import write_image, write_json
from tests.helpers.script_runs import CONFIGS, error_of, evaluate, train

OUTSIDE = [
    "../secret.jpg",
    "a/../../secret.jpg",
    "./../images/../secret.jpg",
    "/ABSOLUTE/secret.jpg",
]
NOT_BELOW = ("leads out of the folder", "is not below image_root")
REMEDY = "set data.allow_outside_paths: true"
pytestmark = pytest.mark.usefixtures("embedded")
ALLOW = "data.allow_outside_paths=true"


@pytest.fixture
def own(tmp_path):
    """A folder with images/0.jpg and, beside it, the image that nobody meant to show."""
    write_image(tmp_path / "images" / "0.jpg", (50, 60))
    write_image(tmp_path / "secret.jpg", (50, 60), seed=1)
    return tmp_path


def hostile(own, name):
    return name.replace("/ABSOLUTE", str(own))


def train_list(own, image):
    entry = {"caption": "the red square", "bbox": [[5, 5, 30, 30]]}
    entries = [{"image": name, **entry} for name in ("0.jpg", "0.jpg", "0.jpg", image)]
    return write_json(own / "train.json", entries)


def settings(own, image):
    return [f"data.train.train=[{train_list(own, image)}]", f"data.image_root={own / 'images'}"]


def refused(message, own, name, record):
    assert f"{own}/{record}: image {name!r} " in message
    assert any(text in message for text in NOT_BELOW)
    assert REMEDY in message


# --- images -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OUTSIDE)
def test_training_refuses_an_image_outside_the_image_root(name, own):
    name = hostile(own, name)
    overrides = settings(own, name)
    message = error_of(
        lambda: train(Pretrain_vg, "tiny/Pretrain_vg_amc", own / "run", overrides=overrides)
    )
    refused(message, own, name, "train.json[3]")


def test_training_takes_it_if_the_configuration_says_so(own):
    overrides = [*settings(own, hostile(own, "/ABSOLUTE/secret.jpg")), ALLOW]
    out = train(Pretrain_vg, "tiny/Pretrain_vg_amc", own / "run", overrides=overrides)
    assert (out / "checkpoint_00.pth").is_file()


def test_evaluation_refuses_an_image_outside_the_image_root(own, trained):
    (own / "val.txt").write_text("../secret\n")
    boxes = {"boxes": {"7": [[5, 5, 30, 30]]}, "width": 60, "height": 50}
    write_json(own / "bounding_boxes_val.json", {"../secret": boxes})
    phrases = [{"phrases": [{"phrase": "the red square", "phrase_id": "7"}]}]
    write_json(own / "sentences_val.json", {"../secret": phrases})
    data = [f"data.flickr_data={own}", f"data.image_root={own / 'images'}", "data.splits=[val]"]

    def run(*more):
        return evaluate(
            grounding_eval_singlegpu_flickr, "tiny/Grounding_flickr",
            trained / "checkpoint_01.pth", own / "results", overrides=[*data, *more],
        )  # fmt: skip

    refused(error_of(run), own, "../secret.jpg", "sentences_val.json[../secret][0]")
    assert {row["n"] for row in run(ALLOW)} == {1}


def test_the_check_before_a_run_finds_it_and_goes_on(own):
    config, out = str(CONFIGS / "tiny/Pretrain_vg_amc.yaml"), own / "report.json"

    def check(image, *more):
        data = settings(own, image)
        check_data.main([config, "--workers", "1", "--out", str(out), "--set", *data, *more])
        return json.loads(out.read_text())["parts"][0]

    for name in (hostile(own, name) for name in OUTSIDE):
        part = check(name)
        assert part["errors"] == {"file outside image_root": 1}
        refused(part["examples"]["file outside image_root"][0], own, name, "train.json[3]")
    assert not check(hostile(own, "/ABSOLUTE/secret.jpg"), ALLOW)["errors"]
    assert not check("../secret.jpg", ALLOW)["errors"]


def test_proposals_are_not_made_for_it(embedded, tmp_path):
    test_file = embedded / "refcoco+" / "test.json"
    name = json.loads(test_file.read_text())[0]["image"]
    lists = write_json(tmp_path / "refcoco+" / "instances.json", json.loads(
        (embedded / "refcoco+" / "instances.json").read_text().replace(f'"{name}"', '"../x.jpg"')
    ))  # fmt: skip
    (lists.parent / "refs(unc).p").write_bytes((embedded / "refcoco+" / "refs(unc).p").read_bytes())
    hostile_list = test_file.read_text().replace(f'"{name}"', '"../x.jpg"')
    (tmp_path / "test.json").write_text(hostile_list)
    message = error_of(
        lambda: make_proposals.main(
            [str(CONFIGS / "tiny/Grounding_refcoco.yaml"), "--weights", "none.pth", "--device",
             "cpu", "--out", str(tmp_path / "dets.json"), "--set",
             f"data.test_file=[{tmp_path / 'test.json'}]", f"data.refcoco_data={tmp_path}"]
        )
    )  # fmt: skip
    refused(message, tmp_path, "../x.jpg", "test.json[0]")


def test_links_below_the_image_root_are_followed(own):
    (own / "images" / "more").symlink_to(own)
    found = resolve_image(str(own / "images"), "more/secret.jpg")
    assert found == own / "images" / "more" / "secret.jpg"
    (own / "link").symlink_to(own / "images")
    assert resolve_image(str(own / "link"), str(own / "link" / "0.jpg")) == own / "link" / "0.jpg"


def test_a_way_up_that_stays_inside_is_no_harm(own):
    assert resolve_image(str(own / "images"), "a/../0.jpg") == own / "images" / "0.jpg"


# --- other files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../mask.npy", "a/../../mask.npy", "/ABSOLUTE/mask.npy"])
def test_a_mask_outside_its_folder_is_refused_though_it_is_there(name, own):
    (own / "masks").mkdir()
    (own / "mask.npy").write_bytes(b"")
    with pytest.raises(ValueError, match="mask .*leads out of the folder"):
        geometry.decode_mask(hostile(own, name), (5, 5), own / "masks")


def entities(own, annotation, name="1"):
    """Flickr30k Entities of one training image, as published."""
    raw = own / "raw"
    for kind in ("Annotations", "Sentences"):
        (raw / kind).mkdir(parents=True)
    for split in ("train", "val", "test"):
        (raw / f"{split}.txt").write_text(f"{name}\n" if split == "train" else "")
    (raw / "Annotations" / f"{name}.xml").write_text(annotation)
    (raw / "Sentences" / f"{name}.txt").write_text("[/EN#1/people Two dogs] .\n")
    return ["--raw", str(raw), "--out", str(own / "out")]


def test_a_split_file_that_names_files_elsewhere_is_refused(own):
    arguments = entities(own, "<annotation/>", "../../secret")
    message = error_of(lambda: prepare_flickr30k.main(arguments))
    assert f"{own}/raw: split file '../../secret.xml' leads out of the folder" in message


BOMB = "".join(f'<!ENTITY b{i} "{f"&b{i - 1};" * 10}">' for i in range(1, 20))


@pytest.mark.parametrize(
    "doctype",
    [
        f'<!DOCTYPE a [<!ENTITY b0 "ha">{BOMB}]>',
        '<!DOCTYPE a [<!ENTITY b19 SYSTEM "file:///SECRET">]>',
        '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd">',
        '<!DOCTYPE a [<!ENTITY % p SYSTEM "file:///SECRET"> %p;]>',
    ],
    ids=["billion laughs", "external entity", "external DTD", "parameter entity"],
)
def test_xml_with_entities_is_refused_before_anything_is_expanded(doctype, own):
    (own / "secret.txt").write_text("the secret")
    doctype = doctype.replace("/SECRET", str(own / "secret.txt"))
    body = "<annotation><object><name>&b19;</name></object></annotation>"
    arguments = entities(own, f"{doctype}{body}")
    message = error_of(lambda: prepare_flickr30k.main(arguments))
    assert "Annotations/1.xml: it declares a DOCTYPE 'a'" in message
    assert "the secret" not in message and not (own / "out").exists()

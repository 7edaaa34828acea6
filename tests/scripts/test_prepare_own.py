"""tools/prepare_own.py: a list of any form becomes data of one's own for every system."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from groundwork.dataset.formats import phrases
from groundwork.settings import load_config
from groundwork.settings.roots import root_overrides
from groundwork.tools import prepare_own
from groundwork.tools.own.splits import split_images
from tests.helpers import own_lists
from tests.helpers.dataset_files import write_image
from tests.helpers.script_runs import error_of


def held(own: Path) -> dict[tuple[str, str], tuple]:
    """(image, text) -> boxes, masks and split of everything that was written."""
    found = {}
    for split in prepare_own.SPLITS:
        for kind in prepare_own.KINDS:
            path = own / kind.format(split)
            for record in phrases.read(path, split) if path.is_file() else ():
                for phrase in record.phrases:
                    found[record.image, phrase.text] = (phrase.boxes, phrase.masks, split)
    return found


@pytest.fixture(scope="module")
def own(tiny_data, tmp_path_factory) -> Path:
    """From JSON lines, with masks and phrases of nothing."""
    return own_lists.prepared("jsonl", tiny_data, tmp_path_factory.mktemp("own"))


@pytest.mark.parametrize("form", own_lists.FORMS)
def test_every_form_says_the_same(form, tiny_data, tmp_path):
    found = held(own_lists.prepared(form, tiny_data, tmp_path))
    expected = {(one.image, one.text): one for one in own_lists.said(tiny_data)}
    if form == "mdetr":  # which has no boxes for nothing: the caption is of an unknown place
        nothing = {key for key, one in expected.items() if not one.boxes}
        assert {(image, f"look at {text} .") for image, text in nothing} & set(found)
        expected = {key: one for key, one in expected.items() if one.boxes}
    assert expected.keys() <= found.keys()
    for key, one in expected.items():
        boxes, masks, _ = found[key]
        assert list(map(list, boxes)) == one.boxes
        assert [json.loads(mask) for mask in masks] == (
            [] if form in own_lists.WITHOUT_MASKS else one.masks
        )


def test_an_image_with_all_its_phrases_is_in_one_split(own):
    splits: dict[str, set[str]] = {}
    for (image, _), (_, _, split) in held(own).items():
        splits.setdefault(image, set()).add(split)
    assert all(len(found) == 1 for found in splits.values())
    counts = [sum(found == {split} for found in splits.values()) for split in prepare_own.SPLITS]
    assert counts == [32, 4, 4]


def test_the_split_follows_from_names_and_seed_only():
    groups = [[f"{number}.jpg"] for number in range(50)]
    shares = {"val": 0.1, "test": 0.2}
    first = split_images(groups, shares, seed=0)
    assert split_images(groups[::-1], shares, seed=0) == first
    assert split_images(groups, shares, seed=1) != first
    assert sorted(first.values()).count("val") == 5 and sorted(first.values()).count("test") == 10
    with pytest.raises(ValueError, match=r"2 images with places, 2 different ones, leave none"):
        split_images(groups[:2], shares, seed=0)


def test_copies_of_an_image_go_with_it(tmp_path):
    pixels = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (12, 90, 120, 3), dtype=np.uint8)[0], (0, 0), 5
    )
    lines = []
    for number in range(20):
        shown = np.roll(pixels, 11 * number, axis=1)
        shown[20:40, 3 * number : 3 * number + 30] = (250, 10, 10)
        Image.fromarray(shown).save(tmp_path / f"{number}.png")
        Image.fromarray(shown).save(tmp_path / f"again_{number}.jpg", quality=60)
        Image.fromarray(shown).resize((60, 45)).save(tmp_path / f"small_{number}.png")
        for name in (f"{number}.png", f"again_{number}.jpg"):
            box = [3 * number, 20, 3 * number + 30, 40]
            lines.append({"image": name, "phrase": "the red block", "box": box})
        small = {"image": f"small_{number}.png", "phrase": "the red block"}
        lines.append(small | {"box": [1.5 * number, 10, 1.5 * number + 15, 20]})
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    call = [str(tmp_path / "list.jsonl"), "--out", str(tmp_path / "own"), "--val", "0.2"]
    prepared = prepare_own.main(call)
    assert prepared.copies == 40
    splits = {image: split for (image, _), (_, _, split) in held(tmp_path / "own").items()}
    for number in range(20):
        names = (f"{number}.png", f"again_{number}.jpg", f"small_{number}.png")
        assert len({splits[name] for name in names}) == 1
    assert {"train", "val", "test"} == set(splits.values())


def folder_of(tmp_path: Path, *lines: object, images: int = 12) -> list[str]:
    """A call for a list of sound phrases, one an image, and then `lines`."""
    for number in range(images):
        write_image(tmp_path / f"{number}.jpg", seed=number)
    sound = [
        {"image": f"{number}.jpg", "phrase": "a box", "box": [30, 20, 70, 50]}
        for number in range(images)
    ]
    texts = [line if isinstance(line, str) else json.dumps(line) for line in (*sound, *lines)]
    (tmp_path / "list.jsonl").write_text("\n".join(texts), encoding="utf-8")
    return [str(tmp_path / "list.jsonl"), "--out", str(tmp_path / "own")]


AN_IMAGE = {"image": "0.jpg", "phrase": "it"}
WRONG = {
    "file missing": {"image": "none.jpg", "phrase": "it", "box": [0, 0, 5, 5]},
    "file outside image_root": {"image": "../0.jpg", "phrase": "it", "box": [0, 0, 5, 5]},
    "phrase without a word": AN_IMAGE | {"phrase": " ?", "box": [0, 0, 5, 5]},
    "box sticks out": AN_IMAGE | {"box": [0, 0, 90, 5]},
    "no box covers a pixel": AN_IMAGE | {"box": [5, 5, 5, 9]},
    "boxes are in pixels, not in shares": AN_IMAGE | {"box": [0.1, 0.2, 0.1, 0.6]},
    "another size than annotated": AN_IMAGE | {"box": [0, 0, 5, 5], "width": 81, "height": 60},
    "a box is four finite numbers": '{"image": "0.jpg", "phrase": "it", "box": [NaN, 0, 5, 5]}',
    "mask that cannot be drawn": AN_IMAGE | {"mask": [[0, 0, 1, 1]]},
    "mask '../0.jpg' leads out of the folder": AN_IMAGE | {"mask": "../0.jpg"},
    "mask without a pixel": AN_IMAGE | {"mask": [[200, 0, 300, 0, 300, 90]]},
    "key 'image' is missing": {"phrase": "it"},
    "once it is there, once it is not": {"image": "0.jpg", "phrase": "A  box", "box": None},
    "is not valid JSON": '{"image": "0.jpg"',
    "expected an object, got list": "[1]",
    "has box and boxes; give one": AN_IMAGE | {"box": [0, 0, 5, 5], "boxes": []},
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_named_and_left_out_only_if_asked(what, tmp_path, capsys):
    call = folder_of(tmp_path, WRONG[what])
    message = error_of(lambda: prepare_own.main(call))
    assert "1 things are wrong" in message and "list.jsonl:13" in message
    assert what in message + capsys.readouterr().out
    assert not (tmp_path / "own").exists()
    prepare_own.main([*call, "--leave-out"])
    assert len(held(tmp_path / "own")) == 12


def test_a_damaged_image_is_named(tmp_path, capsys):
    call = folder_of(tmp_path, {"image": "bad.jpg", "phrase": "it", "box": [0, 0, 5, 5]})
    whole = (tmp_path / "0.jpg").read_bytes()
    (tmp_path / "bad.jpg").write_bytes(whole[: len(whole) // 2])
    assert "bad.jpg cannot be decoded" in error_of(lambda: prepare_own.main(call))
    assert "not decodable" in capsys.readouterr().out


def test_repeated_phrases_are_one_and_other_boxes_are_joined(tmp_path, capsys):
    again = {"image": "0.jpg", "phrase": "a box", "box": [30, 20, 70, 50]}
    prepare_own.main(folder_of(tmp_path, again, again | {"box": [1, 2, 9, 9]}))
    assert "1 times: repeated phrase" in capsys.readouterr().out
    boxes, _, _ = held(tmp_path / "own")["0.jpg", "a box"]
    assert boxes == ((30, 20, 70, 50), (1, 2, 9, 9))


def test_boxes_that_can_only_be_sides_ask_for_the_flag(tmp_path):
    call = folder_of(tmp_path)
    rows = [json.loads(line) for line in Path(call[0]).read_text().splitlines()]
    corners = [50, 30, 70, 50]
    rows = [row | {"box": own_lists.xywh(corners)} for row in rows]
    Path(call[0]).write_text("\n".join(map(json.dumps, rows)))
    message = error_of(lambda: prepare_own.main(call))
    assert "12 boxes fit their images only as x, y, width, height" in message
    assert "--boxes xywh" in message
    prepare_own.main([*call, "--boxes", "xywh"])
    assert {boxes for boxes, _, _ in held(tmp_path / "own").values()} == {(tuple(corners),)}


def test_a_flag_that_contradicts_the_form_is_refused(tiny_data, tmp_path):
    message = error_of(lambda: own_lists.prepared("coco", tiny_data, tmp_path, "--boxes", "xyxy"))
    assert "this list states boxes otherwise" in message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.csv", "image,phrase,x1,y1\n", "give all of x1, y1, x2, y2"),
        ("list.csv", "picture,phrase\n", "no column is called image or file_name"),
        ("list.csv", "image,phrase\na.jpg\n", "list.csv:2: 1 cells in 2 columns"),
        ("list.csv", "image,phrase,x1,y1,x2,y2\na.jpg,it,1,2,3,\n", "list.csv:2: box 1, 2, 3,  is"),
        ("list.csv", "image,phrase,phrase\n", "several columns are called phrase"),
        ("list.csv", 'image,phrase\n\na.jpg,"a\nb"\na.jpg\n', "list.csv:5: 1 cells in 2 columns"),
        ("list.csv", "image,phrase\n", "holds no phrase"),
        ("list.jsonl", "", "holds no phrase"),
        ("list.json", "[]", "expected the keys images and annotations"),
        ("list.txt", "", "give a file *.jsonl, *.json, *.csv, *.tsv"),
        ("list.jsonl", "[1]", "list.jsonl:1: expected an object"),
        (
            "list.json",
            '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1}]}',
            "annotations[0]: has no text; give it one as phrase or caption",
        ),
    ],
)
def test_a_list_of_another_form_is_refused_by_its_place(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    call = [str(tmp_path / name), "--out", str(tmp_path / "own")]
    assert message in error_of(lambda: prepare_own.main(call))


def test_a_row_that_cannot_be_read_is_left_out_if_asked(tmp_path):
    folder_of(tmp_path)
    rows = [f"{number}.jpg,a box,30,20,70,50" for number in range(12)]
    wrong = ["0.jpg,it", "0.jpg,it,30,20,70,wide"]
    (tmp_path / "list.csv").write_text("\n".join(["image,phrase,x1,y1,x2,y2", *rows, *wrong]))
    call = [str(tmp_path / "list.csv"), "--out", str(tmp_path / "own")]
    said = error_of(lambda: prepare_own.main(call))
    assert "2 things are wrong" in said and "list.csv:14: 2 cells in 6 columns" in said
    prepare_own.main([*call, "--leave-out"])
    assert len(held(tmp_path / "own")) == 12


def test_columns_that_are_not_read_are_named(tmp_path, capsys):
    folder_of(tmp_path, images=1)
    (tmp_path / "list.csv").write_text("image,phrase,left,box\n0.jpg,a box,1,2\n")
    prepare_own.main([str(tmp_path / "list.csv"), "--out", str(tmp_path / "own")])
    assert "columns that are not read (those that are: image, phrase): left, box" in (
        capsys.readouterr().out
    )


def test_a_call_that_can_write_nothing_leaves_the_lists_of_an_earlier_one(tmp_path):
    call = folder_of(tmp_path)
    prepare_own.main(call)
    lists = held(tmp_path / "own")
    own = tmp_path / "own" / "train.jsonl"
    again = error_of(lambda: prepare_own.main([str(own), *call[1:], "--images", str(tmp_path)]))
    assert "is what an earlier call made" in again
    for line in ({}, AN_IMAGE | {"phrase": "the \ud800"}):
        (tmp_path / "list.jsonl").write_text(json.dumps(line) if line else "")
        assert "error: " in error_of(lambda: prepare_own.main(call))
    assert held(tmp_path / "own") == lists


def test_text_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "list.csv").write_bytes("image,phrase\na.jpg,caf\xe9\n".encode("latin-1"))
    call = [str(tmp_path / "list.csv"), "--out", str(tmp_path / "own")]
    assert "is not UTF-8: byte 0xe9 in line 2" in error_of(lambda: prepare_own.main(call))


def test_a_call_that_was_killed_while_it_wrote_goes_on(tmp_path, monkeypatch):
    call = folder_of(tmp_path)
    prepare_own.main(call)
    written = {path.name: path.read_bytes() for path in (tmp_path / "own").iterdir()}
    with monkeypatch.context() as patched:
        write = prepare_own.phrases.write

        def killed(records, path):
            write(records, path)
            raise KeyboardInterrupt

        patched.setattr(prepare_own.phrases, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare_own.main(call)
    with pytest.raises(ValueError, match=r"lacks 'splits'; run tools/prepare_own\.py again"):
        load_config("reftr/refcoco", [f"roots.own={tmp_path / 'own'}"])
    prepare_own.main(call)
    assert {path.name: path.read_bytes() for path in (tmp_path / "own").iterdir()} == written


def test_a_folder_of_something_else_is_not_written_to(tmp_path):
    call = folder_of(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "train.jsonl").write_text("mine")
    assert "holds lists of something else" in error_of(lambda: prepare_own.main(call))
    assert (tmp_path / "own" / "train.jsonl").read_text() == "mine"


def test_images_are_found_again_when_folder_and_images_move_together(tmp_path):
    prepare_own.main(folder_of(tmp_path / "here"))
    (tmp_path / "here").rename(tmp_path / "there")
    overrides = root_overrides(tmp_path / "there" / "own")
    config = load_config("configs/reftr/refcoco.yaml", overrides)
    assert config.data.image_root == str(tmp_path / "there")
    (tmp_path / "there" / "own").rename(tmp_path / "own")
    with pytest.raises(ValueError, match="lacks 'images'; run tools"):
        (tmp_path / "own" / "own.json").write_text("{}")
        load_config("configs/reftr/refcoco.yaml", root_overrides(tmp_path / "own"))

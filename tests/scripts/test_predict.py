"""predict.py: images and phrases of anybody's, by checkpoints of several systems."""

import argparse
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

import predict
from groundwork import Grounder
from groundwork.__main__ import main as package_main
from groundwork.geometry import cxcywh01_to_xyxy
from groundwork.jobs.predict_input import read_questions
from groundwork.jobs.systems import SHIPPED, UNASKED, load_systems
from tests.helpers.own_checkpoints import write_checkpoint
from tests.helpers.script_runs import error_of

pytestmark = pytest.mark.usefixtures("embedded")
PHRASES = ["the red circle", "the blue square"]


@pytest.fixture(scope="module")
def checkpoints(workplace) -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        folder = workplace / "predict"
        return {
            kind: str(write_checkpoint(kind, folder / f"{kind}.pth"))
            for kind in ("albef", "reftr", "alvg")
        }


@pytest.fixture
def photos(embedded, tmp_path) -> Path:
    """Two images in folders, and one that is none."""
    found = sorted((embedded / "images").rglob("*.jpg"))
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(found[0].read_bytes())
    (folder / "more" / "a.jpg").write_bytes(found[1].read_bytes())
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def rows_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def run(out: Path, *arguments: object) -> list[dict]:
    predict.main([*map(str, arguments), "--out", str(out), "--device", "cpu"])
    return rows_of(out)


def test_it_writes_what_the_grounders_say_and_draws_it(checkpoints, photos, tmp_path, capsys):
    image, out = photos / "a.jpg", tmp_path / "out"
    rows = run(out, image, *PHRASES, "--checkpoint", *checkpoints.values())
    expected = [
        one
        for file in checkpoints.values()
        for one in Grounder.load(file, device="cpu").ground(image, PHRASES)
    ]
    for row, one in zip(rows, expected, strict=True):
        assert (row["phrase"], row["there"], row["score"]) == (one.phrase, one.is_there, one.score)
        assert row["point"] == pytest.approx(one.point)
        assert np.reshape(row["boxes"], (-1, 4)) == pytest.approx(one.boxes)
    names = [row["system"] for row in rows[:: len(PHRASES)]]
    assert names == ["ALBEF (albef)", "RefTR (reftr)", "ALVG (alvg)"]
    told = capsys.readouterr().out
    assert all(f"{name}: {PHRASES[0]}: " in told for name in names)
    with Image.open(out / "overlays" / "a.jpg.png") as drawn:
        assert min(drawn.size) > 300
    # The mask is only that of the system that gives masks itself.
    assert all(row["mask"] is None for row in rows if "mask" in row["derived"])


def test_without_a_checkpoint_it_says_what_its_model_knows(checkpoints, photos, tmp_path, capsys):
    (row,) = run(tmp_path / "out", photos / "a.jpg", PHRASES[0])
    assert row["system"] == f"ALBEF ({SHIPPED.name})"
    assert UNASKED in capsys.readouterr().err
    run(tmp_path / "named", photos / "a.jpg", PHRASES[0], "--checkpoint", checkpoints["albef"])
    assert UNASKED not in capsys.readouterr().err


def test_coco_and_yolo_hold_the_boxes(checkpoints, photos, tmp_path):
    out = tmp_path / "out"
    (photos / "broken.png").unlink()
    rows = run(
        out, photos, *PHRASES, "--checkpoint", checkpoints["reftr"], "--write", "coco", "yolo"
    )
    coco = COCO(str(out / "coco" / "reftr.json"))
    images = {image["file_name"]: image for image in coco.dataset["images"]}
    assert set(images) == {"a.jpg", "more/a.jpg"}
    names = {one["id"]: one["name"] for one in coco.dataset["categories"]}
    for row in rows:
        image = images[row["image"]]
        (one,) = [
            one for one in coco.loadAnns(coco.getAnnIds(image["id"]))
            if names[one["category_id"]] == row["phrase"]
        ]  # fmt: skip
        height, width = row["size"]
        x1, y1, x2, y2 = np.clip(row["boxes"][0], 0, [width, height, width, height])
        assert one["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1])
        lines = (out / "yolo/reftr/labels" / row["image"]).with_suffix(".txt").read_text()
        boxes = [list(map(float, line.split())) for line in lines.splitlines()]
        (share,) = [box[1:] for box in boxes if box[0] == one["category_id"] - 1]
        found = cxcywh01_to_xyxy(share, (height, width))
        assert found == pytest.approx([x1, y1, x2, y2], abs=0.01)
    assert '  0: "the red circle"' in (out / "yolo/reftr/data.yaml").read_text()


def test_an_image_that_cannot_be_read_is_named_and_left_out_of_a_folder(
    checkpoints, photos, tmp_path
):
    out, ask = tmp_path / "out", (photos, "the red circle", "--checkpoint", checkpoints["albef"])
    rows = run(out, *ask)
    assert [row["image"] for row in rows] == ["a.jpg", "more/a.jpg"]
    (fault,) = (out / "faults.txt").read_text().splitlines()
    assert "broken.png cannot be decoded" in fault
    strict = tmp_path / "strict"
    message = error_of(lambda: run(strict, *ask, "--strict"))
    assert "broken.png cannot be decoded" in message
    assert not (strict / "predictions.jsonl").exists()
    alone = error_of(lambda: run(tmp_path / "alone", photos / "broken.png", *ask[1:]))
    assert "broken.png cannot be decoded" in alone


def test_phrases_come_from_standard_input_and_from_a_list(
    checkpoints, photos, tmp_path, monkeypatch
):
    system = ("--checkpoint", checkpoints["albef"])
    monkeypatch.setattr("sys.stdin", io.StringIO("the red circle\n\n the star \n"))
    rows = run(tmp_path / "read", photos / "a.jpg", "-", *system)
    assert [row["phrase"] for row in rows] == ["the red circle", "the star"]
    lines = [
        {"image": "a.jpg", "phrase": "the star"},
        {"image": "more/a.jpg", "phrases": PHRASES},
        {"image": "a.jpg"},
    ]
    asked = photos / "asked.jsonl"
    asked.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = run(tmp_path / "listed", asked, "the ring", *system)
    assert [(row["image"], row["phrase"]) for row in rows] == [
        ("a.jpg", "the star"), ("a.jpg", "the ring"),
        ("more/a.jpg", PHRASES[0]), ("more/a.jpg", PHRASES[1]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "asked.jsonl:1 is not valid JSON"),
        ('{"image": "a.jpg", "phrase": "a", "phrase": "b"}', "'phrase' comes twice in one object"),
        ('{"picture": "a.jpg"}', 'a line is {"image": path'),
        ('{"image": "a.jpg", "boxes": []}', "not ['boxes']"),
        ('{"image": "a.jpg"}', "there is no phrase"),
        ('{"image": "a.jpg", "phrases": ["ring", 3]}', "phrase 3 has no word"),
        ('{"image": "b.jpg", "phrase": "ring"}', "image b.jpg does not exist"),
        ('{"image": "../a.jpg", "phrase": "ring"}', "leads out of the folder"),
        ('{"image": "a.jpg", "phrase": "the \\ud800"}', "holds '\\ud800', which is no letter"),
        ("", "is empty"),
    ],
)
def test_a_line_of_a_list_that_cannot_be_asked_is_named(
    line, expected, checkpoints, photos, tmp_path
):
    asked, out = photos / "asked.jsonl", tmp_path / "out"
    asked.write_text(line + "\n")
    assert expected in error_of(lambda: run(out, asked, "--checkpoint", checkpoints["albef"]))
    assert not out.exists()


def test_what_cannot_be_asked_is_said_in_a_sentence(checkpoints, photos, tmp_path, monkeypatch):
    image, out, system = photos / "a.jpg", tmp_path / "out", ("--checkpoint", checkpoints["albef"])
    assert "there is no phrase" in error_of(lambda: run(out, image, *system))
    assert "phrase ' ' has no word" in error_of(lambda: run(out, image, " ", *system))
    assert "does not exist" in error_of(lambda: run(out, photos / "no.jpg", "ring", *system))
    assert "not found: no.pth" in error_of(
        lambda: run(out, image, "ring", "--checkpoint", "no.pth")
    )
    (photos / "none").mkdir()
    assert "holds no image" in error_of(lambda: run(out, photos / "none", "ring", *system))
    monkeypatch.chdir(tmp_path)
    assert not out.exists()
    (row,) = run(out, image, "a ring")  # by the model that ships
    assert row["phrase"] == "a ring" and len(row["point"]) == 2


def test_two_calls_are_not_mixed_in_one_folder(checkpoints, photos, tmp_path, monkeypatch):
    ask = (photos / "a.jpg", "the red circle", "--checkpoint", checkpoints["albef"])
    out = tmp_path / "out"
    rows = run(out, *ask)
    assert "is not empty" in error_of(lambda: run(out, *ask))
    assert rows_of(out) == rows
    # Without --out, every call has a new one; the package's door is the same job.
    monkeypatch.setattr("groundwork.jobs.predict.RUNS", tmp_path / "runs")
    for name in ("a", "a_2"):
        package_main(["predict", *map(str, ask), "--device", "cpu"])
        assert rows_of(tmp_path / "runs" / "predict" / name) == rows


def test_an_image_of_a_list_has_one_name_however_it_is_spelt(photos):
    asked = photos / "asked.jsonl"
    names = ["more/a.jpg", "./more/a.jpg", "more/../more//a.jpg", "more\\a.jpg"]
    lines = [{"image": name, "phrase": str(number)} for number, name in enumerate(names)]
    asked.write_text("\n".join(map(json.dumps, lines)))
    (question,) = read_questions(asked, ())
    assert question.name == "more/a.jpg" and question.phrases == ("0", "1", "2", "3")


def test_a_name_that_is_not_utf8_is_refused_before_anything_is_asked(photos, tmp_path):
    os.rename(photos / "a.jpg", os.fsencode(photos) + b"/caf\xe9.jpg")
    out = tmp_path / "out"
    (image,) = photos.glob("caf*")
    for ask in (lambda: run(out, photos, "ring"), lambda: run(out, image, "ring")):
        assert "holds '\\udce9', which is no letter" in error_of(ask)
    assert not out.exists()


def test_images_whose_labels_would_be_one_file_are_refused(photos, tmp_path):
    (photos / "a.png").write_bytes((photos / "a.jpg").read_bytes())
    said = error_of(lambda: run(tmp_path / "out", photos, "ring", "--write", "yolo"))
    assert "a.jpg and a.png would both have the labels a.txt" in said


def test_a_call_that_begins_while_systems_are_loaded_keeps_its_folder(
    photos, tmp_path, monkeypatch
):
    out = tmp_path / "out"

    def meanwhile(*_):
        out.mkdir()
        (out / ".begun.json").write_text("another question")
        return []

    monkeypatch.setattr("groundwork.jobs.predict.load_systems", meanwhile)
    assert "is not empty" in error_of(lambda: run(out, photos, "ring"))


def test_a_checkpoint_is_called_by_the_name_of_its_folder_wherever_it_is_named_from(monkeypatch):
    arguments = argparse.Namespace(config=None, tokenizer=None, data=None, device="cpu")
    monkeypatch.chdir(SHIPPED)
    (system,) = load_systems([Path(".")], arguments)
    assert system.key == "quickstart_amc"

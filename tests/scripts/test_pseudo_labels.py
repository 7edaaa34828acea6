"""pseudo_label.py, and training on what it writes, called as users call them."""

import json
import os
import pickle
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pseudo_label
import train
from groundwork.dataset.formats import detections, labels, refer, simrec, tuples
from groundwork.dataset.formats.labels import CONFIDENCE, Label
from groundwork.dataset.pseudo_labels import agreeing, label_of, snapped, surest, with_agreement
from groundwork.dataset.record import Phrase, Record
from groundwork.jobs import referring, student_files
from groundwork.jobs.label import LABELS_FILE
from groundwork.jobs.tokenizers import load_texts
from groundwork.models.common.checkpoint import read_checkpoint
from groundwork.settings import load_config
from tests.helpers.script_runs import CONFIGS, error_of

REFCLIP, SIMREC, REFTR = (
    CONFIGS / "tiny" / room / "refcoco+.yaml" for room in ("refclip", "simrec", "reftr")
)
QUICK = {
    REFCLIP: ("data.image_size=64", "model.cells=3", "model.init.detector=null"),
    SIMREC: ("data.image_size=64",),
    REFTR: ("data.image_size=48", "data.max_image_size=48"),
}
COMMON = ("data.workers=0", "batch_size=8", "log_every=1")
# What each says of its boxes, besides the agreement.
SAID = {
    REFCLIP: {"objectness", "similarity", "margin"},
    SIMREC: {"objectness", "margin"},
    REFTR: set(),
}
pytestmark = pytest.mark.usefixtures("embedded")


def settings(config: Path, *more: object) -> list[str]:
    return ["--config", str(config), "--device", "cpu", *map(str, more)]


def overrides(config: Path, *more: str) -> list[str]:
    return ["--set", *COMMON, *QUICK[config], *more]


def run_training(config: Path, out: Path, *more: str) -> Path:
    argv = settings(config, "--output_dir", out)
    train.main([*argv, *overrides(config, "epochs=1", "steps=2", *more)])
    return out / "checkpoint_00.pth"


def run_labelling(config: Path, checkpoint: Path, out: Path, *more: object, changes=()) -> Path:
    argv = settings(config, "--checkpoint", checkpoint, "--out", out, *more)
    pseudo_label.main([*argv, *overrides(config, *changes)])
    return out / LABELS_FILE


@pytest.fixture(scope="module")
def teachers(workplace, tmp_path_factory) -> dict[Path, Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        folder = tmp_path_factory.mktemp("teachers")
        return {config: run_training(config, folder / config.parent.name) for config in QUICK}


@pytest.fixture
def poisoned(embedded, tmp_path) -> dict[Path, str]:
    """Config -> the override of data.train by a copy in which every box of the split is wrong."""
    anns = json.loads((embedded / "anns/refcoco+.json").read_text())
    for number, entry in enumerate(anns["train"]):
        entry["bbox"], entry["cat_id"] = [1.0, 1.0, 2.0 + number % 7, 3.0], 0
    bad_json = tmp_path / "refcoco+.json"
    bad_json.write_text(json.dumps(anns))
    rows = torch.load(embedded / "annotations_resc/unc+/unc+_train.pth", weights_only=True)
    bad_list = tmp_path / "unc+" / "unc+_train.pth"
    bad_list.parent.mkdir()
    torch.save([(*row[:2], [1.0, 1.0, 3.0, 3.0], *row[3:]) for row in rows], bad_list)
    return {
        REFCLIP: f"data.train.train={bad_json}",
        SIMREC: f"data.train.train={bad_json}",
        REFTR: f"data.train.train={bad_list}",
    }


# --- what a teacher writes ------------------------------------------------------------------------


@pytest.mark.parametrize("config", QUICK, ids=lambda path: path.parent.name)
def test_every_expression_gets_a_box_and_annotated_boxes_play_no_part(
    teachers, poisoned, config, tmp_path
):
    clean = run_labelling(config, teachers[config], tmp_path / "clean")
    bad = run_labelling(config, teachers[config], tmp_path / "bad", changes=[poisoned[config]])
    assert clean.read_bytes() == bad.read_bytes()
    found = [label for _, label in labels.load(clean)]
    records = list(simrec.read("data/embedded/anns/refcoco+.json", ["train"]))
    texts = [phrase.text for record in records for phrase in record.phrases]
    assert sorted(label.text for label in found) == sorted(texts)
    for name in CONFIDENCE[:3]:
        said = [getattr(label, name) is not None for label in found]
        assert all(said) if name in SAID[config] else not any(said)
    manifest = json.loads((tmp_path / "clean/labels_manifest.json").read_text())
    assert any("checkpoint_00.pth" in name for name in manifest["data"])


@pytest.mark.parametrize("config", [SIMREC, REFTR], ids=lambda path: path.parent.name)
def test_students_train_on_labels_and_never_open_the_training_annotation(
    teachers, config, tmp_path
):
    file = run_labelling(REFCLIP, teachers[REFCLIP], tmp_path / "labels")
    usual = run_training(config, tmp_path / "usual", f"data.labels={file}")
    without = run_training(
        config, tmp_path / "without", f"data.labels={file}", "data.train.train=nowhere.json"
    )
    first, second = (read_checkpoint(path)["model"] for path in (usual, without))
    assert all(torch.equal(first[key], second[key]) for key in first)
    manifest = json.loads((tmp_path / "usual/manifest.json").read_text())
    assert any(name.endswith("labels.jsonl") for name in manifest["data"])


def test_every_label_is_a_sample_of_the_students_epoch(teachers, tmp_path):
    file = run_labelling(SIMREC, teachers[SIMREC], tmp_path / "labels")
    whole = load_config(SIMREC, [f"data.labels={file}"])
    config, text = whole.of_stages[-1], referring.text_rules(whole, load_texts(whole))
    dataset = referring.build_dataset(config, text, config.data.train, training=True)
    made = [(label.text, label.box) for _, label in labels.load(file)]
    samples = [dataset[(0, row)] for row in range(len(dataset))]
    assert [(one.phrase[0], tuple(one.boxes[0][0].tolist())) for one in samples] == made


def test_split_filters_and_bad_arguments(teachers, tmp_path):
    val = run_labelling(SIMREC, teachers[SIMREC], tmp_path, "--split", "val")
    everything = [label for _, label in labels.load(val)]
    assert {label.split for label in everything} == {"val"}
    half = run_labelling(
        SIMREC, teachers[SIMREC], tmp_path, "--split", "val", "--keep", 0.5, "--by", "objectness"
    )
    kept = [label.objectness for _, label in labels.load(half)]
    assert len(everything) / 2 <= len(kept) < len(everything)
    assert min(kept) >= np.median([label.objectness for label in everything]) - 1e-6
    for more, message in (
        (("--split", "dev"), "--split dev: not in data.train (train)"),
        (("--keep", 0.5), "--by similarity: this system does not say it of every box"),
        (("--keep", 0), "--keep 0.0: give the share that is kept"),
        (("--min_agreement", 2), None),
    ):
        call = lambda more=more: run_labelling(SIMREC, teachers[SIMREC], tmp_path, *more)  # noqa: E731
        if message is None:  # objects with one expression have nothing to agree with
            assert all(label.agreement is None for _, label in labels.load(call()))
        else:
            assert message in error_of(call)


@pytest.mark.parametrize(
    "more, changes, message",
    [
        (["--keep", 3], [], "--keep 3.0: give the share that is kept"),
        (["--write", "simrec"], ["benchmark=null"], "no published student reads benchmark None"),
        (["--write", "refer"], ["benchmark=grefcoco"], "reads benchmark grefcoco; leave --write"),
        (["--proposals", "nowhere.json"], [], "nowhere.json"),
    ],
)
def test_what_cannot_be_asked_of_labels_is_said_before_they_are_made(
    more, changes, message, tmp_path
):
    """The checkpoint would be the first thing that labelling reads."""
    out = tmp_path / "out"
    call = lambda: run_labelling(SIMREC, tmp_path / "x.pth", out, *more, changes=changes)  # noqa: E731
    assert message in error_of(call)
    assert not out.exists()


def test_a_ranking_that_a_system_does_not_give_ends_at_its_first_box(
    teachers, tmp_path, monkeypatch
):
    made = []
    monkeypatch.setattr("groundwork.jobs.label.label_of", lambda *_: made.append(1))
    call = lambda: run_labelling(REFTR, teachers[REFTR], tmp_path, "--keep", 0.5)  # noqa: E731
    assert "it gives none of objectness, similarity" in error_of(call)
    assert not made


def test_a_folder_of_checkpoints_is_no_teacher(teachers, tmp_path):
    folder = teachers[SIMREC].parent
    message = error_of(lambda: run_labelling(SIMREC, folder, tmp_path))
    assert f"{folder} is a folder; give one of its files, such as checkpoint_00.pth" in message


def test_curricula_of_annotated_boxes_are_refused(tmp_path):
    argv = settings(REFTR, "--output_dir", tmp_path)
    curriculum = "curriculum=[{train: {one: boxes.pth}, epochs: 1}]"
    message = error_of(lambda: train.main([*argv, "--set", "data.labels=labels.jsonl", curriculum]))
    assert "their files hold annotated boxes" in message


# --- files of students ----------------------------------------------------------------------------


def pairs(records) -> list[tuple]:
    return sorted((p.text, p.boxes[0]) for record in records for p in record.phrases)


def corners(box: list[float]) -> tuple[float, ...]:
    x, y, w, h = box
    return (x, y, x + w, y + h)


def assert_equal(rows: list[tuple], made: list[tuple]) -> None:
    """(image, text, box) of each, whatever their order and the folder of their images."""
    found, wanted = (sorted((Path(p).name, text, *box) for p, text, box in x) for x in (rows, made))
    assert [row[:2] for row in found] == [row[:2] for row in wanted]
    np.testing.assert_allclose(*([row[2:] for row in x] for x in (found, wanted)), atol=1e-3)


def assert_same(records, wanted: list[tuple]) -> None:
    found = pairs(records)
    assert [text for text, _ in found] == [text for text, _ in wanted]
    boxes = [np.array([box for _, box in rows]) for rows in (found, wanted)]
    np.testing.assert_allclose(*boxes, atol=1e-4)


def test_published_students_can_read_what_is_written(teachers, poisoned, embedded, tmp_path):
    numbers = [r.record_id for r in simrec.read(embedded / "anns/refcoco+.json", ["train"])]
    given = np.array([[2.0, 2.0, 30.0, 30.0], [20.0, 30.0, 60.0, 70.0], [5.0, 5.0, 9.0, 9.0]])
    detections.write(dict.fromkeys(numbers, given), tmp_path / "dets.json")
    more = ("--write", "simrec", "tuples", "refer", "--proposals", tmp_path / "dets.json")
    # What is evaluated is read from the clean file.
    file = run_labelling(SIMREC, teachers[SIMREC], tmp_path, *more, changes=[poisoned[SIMREC]])
    made = sorted((label.text, label.box) for _, label in labels.load(file))
    anns, lists = tmp_path / "anns/refcoco+.json", tmp_path / "annotations_resc/unc+"
    assert_same(simrec.read(anns, ["train"]), made)
    assert_same(tuples.read(lists / "unc+_train.pth"), made)
    for split in ("val", "testA", "testB"):
        truth = pairs(simrec.read(embedded / "anns/refcoco+.json", [split]))
        assert_same(simrec.read(anns, [split]), truth)
        assert_same(tuples.read(lists / f"unc+_{split}.pth"), truth)
    folder = tmp_path / "refer/refcoco+"
    files = folder / "refs(unc).p", folder / "instances.json"
    chosen = {phrase.boxes[0] for r in refer.read(*files, ["train"]) for phrase in r.phrases}
    assert chosen <= set(map(tuple, given.tolist()))
    content = json.loads(files[1].read_text())
    pictures = {ref["image_id"] for ref in refer.load_refs(files[0]) if ref["split"] == "train"}
    boxes = [row["image_id"] for row in content["annotations"]]
    assert all(boxes.count(number) == len(given) for number in pictures)
    assert len({row["id"] for row in content["annotations"]}) == len(boxes)


def test_the_files_say_what_published_students_take_from_them(teachers, tmp_path):
    """Read as the students' own loaders read them: by plain json, torch.load and pickle."""
    more = ("--write", "simrec", "tuples", "refer")
    file = run_labelling(SIMREC, teachers[SIMREC], tmp_path, *more)
    made = [(label.image, label.text, label.box) for _, label in labels.load(file)]
    anns = json.loads((tmp_path / "anns/refcoco+.json").read_text())
    assert all(set(row) == {"iid", "bbox", "cat_id", "refs", "mask_id"} for row in anns["train"])
    name = "COCO_train2014_{:012d}.jpg"
    rows = [
        (name.format(row["iid"]), row["refs"][0], corners(row["bbox"])) for row in anns["train"]
    ]
    assert_equal(rows, made)
    for row in chain(*anns.values()):
        mask = np.load(tmp_path / f"masks/refcoco+/{row['mask_id']}.npy")
        with Image.open(f"data/embedded/images/train2014/{name.format(row['iid'])}") as picture:
            assert mask.shape == picture.size[::-1] and mask.dtype == np.uint8 and mask.all()
    listed = torch.load(tmp_path / "annotations_resc/unc+/unc+_train.pth", weights_only=False)
    assert_equal([(img, phrase, corners(box)) for img, _, box, phrase, _ in listed], made)
    folder = tmp_path / "refer/refcoco+"
    refs = pickle.loads((folder / "refs(unc).p").read_bytes())
    content = json.loads((folder / "instances.json").read_text())
    boxes = {row["id"]: row["bbox"] for row in content["annotations"]}
    pictures = {row["id"]: Path(row["file_name"]).name for row in content["images"]}
    rows = [
        (pictures[ref["image_id"]], sentence["sent"], corners(boxes[ref["ann_id"]]))
        for ref in refs if ref["split"] == "train" for sentence in ref["sentences"]
    ]  # fmt: skip
    assert_equal(rows, made)
    assert {row["category_id"] for row in content["annotations"]} == {
        row["id"] for row in content["categories"]
    }


def test_students_without_a_reader_for_the_benchmark_are_named(teachers, tmp_path):
    for kind, message in (
        ("simrec", "SimREC has no reader for flickr30k; leave simrec out"),
        ("refer", "flickr30k is not published in REFER's form; leave refer out"),
    ):
        call = lambda kind=kind: run_labelling(  # noqa: E731
            SIMREC, teachers[SIMREC], tmp_path, "--write", kind, changes=["benchmark=flickr30k"]
        )
        assert message in error_of(call)


def test_masks_are_copied_where_links_cannot_be_made(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("too many links")))
    records = [
        Record("a.jpg", 3, 2, (Phrase("a", "1"), Phrase("b", "1"))),
        Record("b.jpg", 3, 2, (Phrase("c", "2"),)),
        Record("c.jpg", 2, 3, (Phrase("d", "3"),)),
    ]
    for _ in range(2):
        assert student_files._write_masks(records, tmp_path) == 3
        shapes = [np.load(tmp_path / f"{number}.npy").shape for number in (1, 2, 3)]
        assert shapes == [(2, 3), (2, 3), (3, 2)]


def test_the_size_of_a_record_is_that_of_its_image_as_it_is_shown(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (30, 20)).save(tmp_path / "plain.jpg")
    for name, size in (("turned", (20, 30)), ("plain", (30, 20))):
        record = student_files._sized(Record(f"{name}.jpg", None, None, ()), str(tmp_path))
        assert (record.width, record.height) == size


def test_an_image_without_proposals_is_named(teachers, tmp_path):
    detections.write({}, tmp_path / "dets.json")
    more = ("--write", "refer", "--proposals", tmp_path / "dets.json")
    call = lambda: run_labelling(SIMREC, teachers[SIMREC], tmp_path, *more)  # noqa: E731
    assert "no proposals for image 1000001" in error_of(call)


# --- labels and filters ---------------------------------------------------------------------------


def label(text: str = "a", box=(0.0, 0.0, 10.0, 10.0), **more) -> Label:
    return Label(image="a.jpg", width=50, height=40, text=text, box=box, **more)


def test_boxes_are_cut_at_the_edges_and_slivers_are_no_labels():
    record, phrase = Record("a.jpg", None, None, ()), Phrase("a")

    def made(*box: float, **confidence: float) -> Label | None:
        return label_of(record, phrase, np.array(box), (40, 50), confidence)

    found = made(-5, 3, 60, 20, similarity=2.0, margin=float("inf"))
    assert found.box == (0, 3, 50, 20) and (found.width, found.height) == (50, 40)
    assert found.similarity == 2.0 and found.margin is None and found.objectness is None
    assert made(10, 10, 11.9, 30) is None
    assert made(60, 10, 70, 30) is None
    assert made(float("nan"), 10, 20, 30) is None


def test_expressions_of_an_object_agree_as_far_as_their_boxes_overlap():
    one = label(phrase_id="1")
    half = label(phrase_id="1", box=(0.0, 0.0, 10.0, 5.0))
    away = label(phrase_id="1", box=(20.0, 20.0, 30.0, 30.0))
    alone, unknown = label(phrase_id="2"), label()
    found = with_agreement([one, alone, half, away, unknown, unknown])
    assert [x.agreement for x in found] == [0.25, None, 0.25, 0.0, None, None]
    assert [x.box for x in agreeing(found, 0.2)] == [x.box for x in (*found[:3], *found[4:])]


def test_the_surest_share_is_kept_in_order():
    rows = [label(similarity=value) for value in (3.0, 1.0, 2.0, 4.0)]
    assert [x.similarity for x in surest(rows, 0.5, "similarity")] == [3.0, 2.0, 4.0]
    assert [x.similarity for x in surest(rows, 0.4, "similarity")] == [3.0, 2.0, 4.0]
    assert [x.similarity for x in surest(rows, 0.1, "similarity")] == [3.0, 4.0]
    assert surest(rows, 1.0, "similarity") == rows
    assert surest([], 0.5, "similarity") == []


def test_a_box_is_moved_to_the_proposal_that_overlaps_most_or_else_is_nearest():
    boxes = np.array([[0.0, 0.0, 8.0, 10.0], [30.0, 30.0, 40.0, 40.0]])
    near, far = label(record_id="7"), label(record_id="7", box=(42.0, 20.0, 45.0, 25.0))
    found, poor = snapped([near, far], {"7": boxes})
    assert [x.box for x in found] == list(map(tuple, boxes.tolist()))
    assert poor == 1


def test_labels_come_back_by_object_and_split(tmp_path):
    rows = [
        label("a", phrase_id="1", split="train", record_id="5", similarity=0.5),
        label("b", phrase_id="1", split="train", record_id="5", box=(1.0, 2.0, 3.0, 4.5)),
        label("c", phrase_id="2", split="train", record_id="5", image_ids=("coco:5",)),
        label("d"),
        label("e"),
    ]
    path = tmp_path / "labels.jsonl"
    assert labels.write(rows, path) == 5
    assert [one for _, one in labels.load(path)] == rows
    records = list(labels.read(path, "mine"))
    assert [[p.text for p in r.phrases] for r in records] == [["a", "b"], ["c"], ["d"], ["e"]]
    assert records[0].phrases[1].boxes == ((1.0, 2.0, 3.0, 4.5),)
    assert {r.split for r in records} == {"mine"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"box": [0, 0, 60, 10]}, "labels.jsonl:1: box [0.0, 0.0, 60.0, 10.0] is empty or not in"),
        ({"box": [5, 0, 5, 10]}, "is empty or not inside"),
        ({"box": [1, 2]}, "labels.jsonl:1"),
        ({"text": None}, "text must be a text"),
        ({"width": "50"}, "width must be a whole number"),
        ({"color": "red"}, "labels.jsonl:1: no pseudo-label"),
    ],
)
def test_what_is_wrong_in_a_label_file_is_named(tmp_path, change, message):
    path = tmp_path / "labels.jsonl"
    labels.write([label()], path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change) + "\n")
    with pytest.raises(ValueError, match="labels.jsonl:1") as error:
        list(labels.read(path))
    assert message in str(error.value)


def test_missing_and_broken_label_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"pseudo_label\.py writes them"):
        list(labels.read(tmp_path / "none.jsonl"))
    (tmp_path / "bad.jsonl").write_text("{]\n")
    with pytest.raises(ValueError, match=r"bad\.jsonl:1 is not valid JSON"):
        list(labels.read(tmp_path / "bad.jsonl"))

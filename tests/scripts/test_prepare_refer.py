"""prepare_refcoco and prepare_refclef on the embedded data set's REFER files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from groundwork.dataset.formats import refer
from groundwork.dataset.synthetic import write_dataset
from groundwork.geometry import decode_mask
from groundwork.tools import prepare_refclef, prepare_refcoco


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("embedded")
    write_dataset(folder, scenes=20, seed=3)
    return folder


def run(tool, raw: Path, out: Path, *more: str) -> Path:
    tool.main(["--raw", str(raw), "--out", str(out), *more])
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def records_of(embedded: Path, split: str):
    return list(refer.read(*refer.files(embedded, "refcoco+"), [split]))


def test_the_split_files_hold_every_sentence_and_read_as_the_released_ones_do(embedded, tmp_path):
    out = run(prepare_refcoco, embedded, tmp_path)
    read = list(refer.read_refcoco_plus(out / "refcoco+" / "test.json", embedded))
    wanted = [
        (record.split, phrase.phrase_id, phrase.text, phrase.boxes)
        for split in ("val", "testA", "testB")
        for record in records_of(embedded, split)
        for phrase in record.phrases
    ]
    assert [(r.split, p.phrase_id, p.text, p.boxes) for r in read for p in r.phrases] == wanted
    test = json.loads((out / "refcoco+" / "refcoco+_test_new_path.json").read_text())
    assert len(test) == sum(split != "val" for split, *_ in wanted)
    assert test[0].keys() == {"image", "text", "ref_id"}


def test_refclef_lists_name_their_split_and_take_a_repeated_sentence_once(embedded, tmp_path):
    out = run(prepare_refclef, embedded, tmp_path) / "refclef"
    read = list(refer.read_refclef(out / "test.json", embedded))
    assert {record.split for record in read} == {"val", "test"}
    rows = json.loads((out / "refclef_test_unique_fix_split.json").read_text())
    keys = [(row["ref_id"], row["text"]) for row in rows]
    assert len(set(keys)) == len(keys) > 0
    assert {row["split"] for row in rows} == {"test"}


def test_every_tree_has_the_same_expressions_and_boxes(embedded, tmp_path):
    out = run(prepare_refcoco, embedded, tmp_path)
    for split in ("train", "val", "testA", "testB"):
        wanted = [
            (phrase.text, tuple(phrase.boxes[0]))
            for record in records_of(embedded, split)
            for phrase in record.phrases
        ]
        resc = torch.load(out / f"annotations_resc/unc+/unc+_{split}.pth", weights_only=True)
        res = torch.load(out / f"refcoco/anns/refcoco+/refcoco+_unc_{split}.pth")
        anns = json.loads((out / "anns/refcoco+.json").read_text())[split]
        alvg = json.loads((out / "annotations/refcocoplus-unc/instances.json").read_text())[split]
        corners = [(x, y, x + w, y + h) for _, _, (x, y, w, h), _, _ in resc]
        assert list(zip([row[3] for row in resc], corners, strict=True)) == wanted
        assert [(text, tuple(box)) for _, _, box, text in res] == wanted
        assert [text for row in anns for text in row["refs"]] == [text for text, _ in wanted]
        assert [text for row in alvg for text in row["expressions"]] == [t for t, _ in wanted]
        if split != "train":
            assert all(len(row["refs"]) == 1 for row in anns)


def test_masks_are_written_on_request_and_completed_when_interrupted(embedded, tmp_path):
    out = run(prepare_refcoco, embedded, tmp_path, "--masks")
    folder = out / "refcoco" / "masks" / "refcoco+" / "unc"
    record = records_of(embedded, "val")[0]
    mask = decode_mask(record.phrases[0].masks[0], (record.height, record.width))
    path = folder / f"{record.phrases[0].phrase_id}.npy"
    assert np.array_equal(np.load(path), mask)
    path.unlink()
    run(prepare_refcoco, embedded, tmp_path, "--masks")
    assert np.array_equal(np.load(path), mask)


def test_counts_stand_beside_the_published_ones_and_differences_are_loud(
    embedded, tmp_path, capsys
):
    run(prepare_refcoco, embedded, tmp_path)
    printed = capsys.readouterr().out
    refs = len(records_of(embedded, "train"))
    assert ["train", "references", str(refs), "42,278"] in [s.split() for s in printed.split("\n")]
    assert f"!!! DIFFERS: refcoco+ (unc) has {refs} train references, published are 42,278" in (
        printed
    )
    assert "left out: refcoco (unc), refcocog (google), refcocog (umd)" in printed


def test_a_second_run_writes_nothing_and_an_interrupted_one_is_completed(
    embedded, tmp_path, capsys
):
    out = run(prepare_refcoco, embedded, tmp_path)
    before = contents(out)
    capsys.readouterr()
    run(prepare_refcoco, embedded, tmp_path)
    assert "nothing to do for refcoco+ (unc)" in capsys.readouterr().out
    (out / "anns" / "refcoco+.json").unlink()
    run(prepare_refcoco, embedded, tmp_path)
    printed = capsys.readouterr().out
    assert "written  anns/refcoco+.json" in printed
    assert "kept     refcoco+/test.json" in printed
    assert contents(out) == before


@pytest.mark.parametrize("tool", [prepare_refcoco, prepare_refclef])
def test_a_dry_run_counts_and_writes_nothing(tool, embedded, tmp_path, capsys):
    run(tool, embedded, tmp_path / "out", "--dry-run")
    assert not (tmp_path / "out").exists()
    assert "would write" in capsys.readouterr().out


@pytest.mark.parametrize("tool", [prepare_refcoco, prepare_refclef])
def test_what_is_missing_is_named(tool, tmp_path):
    with pytest.raises(FileNotFoundError, match="refs"):
        run(tool, tmp_path, tmp_path / "out")

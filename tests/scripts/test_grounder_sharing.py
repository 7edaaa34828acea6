"""`Grounder`: sessions, threads, and folders to keep and to share."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from groundwork import Grounder
from groundwork.jobs import pretrained
from groundwork.models.common.image_first import ImageFirst
from tests.helpers.hub import Hub
from tests.helpers.own_checkpoints import KINDS
from tests.helpers.published_files import drawn

PHRASES = ["the red circle", "a blue triangle", "the square on the left", "small star"]

pytestmark = pytest.mark.usefixtures("embedded")


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.phrase == other.phrase and one.point == other.point
        assert np.array_equal(one.boxes, other.boxes) and np.array_equal(one.scores, other.scores)
        for name in ("mask", "heatmap"):
            given, wanted = getattr(one, name), getattr(other, name)
            assert (given is None) == (wanted is None)
            assert given is None or np.array_equal(given, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_encodes_the_image_once_and_says_what_a_call_says(kind, checkpoints, monkeypatch):
    grounder = Grounder.load(checkpoints[kind], device="cpu")
    model = grounder._loaded.parts.evaluated
    assert isinstance(model, ImageFirst)
    seen, encode = [], model.encode
    monkeypatch.setattr(model, "encode", lambda batch: seen.append(batch) or encode(batch))
    session = grounder.look(drawn())
    together = session.ground(PHRASES * 5)
    apart = [session.ground(phrase)[0] for phrase in PHRASES]
    assert [len(batch["image"]) for batch in seen] == [1]
    for one, other in zip(apart, together, strict=False):
        assert one.phrase == other.phrase
        assert one.point == pytest.approx(other.point, abs=1e-2)
        assert one.boxes == pytest.approx(other.boxes, abs=1e-2)
    assert_equal(grounder.ground(drawn(), PHRASES * 5), together)
    assert session.ground([]) == []


@pytest.mark.parametrize("kind", ["albef", "refclip"])
def test_two_threads_get_the_answers_of_one(kind, checkpoints):
    grounder = Grounder.load(checkpoints[kind], device="cpu")
    images = [drawn(seed) for seed in range(6)]
    alone = [grounder.ground(image, PHRASES) for image in images]
    assert len({found[0].point for found in alone}) > 1
    with ThreadPoolExecutor(2) as threads:
        for found, expected in zip(
            threads.map(lambda image: grounder.ground(image, PHRASES), images), alone, strict=True
        ):
            assert_equal(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_system_comes_back_with_equal_outputs(kind, checkpoints, tmp_path, monkeypatch):
    grounder = Grounder.load(checkpoints[kind], device="cpu")
    folder = grounder.save_pretrained(tmp_path / "saved")
    assert {"model.safetensors", "config.json", "README.md"} <= {f.name for f in folder.iterdir()}
    # Neither the data nor the checkpoint is needed any more.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = Grounder.from_pretrained(folder, device="cpu")
    assert again.about.system == grounder.about.system
    expected = grounder.ground(drawn(), PHRASES)
    assert_equal(again.ground(drawn(), PHRASES), expected)
    twice = Grounder.load(again.save_pretrained(tmp_path / "twice"), device="cpu")
    assert_equal(twice.ground(drawn(), PHRASES), expected)


def test_the_card_has_what_lies_beside_the_checkpoint_and_nothing_else(checkpoints, tmp_path):
    file = tmp_path / "run" / "own.pth"
    file.parent.mkdir()
    file.write_bytes(checkpoints["simrec"].read_bytes())
    (file.parent / "words.txt").write_text("")  # not looked at: the file has its own
    grounder = Grounder.load(file, device="cpu")
    bare = (grounder.save_pretrained(tmp_path / "bare") / "README.md").read_text()
    assert "No manifest.json lay beside" in bare and "No results.json beside" in bare
    assert "command" not in bare and "| benchmark" not in bare
    manifest = {"command": ["train.py", "--config", "x.yaml"], "seed": 3, "git": {"commit": "abc"},
                "data": {"anns/refcoco.json": {"bytes": 1234}}, "versions": {"torch": "2.12"},
                "config": {"model": {"init": {"words": "glove.txt", "simrec": None}}}}  # fmt: skip
    (file.parent / "manifest.json").write_text(json.dumps(manifest))
    row = {"system": "SimREC", "objective": "REC", "checkpoint": "own.pth", "benchmark": "refcoco",
           "split": "val", "metric": "Acc@0.5", "value": 71.234, "low": 70.0, "high": 72.5,
           "n": 100, "derived": False, "note": "416 px"}  # fmt: skip
    rows = [row, {**row, "checkpoint": "another.pth", "value": 1.0}]
    (file.parent / "refcoco").mkdir()
    (file.parent / "refcoco" / "results.json").write_text(json.dumps(rows))
    folder = grounder.save_pretrained(tmp_path / "full")
    card = (folder / "README.md").read_text()
    assert "| refcoco | val | Acc@0.5 | 71.23 | 70.00 to 72.50 | 100 | 416 px |" in card
    assert "1.00" not in card and "`anns/refcoco.json`, 1,234 bytes" in card
    assert "first weights (words): `glove.txt`" in card and "seed 3" in card and "MIT" in card
    again = Grounder.load(folder, device="cpu").save_pretrained(tmp_path / "copied")
    assert (again / "README.md").read_text() == card


def test_a_folder_that_is_not_whole_or_damaged_is_named(checkpoints, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no model.safetensors and no config.json.*own.pth"
    ):
        Grounder.load(checkpoints["albef"].parent, device="cpu")
    folder = Grounder.load(checkpoints["simrec"], device="cpu").save_pretrained(tmp_path / "saved")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ValueError, match="model.safetensors: damaged"):
        Grounder.load(folder, device="cpu")
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        Grounder.load(folder, device="cpu")


def test_the_hub_is_asked_for_ids_only_and_its_absence_is_one_sentence(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FileNotFoundError, match="someone/model is neither a file nor a folder, nor"
    ):
        Grounder.load("someone/model", device="cpu")
    for path in ("run/checkpoint.pth", "checkpoint", "/absent/model", "../model"):
        assert pretrained.located(path) == Path(path)
    with pytest.raises(FileNotFoundError, match="checkpoint not found: run/checkpoint.pth"):
        Grounder.load("run/checkpoint.pth", device="cpu")


def test_an_upload_is_what_was_saved_and_fails_in_one_sentence(checkpoints, tmp_path, monkeypatch):
    import huggingface_hub

    grounder = Grounder.load(checkpoints["refclip"], device="cpu")
    with pytest.raises(ValueError, match="no id of the hub; give OWNER/NAME"):
        grounder.push_to_hub("model")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"someone/model was not uploaded .*network and the"):
        grounder.push_to_hub("someone/model")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Hub(tmp_path))
    assert grounder.push_to_hub("someone/model") == "hub/someone/model"
    again = Grounder.load(tmp_path / "someone" / "model", device="cpu")
    assert_equal(again.ground(drawn(), PHRASES), grounder.ground(drawn(), PHRASES))


def test_tied_weights_of_a_model_are_saved_one_by_one(tmp_path):
    table = torch.arange(4.0)
    pretrained.write(tmp_path, {"a": table, "b": table}, {"system": "x"}, "card")
    assert set(pretrained.read(tmp_path)["model"]) == {"a", "b"}

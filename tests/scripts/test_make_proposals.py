"""Proposals by a detector of random weights: complete, inside the images, resumable."""

import json

import pytest
import torch
from torchvision import models

from groundwork.dataset.formats import detections
from groundwork.tools import check_data, make_proposals
from tests.helpers.script_runs import CONFIGS, error_of

DETECTOR = "fasterrcnn_mobilenet_v3_large_320_fpn"
CONFIG = str(CONFIGS / "tiny/Grounding_refcoco.yaml")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = models.get_model(DETECTOR, weights=None, weights_backbone=None, num_classes=3)
    path = tmp_path_factory.mktemp("detector") / "weights.pth"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture
def call(embedded, weights, tmp_path):
    """Runs the tool on the embedded RefCOCO+ and returns the file it writes."""

    def run(*more, settings=()):
        out = tmp_path / "dets.json"
        make_proposals.main(
            [CONFIG, "--out", str(out), "--detector", DETECTOR, "--weights", str(weights),
             "--classes", "3", "--min_size", "64", "--batch_size", "3", "--workers", "0",
             "--device", "cpu", "--top", "7", *more, "--set", f"roots.embedded={embedded}",
             *settings]
        )  # fmt: skip
        return out

    return run


def test_every_evaluated_image_gets_proposals_that_the_evaluation_reads(call, embedded, capsys):
    out = call()
    found = detections.read(out)
    instances = json.loads((embedded / "refcoco+" / "instances.json").read_text())
    sizes = {str(row["id"]): (row["height"], row["width"]) for row in instances["images"]}
    refs = json.loads((embedded / "refcoco+" / "test.json").read_text())
    evaluated = {row["image"] for row in refs}
    ids = {str(row["id"]) for row in instances["images"] if row["file_name"] in evaluated}
    assert set(found) == ids
    for image_id, boxes in found.items():
        height, width = sizes[image_id]
        assert 0 < len(boxes) <= 7
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= [width + 1e-3, height + 1e-3]).all()
        assert (boxes[:, :2] < boxes[:, 2:]).all()
    scores = [row[4] for row in next(iter(json.loads(out.read_text()).values()))]
    assert scores == sorted(scores, reverse=True)
    assert f"{len(ids)} images" in capsys.readouterr().out
    assert check_data.main([CONFIG, "--workers", "1", "--set", f"data.det_file={out}"]) == 0


def test_an_interrupted_run_goes_on_and_writes_the_same_file(call, monkeypatch, capsys):
    few = ["data.splits=[testA]"]
    out = call(settings=few)
    whole = out.read_text()
    assert len(json.loads(whole)) == 4
    select, count = make_proposals.select, iter(range(100))

    def killed(*arguments):
        if next(count) == 3:  # in the second batch
            raise KeyboardInterrupt
        return select(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(make_proposals, "select", killed)
        out.unlink()
        call(settings=few)
    assert not out.exists()
    assert "was begun with" in error_of(lambda: call("--top", "2", settings=few))
    capsys.readouterr()
    assert call(settings=few).read_text() == whole
    assert "4 images, 3 of them done before" in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == ["dets.json"]


def test_a_file_that_exists_is_replaced_only_when_asked(call):
    few = ["data.splits=[testA]"]
    out = call(settings=few)
    before = out.read_text()
    assert "--again" in error_of(lambda: call("--top", "1", settings=few))
    assert out.read_text() == before
    call("--again", "--top", "1", settings=few)
    assert all(len(rows) == 1 for rows in json.loads(out.read_text()).values())


def test_weights_of_another_detector_are_refused(call, tmp_path):
    message = error_of(lambda: call("--classes", "5"))
    assert "--classes" in message
    missing = str(tmp_path / "none.pth")
    assert "--download" in error_of(lambda: call("--weights", missing))

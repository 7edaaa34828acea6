"""The benchmark of speed measures what it names, side by side, and writes what it measured."""

import json

import pytest
import torch

from groundwork import utils
from groundwork.engine.training import TrainingStep
from groundwork.experiments.speed import __main__ as speed
from groundwork.experiments.speed import released, scaling, timing
from groundwork.experiments.speed.loading import LOADERS, images_per_second
from groundwork.experiments.speed.subjects import VARIANTS, WORKLOADS, build
from groundwork.models.albef.explainer import Explainer
from tests.helpers.fork_server import fork_server
from tests.helpers.tiny_albef import tiny_batch, tiny_criterion, tiny_model

CPU = torch.device("cpu")


def test_a_table_of_one_system(tmp_path, capsys, monkeypatch):
    forked = fork_server()  # a spawned process imports everything anew
    monkeypatch.setattr(timing.multiprocessing, "get_context", lambda _: forked)
    call = ["--size", "tiny", "--device", "cpu", "--systems", "ALBEF", "--repeats", "2"]
    call += ["--variants", "released", "fp32", "bf16"]  # the last on any processor
    report = speed.main([*call, "--out", str(tmp_path)])
    assert json.loads((tmp_path / "speed.json").read_text()) == report
    rows = report["rows"]
    assert [row["variant"] for row in rows] == ["released", "fp32", "bf16"]
    for row in rows:
        assert 0 < row["fastest"] <= row["seconds"] <= row["slowest"]
        assert row["expressions_per_second"] == pytest.approx(10 / row["seconds"])
        assert row["ratio"] == pytest.approx(rows[0]["seconds"] / row["seconds"])
        assert 0 < row["share_of_peak"] and 0.1 < row["gib"] < 20
    assert rows[0]["gflop"] > 2 * rows[1]["gflop"], "an image for every phrase, and its gradients"
    table = (tmp_path / "speed.md").read_text()
    assert table in capsys.readouterr().out
    assert table.count("| ALBEF, evaluation, 2 x 5 |") == 3


@pytest.mark.parametrize(
    ("half", "compiled", "expected"),
    [
        (False, False, ["released", "fp32"]),
        (True, False, ["released", "fp32", "bf16"]),
        (False, True, ["released", "fp32", "fp32 compiled"]),
        (True, True, ["released", "fp32", "bf16", "fp32 compiled", "bf16 compiled"]),
    ],
)
def test_what_is_measured_unless_it_is_said(half, compiled, expected, monkeypatch):
    monkeypatch.setattr(utils, "computes_in_bf16", lambda _: half)
    assert speed.default_variants(CPU, compiled=compiled) == expected
    evaluation, training = (
        next(load for load in WORKLOADS["tiny"] if load.training is kind) for kind in (False, True)
    )
    assert training.variants == list(VARIANTS)
    assert evaluation.variants == ["released", "fp32", "bf16"]
    reftr = [load.variants for load in WORKLOADS["tiny"] if load.system == "RefTR"]
    assert reftr[0] == ["fp32", "bf16"] and reftr[1] == list(VARIANTS[1:])


@pytest.mark.slow
def test_what_a_step_grows_with(tmp_path, capsys, monkeypatch):
    forked = fork_server()
    monkeypatch.setattr(timing.multiprocessing, "get_context", lambda _: forked)
    call = ["--size", "tiny", "--device", "cpu", "--systems", "ALBEF", "AMC", "--repeats", "1",
            "--times", "1", "3", "--processes", "1", "2", "--loading", "16"]  # fmt: skip
    report = scaling.main([*call, "--out", str(tmp_path)])
    assert json.loads((tmp_path / "scaling.json").read_text()) == report
    asked = [(row["workload"], row["grows"], row["value"]) for row in report["steps"]]
    both = ["ALBEF, evaluation", "AMC, training"]
    assert [row for row in asked if row[1] == "images"] == [
        *((both[0], "images", n) for n in (2, 6)), *((both[1], "images", n) for n in (4, 12))
    ]  # fmt: skip
    assert [row for row in asked if row[1] == "phrases"] == [
        (both[0], "phrases", n) for n in scaling.PHRASES
    ]
    assert [row for row in asked if row[1] == "side"] == [
        (name, "side", side) for name in both for side in (32, 64)
    ]
    assert [row for row in asked if row[1] == "processes"] == [
        (both[1], "processes", n) for n in (1, 2)
    ]
    assert all(row["seconds"] > 0 and row["gib"] > 0.1 for row in report["steps"])
    assert list(report["loading"]) == ["AMC"] and report["loading"]["AMC"] > 1
    table = (tmp_path / "scaling.md").read_text()
    assert table in capsys.readouterr().out and table.count("| ALBEF, evaluation |") == 3


def test_every_training_loader_is_measured(tmp_path):
    """Of the published recipes: RefTR has two."""
    rates = images_per_second(list(LOADERS), 8, 1, tmp_path)
    assert list(rates) == list(LOADERS) and all(rate > 1 for rate in rates.values())


def test_a_line_through_medians_parts_a_step_from_its_images():
    measured = [scaling.Measured("x", "images", n, 0.3 + 0.2 * n, 1.0) for n in (1, 2, 4)]
    assert scaling.line(measured) == pytest.approx((0.3, 0.2))


@pytest.mark.parametrize("load", WORKLOADS["tiny"], ids=lambda load: load.name)
def test_every_workload_can_be_run(load):
    step = build(load, "bf16", CPU)
    first, second = step(), step()
    if load.training:
        assert first == first and first != second, "a number, which the step has changed"


def test_the_released_way_gives_the_same_maps():
    model = tiny_model(momentum=False).eval()
    batch = {
        "image": torch.randn(2, 3, 32, 32),
        "text_ids": torch.randint(5, 64, (5, 7)),
        "text_mask": torch.ones(5, 7, dtype=torch.long),
        "phrase_image": torch.tensor([0, 0, 0, 1, 1]),
    }
    ours = Explainer(model)(batch)["heatmaps"]
    torch.testing.assert_close(released.explain(model, batch), ours, rtol=1e-4, atol=1e-7)
    assert ours.max() > 0


@pytest.mark.parametrize("objectives", [("itc_itm_mlm", "amc"), ("selfeq",)], ids="-".join)
def test_the_released_way_trains_on_the_same_losses(objectives):
    batch = tiny_batch([True, False, True])
    criterion = tiny_criterion(*objectives)
    found = []
    for way in (lambda model: model, released.Training):
        model = tiny_model().train()
        module = TrainingStep(way(model), criterion)
        found.append((module(batch)[1], model.state_dict()))
    (ours, weights), (theirs, same_weights) = found
    # Not of the negatives and the hidden words, of which more are drawn.
    same = ("ita", "amc_mean", "amc_max", "sim_syn", "cst_syn")
    kept = [name for name in ours if name.endswith(same)]
    assert len(kept) == 3
    for name in kept:
        torch.testing.assert_close(theirs[name], ours[name], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(same_weights, weights, rtol=1e-5, atol=1e-6)

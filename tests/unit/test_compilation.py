"""Compiled parts of a model train as they do uncompiled."""

import shutil
from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters

import Pretrain_vg
from groundwork.engine import compilation
from groundwork.engine.compilation import compile_parts
from groundwork.experiments.speed import subjects
from groundwork.experiments.speed.subjects import WORKLOADS, build
from groundwork.settings import load_config
from tests.helpers.script_runs import CONFIGS, error_of, train

CPU = torch.device("cpu")
AMC = "tiny/Pretrain_vg_amc"


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "load", [load for load in WORKLOADS["tiny"] if load.training], ids=lambda load: load.name
)
def test_a_step_of_every_system(load, monkeypatch):
    """The second total follows from the gradients of the first step."""
    monkeypatch.setattr(subjects, "compile_parts", partial(compile_parts, backend="aot_eager"))
    totals = []
    for variant in ("fp32", "fp32 compiled"):
        step = build(load, variant, CPU)
        totals.append([])
        for number in range(2):
            torch.manual_seed(number)
            totals[-1].append(step())
        assert (counters["stats"]["unique_graphs"] > 0) == variant.endswith("compiled")
    assert totals[1] == pytest.approx(totals[0], rel=1e-4)
    assert totals[0][1] != totals[0][0]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not shutil.which("g++"), reason="compiling for a CPU takes g++")
def test_a_compiled_run_is_validated_saved_and_resumed_like_any_other(tmp_path):
    def run(name: str, *more: str, compiled: bool) -> dict[str, torch.Tensor]:
        overrides = [f"compile={compiled}", "precision=fp32", "select={splits: [testA]}"]
        out = train(
            Pretrain_vg, AMC, tmp_path / name, *more, overrides=overrides, epochs=2, steps=2
        )
        assert (out / "best_testA.pth").is_file()
        return torch.load(out / "checkpoint_01.pth", weights_only=True)["model"]

    eager, compiled = run("eager", compiled=False), run("compiled", compiled=True)
    assert counters["stats"]["unique_graphs"] > 0 and compiled.keys() == eager.keys()
    for name, value in eager.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-4)
    (tmp_path / "compiled/checkpoint_01.pth").unlink()
    resumed = run("compiled", "--resume", compiled=False)
    for name, value in eager.items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-3, atol=1e-4)


def test_without_a_compiler_a_run_says_so_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    said = error_of(lambda: train(Pretrain_vg, AMC, tmp_path / "run", overrides=["compile=true"]))
    assert "compile: true" in said and "no-such-compiler" in said
    assert not (tmp_path / "run").exists()


def test_sharded_trainings_are_not_compiled():
    with pytest.raises(ValueError, match="sharded: true does not go with compile: true"):
        load_config(
            CONFIGS / "tiny/alvg/refcoco+_res.yaml",
            ["sharded=true", "compile=true"],
            purpose="training",
        )


def test_a_limit_that_someone_raised_stays(monkeypatch):
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1000)
    compile_parts([torch.nn.Linear(2, 2)])
    assert torch._dynamo.config.recompile_limit == 1000
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 8)
    compile_parts([torch.nn.Linear(2, 2)])
    assert torch._dynamo.config.recompile_limit == compilation.GRAPHS

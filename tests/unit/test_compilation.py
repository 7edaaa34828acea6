"""Compiled parts of a model train as they do uncompiled."""

import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters

import Pretrain_vg
from groundwork.engine import compilation
from groundwork.engine.compilation import compile_parts
from groundwork.experiments.speed import subjects
from groundwork.experiments.speed.subjects import WORKLOADS, build
from groundwork.jobs import train as job
from groundwork.models import SYSTEMS
from groundwork.models.refclip.config import RefclipDetectorConfig
from groundwork.settings import load_config, load_detector
from tests.helpers.script_runs import CONFIGS, error_of, train
from tests.helpers.tiny_refclip import MODEL, tiny_refclip

CPU = torch.device("cpu")
AMC = "tiny/Pretrain_vg_amc"
VALIDATED = [
    "benchmark=embedded/refcoco+",
    "data.test_file=[data/embedded/refcoco+/test.json]",
    "data.refcoco_data=data/embedded",
    "select={splits: [val], metric: pointing}",
]


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
@pytest.mark.usefixtures("embedded")
def test_a_compiled_run_is_validated_saved_and_resumed_like_any_other(tmp_path):
    def run(name: str, *more: str, compiled: bool) -> dict[str, torch.Tensor]:
        overrides = [*VALIDATED, "precision=fp32", f"compile={str(compiled).lower()}"]
        out = train(
            Pretrain_vg, AMC, tmp_path / name, *more, overrides=overrides, epochs=2, steps=2
        )
        assert (out / "checkpoint_best.pth").is_file()
        return torch.load(out / "checkpoint_01.pth", weights_only=True)["model"]

    eager, compiled = run("eager", compiled=False), run("compiled", compiled=True)
    assert counters["stats"]["unique_graphs"] > 0 and compiled.keys() == eager.keys()
    for name, value in eager.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-4)
    (tmp_path / "compiled/checkpoint_01.pth").unlink()
    resumed = run("compiled", "--resume", compiled=False)
    for name, value in eager.items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_a_run_says_so_before_it_begins(compiler, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", compiler)
    said = error_of(lambda: train(Pretrain_vg, AMC, tmp_path / "run", overrides=["compile=true"]))
    assert f"compile: true needs a C++ compiler on a CPU, and {compiler} does not" in said
    assert not (tmp_path / "run").exists()


def test_a_model_that_has_no_such_parts_is_refused():
    detector = RefclipDetectorConfig(name="fcos_resnet50_fpn", classes=4)
    model = tiny_refclip(replace(MODEL, detector=detector))
    with pytest.raises(ValueError, match="nothing of this RefCLIP can be; set compile: false"):
        job.compile_parts(SYSTEMS["refclip"], model, CPU)


def test_sharded_trainings_are_not_compiled():
    with pytest.raises(ValueError, match="sharded: true does not go with compile: true"):
        load_config(
            CONFIGS / "tiny/alvg/refcoco+_res.yaml",
            ["sharded=true", "compile=true"],
            purpose="training",
        )


def test_the_training_of_a_detector_is_not_compiled():
    with pytest.raises(ValueError, match="compile: a detector's training is not"):
        load_detector(CONFIGS / "tiny/detector.yaml", ["compile=true"])


def test_a_limit_that_someone_raised_stays(monkeypatch):
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1000)
    compile_parts([torch.nn.Linear(2, 2)])
    assert torch._dynamo.config.recompile_limit == 1000
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 8)
    compile_parts([torch.nn.Linear(2, 2)])
    assert torch._dynamo.config.recompile_limit == compilation.GRAPHS

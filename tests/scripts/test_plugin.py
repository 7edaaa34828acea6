"""An objective, a system and a benchmark from outside: trained, evaluated and reported by the
scripts, from one folder of three files, with no file of ours touched."""

import json
import sys
from itertools import islice
from pathlib import Path

import pytest

import pseudo_label
import test as evaluation
import train
from groundwork.benchmarks import BENCHMARKS
from groundwork.dataset.formats import vg
from groundwork.dataset.sources import SOURCES
from groundwork.models import SYSTEMS
from groundwork.models.albef.config import OBJECTIVES
from tests.helpers.script_runs import CONFIGS, error_of

TOY = Path(__file__).parents[1] / "helpers" / "toy"
SYSTEM = """
system: colour
benchmark: toys
data:
  format: tabs
  train: {train: toys.tsv}
  evaluate: {val: toys.tsv}
  image_root: data/embedded/images
  text_encoder: data/embedded/tokenizer
  image_size: 64
  max_image_size: 64
  resize: square
  workers: 0
schedule: {name: cosine}
select: {splits: [val]}
optimizer: {lr: 1e-2}
epochs: 3
batch_size: 4
log_every: 1
"""


@pytest.fixture
def plugin(embedded, tmp_path, monkeypatch):
    """The argument that loads the toys, which are gone afterwards; a list for their benchmark."""
    registries = (BENCHMARKS, SOURCES, SYSTEMS, OBJECTIVES)
    before = [dict(registry) for registry in registries]
    rows = [
        "\t".join([record.image, phrase.text, *map(str, phrase.boxes[0])])
        for record in islice(vg.read(embedded / "vg" / "relation.json"), 12)
        for phrase in record.phrases[:1]
    ]
    (tmp_path / "toys.tsv").write_text("\n".join(rows))
    (tmp_path / "data").symlink_to(embedded.parent)
    monkeypatch.chdir(tmp_path)
    yield ["--plugin", str(TOY)]
    for registry, content in zip(registries, before, strict=True):
        registry.clear()
        registry.update(content)
    for name in [name for name in sys.modules if name.startswith("groundwork_plugin_")]:
        del sys.modules[name]


def lines_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_system_and_a_benchmark_train_evaluate_label_and_are_reported(plugin, tmp_path):
    config, run = tmp_path / "toy.yaml", tmp_path / "run"
    config.write_text(SYSTEM)
    train.main(["--config", str(config), "--output_dir", str(run), *plugin])
    losses = [line["loss_box"] for line in lines_of(run / "log.txt") if line["kind"] == "epoch"]
    assert len(losses) == 3 and losses[-1] < losses[0]
    best, out = run / "checkpoint_best.pth", tmp_path / "results"
    rows = evaluation.main(
        ["--config", str(config), "--checkpoint", str(best), "--output_dir", str(out), *plugin]
    )
    own = {row["metric"]: row for row in rows if row["system"] == "Colour"}
    assert own["Acc@0.5"]["benchmark"] == "toys" and own["Acc@0.5"]["n"] == 12
    assert "12.00" in (out / "results.md").read_text(), "the published number beside ours"
    labels = ["--config", str(config), "--checkpoint", str(best), "--out", str(tmp_path / "l")]
    assert pseudo_label.main([*labels, *plugin])["expressions"] == 12


def test_an_objective_trains_beside_ours_and_its_model_is_evaluated(plugin, tmp_path):
    run = tmp_path / "run"
    stage = "stages=[{objective: [itc_itm_mlm, even], epochs: 1, steps: 2}]"
    train.main(
        ["--config", str(CONFIGS / "tiny/Pretrain_vg_amc.yaml"), "--output_dir", str(run), *plugin,
         "--set", stage, "batch_size=4", "log_every=1", "data.workers=0",
         "model.objectives.even.weight=0.25"]
    )  # fmt: skip
    step = next(line for line in lines_of(run / "log.txt") if line["kind"] == "step")
    assert step["stage"] == "itc_itm_mlm+even" and step["loss_even"] > 0
    rows = evaluation.main(
        ["--config", str(CONFIGS / "tiny/Grounding_refcoco.yaml"), "--checkpoint", str(run),
         "--output_dir", str(tmp_path / "results"), "--split", "val", *plugin,
         "--set", "data.workers=0"]
    )  # fmt: skip
    assert {row["objective"] for row in rows if row["checkpoint"]} == {"itc_itm_mlm+even"}


def test_what_is_no_plugin_is_said():
    argv = ["--config", "x.yaml", "--plugin", "no.such.module"]
    assert "--plugin no.such.module: no folder, and no module" in error_of(lambda: train.main(argv))


@pytest.mark.parametrize(
    "text, message",
    [
        ("def (", "mine.py cannot be loaded: invalid syntax (line 1)"),
        ("import no_such_thing", "mine.py cannot be loaded: ModuleNotFoundError: No module named"),
        ("x = 1\n1 / 0", "mine.py cannot be loaded: ZeroDivisionError: division by zero (mine.py,"),
        (
            "from groundwork.models import SYSTEMS\nSYSTEMS['reftr'] = SYSTEMS['alvg']",
            "mine.py: SYSTEMS['reftr'] is taken already; choose another name",
        ),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("plugin")
def test_a_plugin_that_does_not_work_is_named(text, message, tmp_path):
    folder, reftr = tmp_path / "own", SYSTEMS["reftr"]
    folder.mkdir()
    (folder / "mine.py").write_text(text)
    said = error_of(lambda: train.main(["--config", "x.yaml", "--plugin", str(folder)]))
    assert f"--plugin {folder}: {message}" in said
    assert SYSTEMS["reftr"] is reftr


@pytest.mark.usefixtures("plugin")
def test_what_is_no_folder_of_python_files_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.py").touch()
    for name, message in (("empty", "there is no Python file"), ("file.py", "give its folder, .")):
        said = error_of(lambda name=name: train.main(["--config", "x.yaml", "--plugin", name]))
        assert f"--plugin {name}: " in said and message in said


@pytest.mark.usefixtures("plugin")
def test_two_folders_of_one_name_are_both_loaded(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "toy").mkdir(parents=True)
        (tmp_path / name / "toy" / "row.py").write_text(
            "from groundwork.benchmarks import BENCHMARKS, Benchmark\n"
            f"BENCHMARKS['{name}'] = Benchmark(name='{name}')\n"
        )
    error_of(lambda: train.main(["--config", "x.yaml", "--plugin", "one/toy", "two/toy"]))
    assert {"one", "two"} <= BENCHMARKS.keys()

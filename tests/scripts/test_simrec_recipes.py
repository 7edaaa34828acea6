"""SimREC's configurations, and the scripts with them."""

import json
from pathlib import Path

import pytest

import test
import train
from groundwork.scheduler import learning_rate
from groundwork.settings import load_config
from tests.helpers.script_runs import CONFIGS, error_of

TINY = CONFIGS / "tiny/simrec/refcoco+.yaml"
RECIPES = [*sorted(p for p in (CONFIGS / "simrec").glob("*.yaml") if p.stem != "base"), TINY]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_says_what_it_buys(path):
    config = load_config(path, ["data.labels=labels.jsonl"])
    head = path.read_text(encoding="utf-8").splitlines()[:6]
    for key in ("Paper:", "Command:", "Hardware:", "Cost:", "Expected:"):
        assert any(line.startswith(f"# {key}") for line in head), f"{path.name} lacks {key}"
    assert str(path.relative_to(CONFIGS.parent)) in head[2]
    assert config.of_stages[-1].data.format == "labels" and config.data.format == "simrec"
    published, finetuned = path != TINY, path.stem.endswith("_finetune")
    model = config.model
    assert (model.backbone.batch_norm == "train") == model.transposed == published
    assert model.across_processes != published and model.text.layers == 1
    if published:
        whole = path.stem == "pretrain"
        assert (config.epochs, model.backbone.train_from) == ((15, 0) if whole else (25, 8))
        assert config.batch_size == (4 if finetuned else 32) and config.data.max_tokens == 15
        assert (config.ema, config.clip_norm, config.seed) == (0.9997, 0.15, 123456)


@pytest.mark.parametrize(
    ("recipe", "published"),
    [
        ("refcoco", {0: 1e-7, 1: 7.66e-7, 75: 5.005e-5, 149: 9.9334e-5, 150: 1e-4,
                     151: 9.999979812e-5, 700: 5.05e-5, 1200: 1.503838627e-6}),
        ("pretrain", {1: 7.66e-7, 151: 9.999932147e-5, 400: 6.331154273e-5, 749: 1.000678534e-6}),
    ],
)  # fmt: skip
def test_the_published_recipes_have_their_rates(recipe, published):
    config = load_config(CONFIGS / "simrec" / f"{recipe}.yaml")
    for step, rate in published.items():
        ours = learning_rate(config.schedule, config.optimizer, *divmod(step, 50), 50)
        assert ours == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.train_sides=[400]", "train_sides [400]: sides must be multiples of 32"),
        ("model.backbone.repeats=[1,1]", "backbone.repeats is [1, 1]; it must be four"),
        ("model.backbone.train_from=11", "backbone.train_from is 11"),
        ("model.heads=3", "not divisible by 3 heads of the attention"),
        ("model.objectness_prior=1", "objectness_prior is 1"),
        ("model.init.simrec=a.pth model.init.backbone=b.pth", "init.simrec replaces all weights"),
    ],
)
def test_wrong_settings_end_with_the_remedy(override, message):
    recipe = TINY
    assert message in error_of(lambda: load_config(recipe, override.split()))


@pytest.mark.usefixtures("embedded")
def test_train_and_test_scripts_know_it(tmp_path):
    recipe = str(TINY)
    argv = ["--config", recipe, "--device", "cpu", "--output_dir"]
    quick = ["--set", "data.workers=0", "data.image_size=64", "batch_size=8"]
    train.main([*argv, str(tmp_path / "run"), *quick, "epochs=1", "steps=2"])
    best = tmp_path / "run" / "checkpoint_best.pth"
    rows = test.main([*argv, str(tmp_path / "results"), "--eval-weights", str(best), *quick])
    found = {(row["system"], row["split"], row["metric"]) for row in rows}
    assert {("SimREC", split, "Acc@0.5") for split in ("val", "testA", "testB")} <= found
    again = read_loss(tmp_path / "run" / "log.txt")
    assert {"loss_iou", "loss_obj"} <= again.keys()


def read_loss(log: Path) -> dict:
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return next(row for row in rows if row["kind"] == "epoch")


def test_fine_tuning_goes_on_from_the_pre_training_with_its_words(embedded, tmp_path):
    small = (
        "data.workers=0", "data.image_size=64", "model.train_sides=[64]", "model.backbone.width=4",
        "model.width=16", "model.head_width=8", "model.text.word_width=8", "model.text.heads=2",
        "model.text.ffn=12", "model.init={}", "batch_size=4", "epochs=1", "steps=1", "select=null",
    )  # fmt: skip
    start = ["--device", "cpu", "--data", str(embedded)]

    def run(recipe: str, *more: str) -> Path:
        out = tmp_path / recipe
        argv = ["--config", str(CONFIGS / "simrec" / f"{recipe}.yaml"), "--output_dir", str(out)]
        train.main([*argv, *start, *more, "--set", *small])
        return out

    first = run("pretrain")
    last = run("refcoco+_finetune", "--checkpoint", str(first / "checkpoint_00.pth"))
    assert (last / "words.txt").read_text() == (first / "words.txt").read_text()

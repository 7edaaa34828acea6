"""train.py and test.py, called as users call them, on the embedded data set."""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import test
import train
from groundwork.dataset.text import load_tokenizer
from groundwork.jobs import referring, run_script
from groundwork.jobs import train as training_job
from groundwork.models.common.checkpoint import read_checkpoint
from groundwork.report.__main__ import main as report
from groundwork.report.prediction_files import read_predictions
from groundwork.report.results import read_rows
from groundwork.settings import load_config
from groundwork.settings.roots import root_overrides
from groundwork.tools import published_reftr, reftr_flags
from tests.helpers.script_runs import CONFIGS, RESULT_KEYS, error_of
from tests.helpers.tiny_runs import start_group

REFTR = CONFIGS / "reftr"
TINY = sorted(path for path in (CONFIGS / "tiny/reftr").glob("*.yaml") if path.stem != "base")
RECIPES = sorted(path for path in REFTR.glob("*.yaml") if path.stem not in ("base", "res")) + TINY
QUICK = (
    "data.workers=0", "data.image_size=48", "data.max_image_size=48", "batch_size=4",
    "precision=fp32", "log_every=1", "model.backbone.output_stride=32",
    "select.every=1",
)  # fmt: skip
BOXES, MASKS, PHRASES = (
    CONFIGS / f"tiny/reftr/{name}.yaml" for name in ("refcoco+", "refcoco+_res", "flickr30k")
)
# What a batch norm counts, whatever the learning rate.
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
pytestmark = pytest.mark.usefixtures("embedded")


def command(config: Path, out: Path, *more: object, overrides=()) -> list[str]:
    start = ["--config", str(config), "--output_dir", str(out), "--device", "cpu"]
    return [*start, *map(str, more), "--set", *QUICK, *overrides]


def short(epochs: int = 1, steps: int = 2) -> list[str]:
    return ["stages=[{}]", f"epochs={epochs}", f"steps={steps}"]


def run_training(config: Path, out: Path, *more: object, overrides=()) -> Path:
    train.main(command(config, out, *more, overrides=[*short(), *overrides]))
    return out


def run_evaluation(config: Path, checkpoint: Path, out: Path, *more: object, overrides=()):
    more = ("--checkpoint", checkpoint, *more)
    return test.main(command(config, out, *more, overrides=overrides))


def lines(folder: Path, kind: str) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "log.txt").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def metrics_of(rows: list[dict]) -> set[str]:
    return {row["metric"] for row in rows if row["system"] == "RefTR"}


@pytest.fixture(scope="module")
def runs(workplace, tmp_path_factory) -> dict[Path, Path]:
    """A trained folder of every tiny configuration; two epochs of two steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        return {
            config: run_training(
                config, tmp_path_factory.mktemp(config.stem) / "run", overrides=short(2, 2)
            )
            for config in TINY
        }


# --- configurations -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_says_what_it_buys(path):
    config = load_config(path)
    head = path.read_text(encoding="utf-8").splitlines()[:6]
    for key in ("Paper:", "Command:", "Hardware:", "Cost:", "Expected:"):
        assert any(line.startswith(f"# {key}") for line in head), f"{path.name} lacks {key}"
    assert str(path.relative_to(CONFIGS.parent)) in head[2]
    assert not config.select or not any(s.startswith("test") for s in config.select.splits)
    assert config.data.multi_phrase == path.stem.startswith("flickr30k")


def test_the_two_ways_to_start_are_there_for_every_benchmark():
    for path in set(RECIPES) - set(TINY):
        if f"{path.stem}_imagenet" in {other.stem for other in RECIPES}:
            released = load_config(path)
            clean = load_config(path.with_stem(f"{path.stem}_imagenet"))
            assert released.model.init.detr and not clean.model.init.detr
            assert clean.model.init.backbone == "imagenet" and clean.schedule.warmup_epochs > 0


@pytest.mark.parametrize("name", ["refcoco+", "refcoco+_res", "flickr30k", "vg"])
def test_released_recipes_find_their_data_in_the_published_tree(name, embedded):
    overrides = [*root_overrides(embedded), "data.image_size=96", "data.max_image_size=96"]
    config = load_config(REFTR / f"{name}.yaml", overrides)
    text = referring.text_rules(config, load_tokenizer(config.data.text_encoder))
    for files, training in ((config.data.train, True), (config.data.evaluate, False)):
        dataset = referring.build_dataset(config, text, files, training=training)
        collate = referring.collate(config, text, training=training)
        batch = collate([dataset[(0, 0)], dataset[(0, 1)]] if training else [dataset[0]])
        assert ("target_mask" in batch) == config.model.masks
        assert ("phrase_text_ids" in batch) == config.data.multi_phrase


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("select.splits=[testA]", "a test split is reported, never selected on"),
        ("select.splits=[train]", "select.splits: 'train' is not in data.evaluate"),
        ("data.evaluate.train=x.pth select.splits=[train]", "trained on, so it cannot choose"),
        ("benchmark=refcoco++", "benchmark 'refcoco++' does not exist"),
        ("data.max_tokens=500", "data.max_tokens 500 exceeds the model's"),
        ("schedule.drop_epochs=[3]", "schedule cosine with drop_epochs"),
        (
            "model.masks=true data.multi_phrase=true",
            "reftr with masks learns from one expression per image; set them to false and 1",
        ),
        ("model.masks=true data.sentences_at_once=2", "data.sentences_at_once: reftr with masks"),
        ("optimizer.rates.img_bone=1e-5", "no parameter's name contains img_bone"),
        ("data.train.train=nowhere.pth", "nowhere.pth: its folder does not tell"),
        ("select.metric=mIoU", "select: 'mIoU' is not measured on val"),
        ("select.splits=[]", "select.splits names no split"),
        (
            "select.metric=F1",
            "refcoco+.yaml: select: 'F1' is not measured on val; set select.metric",
        ),
        ("benchmark=refclef", "benchmark refclef has no split 'testA' (it has val, test), but"),
        ("benchmark=refcoco", "unc+_val.pth is of refcoco+; set benchmark to that"),
        ("data.train={}", "refcoco+.yaml: data.train names no split; give its annotation files"),
        ("data=null", "refcoco+.yaml: data: names nothing; give annotation files in data.train"),
        ("system=[a]", "system: ['a'] is not one of albef, reftr"),
        ("roots.embedded", "--set roots.embedded: expected name=value"),
    ],
)
def test_wrong_settings_end_with_the_remedy(tmp_path, override, message):
    overrides, out = override.split(), tmp_path / "out"
    assert message in error_of(lambda: run_training(BOXES, out, overrides=overrides))
    assert not out.exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages=[]", "refcoco+.yaml: stages is empty; add one such as {epochs: 30}"),
        ("stages=[{train: {train: []}, epochs: 1}]", "stages.0: train.train names no file"),
    ],
)
def test_stages_that_train_nothing_end_with_the_remedy(tmp_path, override, message):
    argv = command(BOXES, tmp_path / "out", overrides=[override])
    assert message in error_of(lambda: train.main(argv))
    assert not (tmp_path / "out").exists()


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", TINY, ids=lambda path: path.stem)
def test_training_logs_validates_and_keeps_the_best(runs, config):
    folder, settings = runs[config], load_config(config)
    losses = lines(folder, "epoch")
    assert len(losses) == 2 and {"loss_bbox", "loss_giou"} <= losses[0].keys()
    assert ("loss_dice" in losses[0]) == settings.model.masks
    values = [row[settings.select.metric] for row in lines(folder, "validation")]
    best = read_checkpoint(folder / "checkpoint_best.pth")
    assert best["epoch"] == int(np.argmax(values))
    assert best["run"]["best"] == {"checkpoint_best.pth": max(values)}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert len(manifest["data"]) == 2, "the files of training and of the validation"


def test_groups_of_parameters_keep_their_rates(tmp_path):
    rates = "optimizer.rates={img_backbone.0: 1e-5, lang_backbone: 2e-5}"
    schedule = "schedule={name: multistep, drop_epochs: [1]}"
    overrides = [*short(2, 1), rates, schedule, "optimizer.lr=1e-3"]
    run_training(BOXES, tmp_path, overrides=overrides)
    for number, factor in enumerate((1, 0.1)):
        groups = read_checkpoint(tmp_path / f"checkpoint_0{number}.pth")["optimizer"]
        found = [group["lr"] for group in groups["param_groups"]]
        assert found == pytest.approx([1e-3 * factor, 1e-5 * factor, 2e-5 * factor])


def test_a_curriculum_comes_first_and_under_the_same_schedule(tmp_path, embedded):
    easy = embedded / "vg/train_1.json"
    data = f"format: vg, train: {{easy: {easy}}}, image_root: {embedded}/images"
    stage = f"{{{data}, epochs: 2, steps: 1}}"
    overrides = ["epochs=1", "steps=2", f"curriculum=[{stage}]"]
    run_training(BOXES, tmp_path, overrides=[*overrides, "schedule.warmup_epochs=0"])
    assert [row["step"] for row in lines(tmp_path, "epoch")] == [1, 1, 2]
    factors = [(1 + np.cos(np.pi * share)) / 2 for share in (0, 1 / 3, 5 / 6)]
    rates = [row["lr"] for row in lines(tmp_path, "epoch")]
    assert rates == pytest.approx([rates[0] * factor for factor in factors])
    assert len(lines(tmp_path, "validation")) == 3
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert str(easy) in manifest["data"]


@pytest.mark.parametrize(
    "lengths",
    [
        short(2, 3),
        ["stages=[{epochs: 1, steps: 3}, {sentences_at_once: 1}]", "epochs=1", "steps=3"],
    ],
    ids=["one stage", "several sentences, then one"],
)
def test_a_stopped_run_goes_on_exactly(tmp_path, lengths):
    whole = run_training(BOXES, tmp_path / "whole", overrides=lengths)
    stopped = tmp_path / "stopped"
    shutil.copytree(whole, stopped)
    (stopped / "checkpoint_01.pth").unlink()
    run_training(BOXES, stopped, "--resume", overrides=lengths)
    for name in ("checkpoint_01.pth", "checkpoint_best.pth"):
        ours, theirs = (read_checkpoint(folder / name) for folder in (stopped, whole))
        assert all(torch.equal(ours["model"][key], theirs["model"][key]) for key in theirs["model"])
        assert ours["run"]["best"] == theirs["run"]["best"]
    assert lines(stopped, "validation") == lines(whole, "validation")


def _train(out: Path) -> None:
    torch.set_num_threads(1)
    for config in (MASKS, PHRASES):
        run_training(config, out / config.stem)


def test_two_processes_train_together(tmp_path):
    start_group(_train, tmp_path)
    for config in (MASKS, PHRASES):
        assert lines(tmp_path / config.stem, "validation")
        manifest = json.loads((tmp_path / config.stem / "manifest.json").read_text())
        assert manifest["world_size"] == 2


def test_segmentation_starts_from_a_detection_checkpoint(runs, tmp_path):
    checkpoint = runs[BOXES] / "checkpoint_best.pth"
    run_training(MASKS, tmp_path, "--checkpoint", checkpoint, overrides=["optimizer.lr=1e-12"])
    ours, theirs = (
        read_checkpoint(f)["model"] for f in (tmp_path / "checkpoint_00.pth", checkpoint)
    )
    weights = [key for key in theirs if not key.endswith(STATISTICS)]
    for key in weights:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-4, atol=1e-6)
    assert any(key.startswith("mask_head.") for key in ours)


# --- evaluation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("config", TINY, ids=lambda path: path.stem)
def test_evaluation_writes_the_one_schema(runs, config, tmp_path):
    settings = load_config(config)
    rows = run_evaluation(config, runs[config] / "checkpoint_best.pth", tmp_path)
    assert read_rows(tmp_path / "results.json") == rows
    for row in rows:
        assert list(row) == RESULT_KEYS and row["benchmark"] == settings.benchmark
        assert row["n"] > 0 and row["split"] in settings.data.evaluate
        points = row["metric"].startswith("pointing")
        assert row["derived"] == (points and row["system"] == "RefTR")
    protocol = " (merged box)" if settings.data.merged_boxes else ""
    assert {row["metric"] for row in rows if row["system"] == "centre"} == {f"pointing{protocol}"}
    assert {f"pointing{protocol}", f"Acc@0.5{protocol}", f"box IoU{protocol}"} <= metrics_of(rows)
    masks = {"mIoU", "oIoU", "mIoU (resized)", *(f"Prec@0.{n}" for n in range(5, 10))}
    assert (masks <= metrics_of(rows)) == settings.model.masks
    assert report([str(tmp_path), "--out", str(tmp_path / "again")]) == rows
    assert read_rows(tmp_path / "again" / "results.json") == rows
    assert "<table>" in (tmp_path / "index.html").read_text()


def test_every_expression_has_a_prediction_of_its_own(runs, tmp_path, embedded):
    run_evaluation(BOXES, runs[BOXES] / "checkpoint_best.pth", tmp_path)
    (file,) = tmp_path.rglob("predictions_*.jsonl")
    _, predictions = read_predictions(file)
    expected = sum(
        len(torch.load(embedded / f"annotations_resc/unc+/unc+_{split}.pth", weights_only=True))
        for split in ("val", "testA", "testB")
    )
    assert len(predictions) == len({one.id for one in predictions}) == expected


def test_a_folder_of_checkpoints_and_a_choice_of_splits(runs, tmp_path):
    rows = run_evaluation(BOXES, runs[BOXES], tmp_path, "--split", "testA")
    names = {row["checkpoint"] for row in rows if row["system"] == "RefTR"}
    assert names == {"checkpoint_00.pth", "checkpoint_01.pth", "checkpoint_best.pth"}
    assert {row["split"] for row in rows} == {"testA"}
    assert run_evaluation(BOXES, runs[BOXES], tmp_path, "--split", "testA") == rows


def test_a_split_without_annotation_is_named(runs, tmp_path):
    checkpoint = runs[BOXES] / "checkpoint_best.pth"
    message = error_of(lambda: run_evaluation(BOXES, checkpoint, tmp_path, "--split", "testC"))
    assert "'testC': the configuration has no annotation of it" in message
    overrides = ["data.evaluate.val=annotations_resc/unc+/unc+_none.pth"]
    message = error_of(lambda: run_evaluation(BOXES, checkpoint, tmp_path, overrides=overrides))
    assert "unc+_none.pth does not exist" in message


def test_a_detection_checkpoint_cannot_be_evaluated_for_masks(runs, tmp_path):
    checkpoint = runs[BOXES] / "checkpoint_best.pth"
    assert "mask_head" in error_of(lambda: run_evaluation(MASKS, checkpoint, tmp_path))


def _evaluate(checkpoint: Path, out: Path) -> None:
    torch.set_num_threads(1)
    # One image at a time: what an image is padded to then does not depend on its neighbours.
    run_evaluation(BOXES, checkpoint, out, "--split", "val", overrides=["batch_size=1"])


def test_two_processes_give_the_rows_of_one(runs, tmp_path):
    checkpoint = runs[BOXES] / "checkpoint_best.pth"
    start_group(_evaluate, checkpoint, tmp_path / "two")
    _evaluate(checkpoint, tmp_path / "one")
    one, two = (read_rows(tmp_path / name / "results.json") for name in ("one", "two"))
    assert [row["n"] for row in one] == [row["n"] for row in two]
    for ours, theirs in zip(one, two, strict=True):
        assert ours["value"] == pytest.approx(theirs["value"], abs=1e-3), ours["metric"]
    ids = [
        [p.id for p in read_predictions(next((tmp_path / name).rglob("*.jsonl")))[1]]
        for name in ("one", "two")
    ]
    assert ids[0] == ids[1]


def test_flickr30k_with_all_boxes_names_both_protocols(runs, tmp_path, embedded):
    folder = embedded / "flickr30k"
    overrides = ["data.format=flickr30k", f"data.evaluate={{test: {folder}}}"]
    checkpoint = runs[PHRASES] / "checkpoint_best.pth"
    more = ["data.merged_boxes=false", "select=null", *overrides]
    rows = run_evaluation(PHRASES, checkpoint, tmp_path, overrides=more)
    assert {"Acc@0.5 (any box)", "Acc@0.5 (merged box)"} <= metrics_of(rows)
    values = {row["metric"]: row["value"] for row in rows if row["system"] == "RefTR"}
    assert values["box IoU (any box)"] != values["box IoU (merged box)"]


# --- published commands ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", published_reftr.PUBLISHED)
def test_every_published_configuration_is_one_of_ours(name, runs):
    flags = ["--eval", "--resume", str(runs[BOXES] / "checkpoint_best.pth")]
    for more in ([], flags):
        args, rest = published_reftr.parse_args([f"configs/{name}.sh", *more])
        path, extra = published_reftr.choose(args)
        assert not rest and path in RECIPES
        config = load_config(path, extra)
        backbone = "resnet101" if "101" in name else "resnet50"
        assert config.model.backbone.name == backbone
        if "101" in name:
            assert "detr-r50" not in str(config.model.init.detr)


def test_an_evaluation_takes_the_stage_of_its_checkpoint(runs):
    name = "configs/refcoco/RefTR_refcoco.sh"
    for config, expected in ((BOXES, "refcoco"), (MASKS, "refcoco_res")):
        checkpoint = runs[config] / "checkpoint_best.pth"
        args, _ = published_reftr.parse_args([name, "--eval", f"--resume={checkpoint}"])
        assert published_reftr.choose(args)[0].stem == expected


@pytest.mark.parametrize(
    ("flags", "rates", "factors", "lr"),
    [
        ([], 1e-5, 10, 1e-5),
        (["--lr", "2e-5"], 1e-5, 10, 2e-5),
        (["--lr_backbone=3e-5", "--lr_mask_branch_proj=4"], 3e-5, 4, 1e-5),
    ],
)
def test_published_rates_are_those_of_their_parts(flags, rates, factors, lr):
    args, _ = published_reftr.parse_args(["configs/refcoco/RefTR_refcoco.sh", "--masks", *flags])
    path, _ = published_reftr.choose(args)
    settings = reftr_flags.overrides_of(args, load_config(path))
    optimizer = load_config(path, settings).optimizer
    assert optimizer.rates == {"img_backbone.0": rates, "lang_backbone": rates}
    assert optimizer.factors == {"bbox_attention": factors, "mask_head": factors}
    assert optimizer.peaks["mask_head"] == pytest.approx(factors * lr)


def test_a_model_without_masks_has_no_rate_of_masks():
    name = "configs/refcoco/RefTR_refcoco.sh"
    args, _ = published_reftr.parse_args([name, "--lr_mask_branch_proj=4"])
    config = load_config(published_reftr.choose(args)[0])
    assert reftr_flags.overrides_of(args, config) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (False, None)),
        ({"checkpoint": "a.pth"}, (False, "a.pth")),
        ({"resume": "True"}, (True, None)),
        ({"resume": "True", "checkpoint": "a.pth"}, (True, "a.pth")),
        ({"resume": "a.pth"}, (True, "a.pth")),
        ({"resume": "a.pth", "resume_model_only": True}, (False, "a.pth")),
        ({"resume": "True", "checkpoint": "a.pth", "resume_model_only": True}, (False, "a.pth")),
    ],
)
def test_a_run_goes_on_or_takes_weights_only(given, expected):
    args = {"resume": None, "checkpoint": None, "resume_model_only": False} | given
    assert training_job.origin(argparse.Namespace(**args)) == expected


def test_the_origin_of_a_run_must_be_one_file(tmp_path):
    start = ["--config", str(BOXES), "--output_dir", str(tmp_path), "--device", "cpu"]
    with pytest.raises(ValueError, match="a run has one origin"):
        train.main([*start, "--resume", "a.pth", "--checkpoint", "b.pth"])
    with pytest.raises(ValueError, match="--resume_model_only takes the weights of --resume FILE"):
        train.main([*start, "--resume", "--resume_model_only"])


def test_the_published_command_trains_and_evaluates(tmp_path):
    flags = ["--device", "cpu", "--output_dir", str(tmp_path), "--batch_size=4", "--epochs", "1"]
    settings = ["--set", *QUICK[:3], "precision=fp32", "steps=1"]
    published_reftr.main([str(BOXES), *flags, *settings])
    checkpoint = f"--resume={tmp_path / 'checkpoint_best.pth'}"
    rows = published_reftr.main([str(BOXES), "--eval", checkpoint, *flags, *settings])
    assert "Acc@0.5" in metrics_of(rows)
    flags[3] = str(tmp_path / "further")
    published_reftr.main([str(BOXES), checkpoint, "--resume_model_only", *flags, *settings])
    assert (tmp_path / "further/checkpoint_00.pth").is_file()


def test_unknown_published_names_and_evaluations_of_nothing_are_refused():
    with pytest.raises(SystemExit, match="no published RefTR configuration; there are flickr30k/"):
        run_script(lambda: published_reftr.main(["configs/refcoco/RefTR.sh"]))
    with pytest.raises(SystemExit, match="name it with --resume=CHECKPOINT"):
        run_script(lambda: published_reftr.main(["configs/refcoco/RefTR_refcoco.sh", "--eval"]))

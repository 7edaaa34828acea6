"""Data of one's own, as tools/prepare_own.py makes them: every recipe takes them, systems learn
from them and are evaluated on them."""

import json
import shutil
from pathlib import Path

import pytest

import compare
import Pretrain_vg
import test
import train
import train_detector
from groundwork.report.pages import CHANCE
from groundwork.settings import load_config
from groundwork.settings.roots import root_overrides
from groundwork.tools import calibrate, check_data, make_paraphrases, prepare_own
from tests.helpers import own_lists, script_runs
from tests.helpers.dataset_files import write_image, write_json
from tests.helpers.script_runs import CONFIGS, error_of


@pytest.fixture(scope="module")
def own(tiny_data, tmp_path_factory) -> Path:
    """From JSON lines, with masks and phrases of nothing."""
    return own_lists.prepared("jsonl", tiny_data, tmp_path_factory.mktemp("own"))


SHIPPED = sorted(
    path
    for path in CONFIGS.rglob("*.yaml")
    if "system:" in path.read_text(encoding="utf-8") or path.parent.name != "configs"
    if path.stem not in ("base", "model", "res", "training", "data", "detector", "coco")
)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_recipe_takes_it(path, own):
    config = load_config(path, root_overrides(own), purpose="training")
    assert config.benchmark == "own" and config.data.format == "phrases"
    names = ["train.jsonl", *["train_nothing.jsonl"] * config.model.several_targets]
    assert config.data.train["train"] == tuple(str(own / name) for name in names)
    assert set(config.data.evaluate) == {"val", "test"} == set(config.evaluated_splits)
    assert config.select is None or config.select.splits == ("val",)
    assert all(alone.data.format == "phrases" for alone in config.of_stages)


def test_what_is_said_by_hand_wins(own):
    config = load_config(
        CONFIGS / "reftr/refcoco.yaml",
        [*root_overrides(own), "data.train.train=mine.jsonl", "data.opener=opencv"],
    )
    assert config.data.train == {"train": ("mine.jsonl",)} and config.data.opener == "opencv"


TINY = CONFIGS / "tiny"
BOXES = (
    "data.image_size=48", "data.max_image_size=48", "precision=fp32", "epochs=1", "steps=2",
)  # fmt: skip
# recipe -> what makes it small, the metric of its rows.
LEARNERS = {
    "Pretrain_vg_amc": (("stages.0.epochs=1", "stages.0.steps=2"), "pointing"),
    "reftr/refcoco+": ((*BOXES, "model.backbone.output_stride=32"), "Acc@0.5 (merged box)"),
    "simrec/refcoco+": (("data.image_size=96", "epochs=1", "steps=2"), "Acc@0.5 (merged box)"),
    "alvg/grefcoco": (("precision=fp32", "epochs=1", "steps=2"), "F1"),
}


def call(recipe: str, out: Path, data: Path, *more: str, overrides=()) -> list[str]:
    start = ["--config", str(TINY / f"{recipe}.yaml"), "--output_dir", str(out), "--device", "cpu"]
    return [*start, "--data", str(data), *more, "--set", *script_runs.QUICK, *overrides]


@pytest.mark.parametrize("recipe", LEARNERS)
@pytest.mark.usefixtures("embedded")
def test_a_system_trains_and_is_evaluated_on_it(recipe, own, tmp_path):
    short, metric = LEARNERS[recipe]
    assert (
        check_data.main([str(TINY / f"{recipe}.yaml"), "--data", str(own), "--workers", "1"]) == 0
    )
    train.main(call(recipe, tmp_path / "run", own, overrides=short))
    checkpoint = next((tmp_path / "run").glob("checkpoint_*.pth"))
    evaluated = "Grounding_refcoco" if metric == "pointing" else recipe
    small = () if metric == "pointing" else short
    rows = test.main(
        call(evaluated, tmp_path / "results", own, "--checkpoint", str(checkpoint), overrides=small)
    )
    (row,) = [
        one
        for one in rows
        if one["split"] == "test" and one["metric"] == metric and one["system"] not in CHANCE
    ]
    placed, nothing = (
        sum(1 for _ in (own / f"test{kind}.jsonl").open()) for kind in ("", "_nothing")
    )
    assert row["benchmark"] == "own"
    assert row["n"] == placed + (nothing if metric == "F1" else 0)


def test_the_old_benchmark_is_measured_before_and_after(own, embedded, trained, tmp_path, capsys):
    """docs/own_data.md: what fine-tuning on one's own data does to what the model could do."""
    before = trained / "checkpoint_01.pth"
    short, _ = LEARNERS["Pretrain_vg_amc"]
    more = ("--checkpoint", str(before))
    Pretrain_vg.main(call("Pretrain_vg_amc", tmp_path / "run", own, *more, overrides=short))
    after = next((tmp_path / "run").glob("checkpoint_*.pth"))
    for name, data in (("own", own), ("old", embedded)):
        for when, file in (("before", before), ("after", after)):
            out = tmp_path / name / when
            test.main(call("Grounding_refcoco", out, data, "--checkpoint", str(file)))
        folders = [str(tmp_path / name / when) for when in ("before", "after")]
        lines = compare.main([*folders, "--out", str(tmp_path / name)])
        splits = {"own": {"val", "test"}, "old": {"val", "testA", "testB"}}[name]
        assert {f"split: {split}" for split in splits} <= {line.name for line in lines}
        assert (tmp_path / name / "index.html").is_file()
    assert "pointing" in capsys.readouterr().out


def test_selfeq_asks_for_paraphrases_and_takes_them(own, embedded, tmp_path):
    table = json.loads((embedded / "synonyms.json").read_text())
    known = {word: others["seen"] for word, others in table.items()}
    synonyms = write_json(tmp_path / "synonyms.json", known)
    short = ("stages.0.epochs=1", "stages.0.steps=1", "stages.1.epochs=1", "stages.1.steps=1")
    arguments = call("Pretrain_vg", tmp_path / "run", own, overrides=short)
    message = error_of(lambda: train.main(arguments))
    assert "relation.jsonl do not exist" in message and "make_paraphrases" in message
    relation = own / "relation.jsonl"
    rules = ["--format", "phrases", "--out", str(relation), "--rules", str(synonyms)]
    make_paraphrases.main([str(own / "train.jsonl"), *rules])
    try:
        train.main(arguments)
    finally:
        relation.unlink()
    assert list((tmp_path / "run").glob("checkpoint_*.pth"))


@pytest.mark.usefixtures("embedded")
def test_phrases_of_nothing_calibrate_a_system_that_does_not_learn_them(own, tmp_path):
    shipped = CONFIGS.parent / "checkpoints" / "quickstart_amc"
    checkpoint = Path(shutil.copytree(shipped, tmp_path / "amc"))
    (checkpoint / "present.json").unlink()
    lists = ", ".join(str(own / f"val{kind}.jsonl") for kind in ("", "_nothing"))
    found = calibrate.main(
        ["--checkpoint", str(checkpoint), "--config", str(TINY / "Grounding_refcoco.yaml"),
         "--data", str(own), "--device", "cpu", "--set", f"data.evaluate.val=[{lists}]"]
    )  # fmt: skip
    assert 0 < found.threshold < 1 and (checkpoint / "present.json").is_file()


@pytest.mark.usefixtures("embedded")
def test_captions_are_learnt_and_never_evaluated(tiny_data, tmp_path):
    own = own_lists.prepared("mdetr", tiny_data, tmp_path)
    assert (own / "train_texts.jsonl").is_file()
    assert not any((own / f"{split}_texts.jsonl").exists() for split in ("val", "test"))
    config = load_config(TINY / "Pretrain_vg_amc.yaml", root_overrides(own))
    assert str(own / "train_texts.jsonl") in config.data.train["train"]
    short, _ = LEARNERS["Pretrain_vg_amc"]
    train.main(call("Pretrain_vg_amc", tmp_path / "run", own, overrides=short))
    boxes = load_config(TINY / "reftr/refcoco+.yaml", root_overrides(own))
    assert boxes.data.train["train"] == (str(own / "train.jsonl"),)


@pytest.mark.usefixtures("embedded")
def test_captions_alone_are_all_for_training(tmp_path):
    images = [write_image(tmp_path / f"{number}.jpg", seed=number) for number in range(4)]
    rows = [{"id": number, "file_name": image.name} for number, image in enumerate(images)]
    said = [{"image_id": number, "caption": "a red circle"} for number in range(4)]
    given = write_json(tmp_path / "captions.json", {"images": rows, "annotations": said})
    own = tmp_path / "own"
    prepare_own.main([str(given), "--out", str(own)])
    assert [path.name for path in own.glob("*.jsonl")] == ["train_texts.jsonl"]
    config = load_config(TINY / "Pretrain.yaml", root_overrides(own))
    assert config.benchmark is None and config.select is None
    short, _ = LEARNERS["Pretrain_vg_amc"]
    train.main(call("Pretrain", tmp_path / "run", own, overrides=(*short, "batch_size=2")))
    message = error_of(lambda: train.main(call("Pretrain_vg_amc", tmp_path / "amc", own)))
    assert "none of 4 phrases has a box, without which amc learns nothing" in message


@pytest.mark.usefixtures("embedded")
def test_the_parts_of_a_caption_are_answered_together(tiny_data, tmp_path):
    own = own_lists.prepared("mdetr", tiny_data, tmp_path)
    short, _ = LEARNERS["reftr/refcoco+"]
    train.main(call("reftr/flickr30k", tmp_path / "run", own, overrides=short))
    assert list((tmp_path / "run").glob("checkpoint_*.pth"))


def test_a_detector_does_not_learn_from_phrases(own):
    message = error_of(
        lambda: train_detector.main(
            ["--config", str(TINY / "detector.yaml"), "--data", str(own), "--device", "cpu"]
        )
    )
    assert "a detector learns from objects" in message

"""RefCLIP through train.py, test.py and train_detector.py, on the embedded data set."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import test
import train
import train_detector
from groundwork.dataset.formats import entries
from groundwork.models.common.checkpoint import CheckpointError, read_checkpoint
from groundwork.report.prediction_files import read_predictions
from groundwork.settings import load_config
from tests.helpers.script_runs import CONFIGS, error_of

REFCLIP = CONFIGS / "refclip"
TINY, DETECTOR = CONFIGS / "tiny/refclip/refcoco+.yaml", CONFIGS / "tiny/detector.yaml"
RECIPES = [*sorted(path for path in REFCLIP.glob("*.yaml") if path.stem != "base"), TINY]
QUICK = (
    "data.workers=0", "data.image_size=64", "batch_size=4", "log_every=1", "epochs=2", "steps=2",
    "model.detector.width=2", "model.cells=3", "model.fusion_width=16", "model.width=16",
    "model.text.word_width=8",
)  # fmt: skip
RANDOM = "model.init.detector=null"
pytestmark = pytest.mark.usefixtures("embedded")


def arguments(out: Path, *more: object, overrides=(RANDOM,)) -> list[str]:
    start = ["--config", str(TINY), "--output_dir", str(out), "--device", "cpu"]
    return [*start, *map(str, more), "--set", *QUICK, *overrides]


def run_training(out: Path, *more: object, overrides=(RANDOM,)) -> Path:
    train.main(arguments(out, *more, overrides=overrides))
    return out


def weights(file: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(file)["model"]


def assert_same(first: Path, second: Path) -> None:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@pytest.fixture(scope="module")
def trained_refclip(workplace, tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        return run_training(tmp_path_factory.mktemp("refclip") / "run")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_says_what_it_buys(path):
    config = load_config(path)
    head = path.read_text(encoding="utf-8").splitlines()[:6]
    for key in ("Paper:", "Command:", "Hardware:", "Cost:", "Expected:"):
        assert any(line.startswith(f"# {key}") for line in head), f"{path.name} lacks {key}"
    assert str(path.relative_to(CONFIGS.parent)) in head[2] and not config.model.needs_boxes
    if path != TINY:
        assert (config.ema, config.clip_norm, config.epochs) == (0.9997, 0.15, 25)
        referit = path.stem == "referit"
        assert (config.model.cells, config.model.text.layers) == ((34, 1) if referit else (17, 3))
        assert config.data.max_tokens == (20 if referit else 15)
        assert config.batch_size == 64 and config.data.one_per_object
    published = path != TINY
    assert (config.model.detector.batch_norm == "train") == published
    assert config.model.across_processes != published


def test_training_writes_what_an_evaluation_needs(trained_refclip, tmp_path):
    content = read_checkpoint(trained_refclip / "checkpoint_01.pth")
    words = (trained_refclip / "words.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert content["vocabulary"] == words and words[:3] == ["PAD", "UNK", "CLS"]
    assert len(weights(trained_refclip / "checkpoint_best.pth")) == len(content["model"])
    more = ("--eval-weights", trained_refclip / "checkpoint_best.pth", "--split", "val")
    rows = test.main(arguments(tmp_path, *more))
    ours = {row["metric"]: row for row in rows if row["system"] == "RefCLIP"}
    assert {"Acc@0.5", "Acc@0.5 (best of the selected cells)", "Acc@0.5 (best of the chosen cell)",
            "Acc@0.5 (likeliest object)", "pointing"} <= ours.keys()  # fmt: skip
    best = [ours[f"Acc@0.5{name}"]["value"] for name in
            ("", " (best of the chosen cell)", " (best of the selected cells)")]  # fmt: skip
    assert best == sorted(best) and ours["Acc@0.5"]["objective"] == "REC without boxes"
    (file,) = tmp_path.rglob("predictions_*.jsonl")
    _, predictions = read_predictions(file)
    assert {"similarity", "margin", "objectness"} == predictions[0].confidence.keys()
    assert len(predictions[0].alternatives) == 3


def test_a_resumed_run_ends_as_if_nothing_had_happened(trained_refclip, tmp_path):
    content = read_checkpoint(trained_refclip / "checkpoint_00.pth")
    raw, mean = content["run"]["average"]["weights"], content["model"]
    assert not torch.equal(raw["linear_ts.weight"], mean["linear_ts.weight"])
    again = tmp_path / "run"
    again.mkdir()
    for name in ("checkpoint_00.pth", "log.txt", "words.txt"):
        shutil.copy(trained_refclip / name, again / name)
    run_training(again, "--resume")
    assert_same(again / "checkpoint_01.pth", trained_refclip / "checkpoint_01.pth")


def poisoned(embedded: Path, folder: Path, box) -> Path:
    """The annotation file with other boxes in its training split."""
    content = entries.load_json(embedded / "anns" / "refcoco+.json")
    for entry in content["train"]:
        entry["bbox"] = box(entry["bbox"])
    file = folder / "refcoco+.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


@pytest.mark.parametrize("box", [lambda _: [0.0, 0.0, 1.0, 1.0], lambda _: [5e6, 5e6, 3.0, 3.0]])
def test_boxes_of_the_training_split_are_not_looked_at(trained_refclip, embedded, tmp_path, box):
    file = poisoned(embedded, tmp_path, box)
    overrides = (RANDOM, f"data.train.train={file}")
    run = run_training(tmp_path / "run", overrides=overrides)
    assert_same(run / "checkpoint_01.pth", trained_refclip / "checkpoint_01.pth")


def test_every_epoch_draws_one_sentence_of_each_object(embedded):
    from groundwork.jobs import referring
    from groundwork.jobs.tokenizers import load_texts

    config = load_config(TINY)
    text = referring.text_rules(config, load_texts(config))
    dataset = referring.build_dataset(config, text, config.data.train, training=True)
    content = entries.load_json(embedded / "anns" / "refcoco+.json")["train"]
    assert len(dataset) == len(content)
    several = next(n for n, entry in enumerate(content) if len(entry["refs"]) > 1)
    drawn = {dataset[(epoch, several)].phrase[0] for epoch in range(20)}
    assert drawn == set(content[several]["refs"])
    sample = dataset[(0, several)]
    assert sample.boxes == [] and len(sample.target_boxes) == 0


def test_a_checkpoint_brings_its_words_and_refuses_others(trained_refclip, tmp_path, embedded):
    checkpoint = trained_refclip / "checkpoint_best.pth"
    config = (RANDOM, f"data.evaluate.val={tmp_path / 'refcoco+.json'}")
    content = entries.load_json(embedded / "anns" / "refcoco+.json")
    content["val"] = [{**entry, "refs": ["the unheard unicorn"]} for entry in content["val"][:3]]
    (tmp_path / "refcoco+.json").write_text(json.dumps(content), encoding="utf-8")
    more = ("--checkpoint", checkpoint, "--split", "val")
    rows = test.main(arguments(tmp_path / "own", *more, overrides=config))
    assert {row["n"] for row in rows if row["metric"] == "Acc@0.5"} == {3}
    stripped = {k: v for k, v in torch.load(checkpoint).items() if k != "vocabulary"}
    torch.save(stripped, tmp_path / "released.pth")
    more = ("--checkpoint", tmp_path / "released.pth", "--split", "val")
    message = error_of(lambda: test.main(arguments(tmp_path / "other", *more, overrides=config)))
    assert "its vocabulary has" in message and "words.txt" in message
    (tmp_path / "words.txt").write_bytes((trained_refclip / "words.txt").read_bytes())
    assert test.main(arguments(tmp_path / "beside", *more, overrides=config))


def test_word_vectors_and_the_cache_are_used(tmp_path, embedded, capsys):
    words = {word for entry in entries.load_json(embedded / "anns" / "refcoco+.json")["train"]
             for text in entry["refs"] for word in text.split()}  # fmt: skip
    lines = [f"{word} {' '.join(['0.25'] * 8)}\n" for word in sorted(words)]
    (tmp_path / "glove.txt").write_text("".join(lines), encoding="utf-8")
    overrides = (
        RANDOM, f"model.init.words={tmp_path / 'glove.txt'}", "model.text.train_words=false",
        f"model.cache.folder={tmp_path / 'cache'}", "steps=1", "epochs=1",
    )  # fmt: skip
    run = run_training(tmp_path / "run", overrides=overrides)
    assert "glove.txt: vectors for" in capsys.readouterr().err
    table = weights(run / "checkpoint_00.pth")["lang_encoder.embedding.weight"]
    assert (table == 0.25).all(dim=1).sum() == len(words)
    assert list((tmp_path / "cache").rglob("*.npz"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.detector.name=yolov9", "model.detector.name 'yolov9' does not exist"),
        ("model.detector.batch_norm=train model.cache.folder=x", "cache needs detector.batch_norm"),
        ("data.multi_phrase=true", "data.one_per_object and one_per_record: a sample has one"),
        ("model.masks=true", "model.masks: unknown key"),
        ("ema=1.5", "ema is 1.5; it must be in [0, 1)"),
        ("model.init.detector=nowhere.pth", "checkpoint not found: nowhere.pth"),
        ("model.init.words=nowhere.txt", "word vectors nowhere.txt do not exist"),
    ],
)
def test_wrong_settings_end_with_the_remedy(tmp_path, override, message):
    overrides = (RANDOM, *override.split())
    assert message in error_of(lambda: run_training(tmp_path, overrides=overrides))


# --- the detector ---------------------------------------------------------------------------------


def run_detector(out: Path, *more: str, overrides=()) -> Path:
    quick = ("data.workers=0", "data.image_size=64", "batch_size=4", "epochs=2", "steps=2",
             "detector.width=2", "log_every=1", "data.held_out=0.2")  # fmt: skip
    start = ["--config", str(DETECTOR), "--output_dir", str(out), "--device", "cpu"]
    train_detector.main([*start, *more, "--set", *quick, *overrides])
    return out


def test_a_detector_is_trained_without_evaluated_images_and_then_frozen(tmp_path, embedded, capsys):
    run = run_detector(tmp_path / "detector")
    content = json.loads((embedded / "refcoco+" / "instances.json").read_text())
    names = [image["file_name"] for image in content["images"]]
    evaluated = sum(not name.startswith("train/") for name in names)
    said = capsys.readouterr().err
    assert f"{evaluated} left out because they are evaluated on" in said
    checkpoint = run / "checkpoint_best.pth"
    model = run_training(tmp_path / "run", overrides=(f"model.init.detector={checkpoint}",))
    ours, frozen = weights(model / "checkpoint_01.pth"), weights(checkpoint)
    assert all(torch.equal(ours[f"visual_encoder.{name}"], v) for name, v in frozen.items())


def test_training_the_detector_resumes_and_warns_about_leakage(tmp_path, capsys):
    whole = run_detector(tmp_path / "whole")
    again = tmp_path / "again"
    again.mkdir()
    for name in ("checkpoint_00.pth", "log.txt"):
        shutil.copy(whole / name, again / name)
    run_detector(again, "--resume")
    assert_same(again / "checkpoint_01.pth", whole / "checkpoint_01.pth")
    assert "against the paper's rule" not in capsys.readouterr().err
    run_detector(tmp_path / "all", overrides=("data.evaluated=[]", "steps=1", "epochs=1"))
    assert "against the paper's rule" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("detector.classes=2", "has 6 categories, the detector 2; set detector.classes"),
        ("data.image_size=100", "it must be a multiple of 32"),
        ("detector.name=fcos_resnet50_fpn", "only yolov3 is trained here"),
        ("data.evaluated=nowhere.p", "nowhere.p"),
    ],
)
def test_wrong_settings_of_the_detector_end_with_the_remedy(tmp_path, override, message):
    assert message in error_of(lambda: run_detector(tmp_path, overrides=(override,)))


def test_labels_are_cocos_contiguous_ones(tmp_path):
    from groundwork.dataset.detection import DetectionDataset, read_instances

    content = {
        "images": [{"id": 7, "file_name": "a.jpg", "height": 40, "width": 80}],
        "annotations": [
            {"image_id": 7, "bbox": [10, 10, 20, 10], "category_id": 90},
            {"image_id": 7, "bbox": [70, 0, 30, 40], "category_id": 1},
            {"image_id": 7, "bbox": [0, 0, 80, 40], "category_id": 1, "iscrowd": 1},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}],
    }
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    instances = read_instances([file])
    assert instances.categories == ["person", "toothbrush"]
    (image,) = instances.images
    assert image.labels.tolist() == [1, 0] and image.boxes[1].tolist() == [70, 0, 80, 40]
    import cv2

    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((40, 80, 3), np.uint8))
    dataset = DetectionDataset(instances.images, str(tmp_path), 160)
    torch.testing.assert_close(
        dataset[0]["object_boxes"][0], torch.tensor([40.0, 40 + 30, 40.0, 20.0])
    )
    for epoch in range(4):
        boxes = dataset[(epoch, 0)]["object_boxes"]
        assert (boxes[:, :2] - boxes[:, 2:] / 2 > -1e-3).all() and (boxes < 161).all()


def test_checkpoints_are_exported_for_the_released_scripts(trained_refclip, tmp_path):
    from groundwork.tools import export_refclip

    checkpoint, out = trained_refclip / "checkpoint_best.pth", tmp_path / "det_best.pth"
    export_refclip.main([str(checkpoint), "--out", str(out)])
    released = torch.load(out, weights_only=True)
    assert set(released) == {"epoch", "state_dict", "optimizer", "scheduler", "lr"}
    assert_same(out, checkpoint)
    (tmp_path / "words.txt").write_bytes((trained_refclip / "words.txt").read_bytes())
    assert test.main(arguments(tmp_path / "out", "--eval-weights", out, "--split", "val"))
    message = error_of(lambda: export_refclip.main([str(out), "--out", str(tmp_path / "again")]))
    assert "is no checkpoint of RefCLIP or SimREC that was trained here" in message


@pytest.mark.parametrize(("system", "epoch"), [("refclip", 2), ("simrec", 1)])
def test_the_released_optimiser_and_scheduler_load_what_is_exported(
    trained_refclip, tmp_path, system, epoch
):
    from groundwork.tools import export_refclip

    run = trained_refclip
    if system == "simrec":
        frozen = ("data.workers=0", "data.image_size=64", "batch_size=8", "select=null")
        recipe = CONFIGS / "tiny/simrec/refcoco+.yaml"
        argv = ["--config", str(recipe), "--device", "cpu", "--output_dir", str(tmp_path / "run")]
        more = ("epochs=2", "steps=2", "model.backbone.train_from=8", "ema=0.5")
        train.main([*argv, "--set", *frozen, *more])
        run = tmp_path / "run"
    out = export_refclip.main([str(run / "checkpoint_01.pth"), "--out", str(tmp_path / "last.pth")])
    released = torch.load(out, weights_only=True)
    state = {k: v for k, v in released["state_dict"].items() if "embedding" not in k}
    # Theirs holds parameters that no loss reaches, too, and no frozen layers of the image network.
    prefixes = tuple(f"visual_encoder.model.{n}." for n in range(8))
    frozen = prefixes if system == "simrec" else ("visual_encoder.",)
    names = [k for k in state if not k.startswith(frozen) and "running" not in k]
    tensors = [torch.zeros(1, requires_grad=True) for k in names if "num_batches" not in k]
    optimizer = torch.optim.Adam(tensors, lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    optimizer.load_state_dict(released["optimizer"])
    scheduler.load_state_dict(released["scheduler"])
    optimizer.step()
    scheduler.step()
    assert released["epoch"] == epoch
    steps = torch.load(run / "checkpoint_01.pth", weights_only=True)["run"]["position"]
    assert scheduler.last_epoch == steps["global_step"] + 1
    assert released["lr"] == released["optimizer"]["param_groups"][0]["lr"]


def test_the_exported_rate_is_that_of_the_next_step(trained_refclip):
    from groundwork.tools import export_refclip

    content = torch.load(trained_refclip / "checkpoint_00.pth", weights_only=True)
    rows = [json.loads(line) for line in (trained_refclip / "log.txt").read_text().splitlines()]
    rates = {row["global_step"]: row["lr"] for row in rows if row["kind"] == "step"}
    done = content["run"]["position"]["global_step"]
    released = export_refclip.released_content(content, "checkpoint_00.pth")
    assert released["lr"] == pytest.approx(rates[done + 1])
    content["run"]["position"]["step"] = 1
    with pytest.raises(CheckpointError, match="was written within an epoch"):
        export_refclip.released_content(content, "last.ckpt")


def test_a_released_recipe_finds_its_data_in_the_published_tree(embedded):
    from groundwork.jobs import referring
    from groundwork.jobs.tokenizers import load_texts
    from groundwork.settings.roots import root_overrides

    overrides = [*root_overrides(embedded), "data.image_size=96"]
    config = load_config(REFCLIP / "refcoco+.yaml", overrides)
    text = referring.text_rules(config, load_texts(config))
    for files, training in ((config.data.train, True), (config.data.evaluate, False)):
        dataset = referring.build_dataset(config, text, files, training=training)
        collate = referring.collate(config, text, training=training)
        batch = collate([dataset[(0, 0)], dataset[(0, 1)]] if training else [dataset[0]])
        assert batch["image"].shape[1:] == (3, 96, 96)
        assert batch["text_ids"].shape[1] == config.data.max_tokens
        assert all(len(boxes) == (not training) for boxes in batch["target_boxes"])


def test_a_detector_of_torchvision_teaches_as_well(tmp_path):
    torchvision = (RANDOM, "model.detector.name=fcos_resnet50_fpn", "epochs=1", "steps=1")
    run = run_training(tmp_path / "run", overrides=(*torchvision, "select=null"))
    state = weights(run / "checkpoint_00.pth")
    assert "visual_encoder.network.backbone.fpn.inner_blocks.0.0.weight" in state
    more = ("--checkpoint", run / "checkpoint_00.pth", "--split", "val")
    assert test.main(arguments(tmp_path / "out", *more, overrides=torchvision))

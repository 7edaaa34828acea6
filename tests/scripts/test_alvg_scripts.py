"""ALVG from annotation files to results, with the real scripts; its text, files and rates."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

import quickstart
import test as test_script
import train as train_script
from groundwork.dataset.pieces import SentencePieces
from groundwork.dataset.referring.text import ReferringText
from groundwork.jobs.referring import build_dataset
from groundwork.scheduler import epoch_factor
from groundwork.settings import load_config
from tests.helpers.dataset_files import write_json

CONFIGS = Path(__file__).parents[2] / "configs" / "alvg"
TINY = CONFIGS.parent / "tiny" / "alvg"
SMALL = ["model.encoder.layers=1", "model.encoder.width=32", "model.width=32", "model.ffn=64",
         "model.encoder.stem_channels=8", "model.mask_channels=16", "data.workers=0",
         "batch_size=4", "epochs=1", "steps=2", "stages=[{}]"]  # fmt: skip
WANTED = {"refcoco+": "Acc@0.5", "refcoco+_res": "mIoU", "grefcoco": "cIoU"}


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("name", WANTED)
def test_a_tiny_run_trains_evaluates_and_shows_its_attention(tmp_path, name):
    config, run = str(TINY / f"{name}.yaml"), tmp_path / "run"
    train_script.main(["--config", config, "--work-dir", str(run), "--set", *SMALL])
    assert (run / "pieces.spm").is_file()
    best, out = str(run / "checkpoint_best.pth"), tmp_path / "results"
    common = ["--output_dir", str(out), "--split", "val", "--set", *SMALL]
    test_script.main(["--config", config, "--load-from", best, *common])
    rows = json.loads((out / "results.json").read_text())
    metrics = {row["metric"] for row in rows}
    assert WANTED[name] in metrics and all(row["n"] for row in rows)
    if name.startswith("grefcoco"):
        assert {"F1", "N-acc", "T-acc", "gIoU"} <= metrics and "pointing" not in metrics
        assert {row["system"] for row in rows} == {"ALVG", "nothing"}
    assert list(out.rglob("attentions_*.npz")) and list(out.glob("sheet_*.png"))


@pytest.mark.slow
def test_the_quick_start_goes_from_boxes_to_masks_to_any_number_of_targets(tmp_path):
    call = ["--parts", "alvg", "--out", str(tmp_path / "run"), "--data", str(tmp_path / "data")]
    few = ["data.workers=0", "batch_size=4", "epochs=1", "steps=2", "stages=[{}]"]
    rows = quickstart.main([*call, "--scenes", "60", "--set", *few])
    found = {(row["checkpoint"], row["metric"]) for row in rows if row["system"] == "ALVG"}
    wanted = {("alvg_rec.pth", "Acc@0.5"), ("alvg_res.pth", "mIoU"), ("alvg_grec.pth", "F1")}
    assert wanted <= found
    assert {row["split"] for row in rows} == {"testA", "testB"}
    assert (tmp_path / "run" / "index.html").read_text().count("<img") == 3


@pytest.mark.parametrize(
    "path", sorted([*CONFIGS.glob("*.yaml"), *TINY.glob("[!b]*.yaml")]), ids=lambda path: path.stem
)
def test_every_recipe_reads(path):
    if path.stem not in ("base", "large"):
        config = load_config(path)
        assert config.system == "alvg" and path.read_text().startswith("# ALVG")


RECIPES = [
    path for path in sorted(CONFIGS.glob("*.yaml"))
    if path.stem not in ("base", "large")
]  # fmt: skip


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_published_recipes_follow_the_release_and_our_own_do_not(path):
    released, own = (load_config(file) for file in (path, TINY / "refcoco+.yaml"))
    assert all(asdict(released.model.quirks).values())
    assert not any(asdict(own.model.quirks).values())
    for key, value in {
        "resampling": "opencv", "last_pixel_boxes": True, "stated_sizes": False,
        "one_per_record": True, "sampling": "orientation", "opener": "opencv",
    }.items():  # fmt: skip
        assert getattr(released.data, key) == value != getattr(own.data, key)
    assert released.inclusive_thresholds and not own.inclusive_thresholds
    masks = "checkpoint_best_masks.pth" in released.select.best
    assert masks == released.model.masks


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*_finetune.yaml")), ids=lambda p: p.stem)
def test_fine_tuning_starts_from_the_last_epoch_of_the_pre_training(path):
    before = load_config(CONFIGS / "large_pretrain_coco.yaml")
    last = f"runs/alvg/large_pretrain_coco/checkpoint_{before.epochs - 1:02d}.pth"
    config = load_config(path)
    assert config.model.init.alvg == last and config.model.init.beit3 is None
    assert "--checkpoint" not in path.read_text()


def test_visual_genomes_images_of_the_mixed_list_are_left_out(tmp_path):
    config = load_config(CONFIGS / "large_pretrain_mixed.yaml")
    kinds = ("coco", "vg", "visual-genome", "saiaprtc12", "flickr")
    entry = {"width": 9, "height": 6, "expressions": ["x"], "bbox": [1, 1, 3, 3]}
    entries = [entry | {"image_id": n, "data_source": kind} for n, kind in enumerate(kinds)]
    path = write_json(tmp_path / "instances.json", {"train": entries, "val": entries})
    text = ReferringText(SentencePieces.train(["x y z"], size=8), False, 20, 20)
    built = (build_dataset(config, text, {split: [path]}, training=training)
             for split, training in (("train", True), ("val", False)))  # fmt: skip
    trained, evaluated = (
        [data.expressions(i)[0][0].record_id for i in range(len(data))] for data in built
    )
    assert trained == ["0", "3", "4"] and len(evaluated) == 5


def test_pieces_have_the_ids_of_xlm_r(tmp_path):
    pieces = SentencePieces.train(["the red circle", "a blue star on the left"], size=40)
    ids = pieces("The RED, circle!")["input_ids"]
    assert ids == pieces("the red circle")["input_ids"]
    assert ids[0] == 0 and ids[-1] == 2 and min(ids[1:-1]) > 3 and max(ids) < len(pieces)
    assert pieces("\u4e16")["input_ids"][-2] == 3 and pieces("?!")["input_ids"] == [0, 2]
    assert len(pieces("the red circle " * 9, truncation=True, max_length=8)["input_ids"]) == 8
    pieces.save(tmp_path / "own.spm")
    assert SentencePieces.read(tmp_path / "own.spm") == pieces
    (tmp_path / "broken.spm").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no SentencePiece model"):
        SentencePieces.read(tmp_path / "broken.spm")
    with pytest.raises(FileNotFoundError, match=r"beit3\.spm"):
        SentencePieces.read(tmp_path / "absent.spm")


def test_rates_change_between_epochs_as_released():
    factors = [epoch_factor(epoch, (25,), warmup=3) for epoch in (0, 1, 2, 3, 23, 24, 29)]
    assert factors == [0.25, 0.5, 0.75, 1, 1, 0.1, 0.1]

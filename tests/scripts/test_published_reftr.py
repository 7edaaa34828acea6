"""Each of RefTR's published flags does here what it does there, or says what does."""

import json
import logging

import pytest
import torch

from groundwork.jobs import evaluate, train
from groundwork.models.common.checkpoint import read_checkpoint
from groundwork.settings import RunConfig, load_config
from groundwork.tools import published_reftr, reftr_flags
from tests.helpers.published_tree import RELEASED
from tests.helpers.script_runs import CONFIGS

FLAGS = json.loads((RELEASED / "commands.json").read_text())["flags"]["RefTR/main_vg.py"]
OURS = {
    "masks", "output_dir", "device", "seed", "resume", "auto_resume", "resume_model_only", "eval",
}  # fmt: skip
BOXES, PHRASES, MASKS = (
    "refcoco/RefTR_refcoco",
    "flickr30k/RefTR_flickr",
    "refcoco+/RefTR_SEG_refcoco+",
)


@pytest.fixture
def commands(monkeypatch) -> list[list[str]]:
    """The command lines that train.py and test.py are given; nothing is run."""
    seen: list[list[str]] = []
    monkeypatch.setattr(train, "main", seen.append)
    monkeypatch.setattr(evaluate, "main", seen.append)
    handlers, level = logging.root.handlers[:], logging.root.level
    yield seen
    logging.root.handlers[:], logging.root.level = handlers, level


def run(commands: list[list[str]], *argv: str) -> tuple[dict[str, str], RunConfig]:
    """The flags that a published command gives to the script, and its configuration."""
    published_reftr.main([f"configs/{argv[0]}.sh", *argv[1:]])
    command = commands.pop()
    config = command[command.index("--config") + 1]
    end = command.index("--set") if "--set" in command else len(command)
    flags = {
        a: b for a, b in zip(command[:end], [*command[1:end], ""], strict=True) if a[:2] == "--"
    }
    given = command[end + 1 :]
    return flags, load_config(config, given)


def test_all_published_flags_and_configurations_are_known():
    names = {flag["flag"][0].removeprefix("--") for flag in FLAGS}
    tables = reftr_flags.VALUES, reftr_flags.LISTS, reftr_flags.SWITCHES
    known = {name for table in tables for name in table} | OURS | {"pretrained_model"}
    assert names == known and len(names) == 78
    for flag in FLAGS:
        name = flag["flag"][0].removeprefix("--")
        if name in reftr_flags.LISTS:
            assert flag["nargs"] == "+"
        assert (name in reftr_flags.SWITCHES or name in OURS) or "action" not in flag
    scripts = json.loads((RELEASED / "commands.json").read_text())["reftr_config_names"]
    assert {name.removesuffix(".sh") for name in scripts} == set(published_reftr.PUBLISHED)


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag["flag"][0])
def test_a_published_default_may_be_written_out(flag, commands):
    name, default = flag["flag"][0], flag["default"] if "default" in flag else None
    if (
        "action" in flag
        or default in (None, "")
        or name in ("--dataset", "--train_split", "--test_split")
    ):
        return
    if name == "--position_embedding_scale":
        default = 6.28
    values = map(str, default) if isinstance(default, list) else [str(default)]
    # The published default of levels never worked, and no configuration leaves it.
    values = ["1"] if name == "--num_feature_levels" else values
    run(commands, BOXES, name, *values)


@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [
        ("--lr 2e-5", "optimizer.lr", 2e-5),
        ("--img_size 320", "data.image_size", 320),
        ("--max_img_size 320", "data.max_image_size", 320),
        ("--backbone resnet101", "model.backbone.name", "resnet101"),
        ("--dilation", "model.backbone.output_stride", 16),
        ("--enc_layers 2", "model.encoder_layers", 2),
        ("--hidden_dim 128", "model.width", 128),
        ("--dim_feedforward 64", "model.ffn", 64),
        ("--max_lang_seq 64", "model.max_text_tokens", 64),
        ("--giou_loss_coef 2", "model.weights", {"giou": 2.0}),
        ("--clip_max_norm 0", "clip_norm", None),
        ("--clip_max_norm 0.5", "clip_norm", 0.5),
        ("--pretrained_model DETR.pth", "model.init.detr", "DETR.pth"),
        ("--bert_model words/", "data.text_encoder", "words/"),
        ("--bert_model roberta-base", "model.text.kind", "roberta"),
        ("--lr_drop 5", "schedule.drop_epochs", (5.0,)),
        ("--lr_schedule CosineWarmupLR", "schedule.name", "cosine"),
        ("--lr_schedule CosineWarmupLR", "schedule.warmup_epochs", 2.0),
        ("--lr_schedule CosineWarmupLR --warm_up_epoch 3", "schedule.warmup_epochs", 3.0),
        ("--lr_schedule MultiStepWarmupLR --lr_drop_epochs 4 8", "schedule.drop_epochs", (4., 8.)),
        ("--lr_backbone 0", "optimizer.rates", {"img_backbone.0": 0.0, "lang_backbone": 0.0}),
        ("--lr_backbone 0", "model.backbone.train_from", "nothing"),
        ("--masks --pretrained_model B.pth --ablation cem_loss", "model.weights", {"cem": 1.0}),
    ],
)  # fmt: skip
def test_a_flag_sets_its_key(flags, key, value, commands):
    _, config = run(commands, BOXES, *flags.split())
    found = config
    for name in key.split("."):
        found = getattr(found, name)
    assert found | value == found if isinstance(value, dict) else found == value


def test_a_schedule_reads_only_its_own_flags(commands):
    _, config = run(commands, PHRASES, "--lr_drop", "5")
    assert (config.schedule.name, config.schedule.warmup_epochs) == ("cosine", 5.0)
    _, config = run(commands, PHRASES, "--lr_schedule", "StepLR")
    assert (config.schedule.name, config.schedule.drop_epochs) == ("step", (40.0,))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--sgd", "--sgd: not here; AdamW is the only optimiser"),
        ("--no_decoder", "--set model.decoder_layers=N"),
        ("--dataset refcoco_unc", "--set data.train={split: [FILE]}"),
        ("--train_split train", "--set data.train={split: [FILE]}"),
        ("--test_split val testA", "--set select.splits=[SPLIT]"),
        ("--position_embedding learned", "model.position_temperature"),
        ("--reftr_type other", "data.multi_phrase"),
        ("--run_epoch 3", "go on with --resume"),
        ("--start_epoch 3", "--resume's checkpoint"),
        ("--ablation all", "cem_loss and none are"),
        ("--lr_bert_names bert", "--set optimizer.rates={PART: RATE}"),
        ("--lr_schedule Cosine", "legal are StepLR, MultiStepWarmupLR, CosineWarmupLR"),
        ("--lr_schedule MultiStepWarmupLR", "with --lr_drop_epochs"),
    ],
)
def test_what_is_not_here_names_what_is(flags, message, commands):
    with pytest.raises(ValueError) as caught:
        run(commands, BOXES, *flags.split())
    assert message in str(caught.value) and not commands


def test_flags_without_effect_are_said_once_with_the_reason(commands, capsys):
    run(commands, BOXES, "--two_stage", "--focal_alpha", "0.5", "--freeze_bert", "--ckpt_cycle=5")
    (line,) = capsys.readouterr().err.splitlines()
    assert "--focal_alpha, --two_stage (the published code does not use it either)" in line
    assert "model.backbone.train_from=nothing" in line and "--set keep=N" in line


def test_splits_of_an_evaluation(commands, tmp_path):
    file = tmp_path / "detection.pth"
    torch.save({"model": {}}, file)
    published_reftr.main(
        [f"configs/{BOXES}.sh", "--eval", f"--resume={file}", "--test_split", "val"]
    )
    command = commands.pop()
    assert command[command.index("--split") + 1] == "val"


def test_configurations_do_not_share_a_folder(commands):
    folders = [
        run(commands, name, *more)[0]["--output_dir"]
        for name, recipe in published_reftr.PUBLISHED.items()
        for more in ([[]] if recipe.config else [["--pretrained_model", "x.pth"]])
    ]
    assert len(set(folders)) == len(folders)
    assert {"runs/reftr/refcoco", "runs/reftr/refcoco_r101"} <= set(folders)


def test_a_stage_of_masks_starts_from_the_best_of_its_boxes(commands):
    flags, _ = run(commands, f"{BOXES}_101", "--masks")
    assert flags["--checkpoint"] == "runs/reftr/refcoco_r101/checkpoint_best.pth"
    assert flags["--output_dir"] == "runs/reftr/refcoco_res_r101"
    flags, _ = run(commands, MASKS, "--pretrained_model=boxes.pth")
    assert flags["--checkpoint"] == "boxes.pth"
    with pytest.raises(ValueError, match="name it with --pretrained_model=FILE"):
        run(commands, MASKS)
    flags, _ = run(commands, BOXES, "--resume", "x.pth", "--resume_model_only")
    assert flags["--resume"] == "x.pth" and "--resume_model_only" in flags


@pytest.mark.usefixtures("embedded")
def test_a_rate_of_zero_leaves_both_networks_as_they_are(tmp_path):
    short = ["--device", "cpu", "--epochs=1", "--batch_size=4", "--num_workers=0", "--img_size=48",
             "--max_img_size=48"]  # fmt: skip
    settings = ["--set", "steps=1", "select=null", "precision=fp32",
                "schedule={name: cosine}", "model.backbone.norm=frozen"]  # fmt: skip
    boxes = str(CONFIGS / "tiny/reftr/refcoco+.yaml")
    first = tmp_path / "first/checkpoint_00.pth"
    published_reftr.main([boxes, "--output_dir", str(first.parent), *short, *settings])
    go_on = [f"--resume={first}", "--resume_model_only", "--lr_backbone=0", "--lr=1e-3"]
    published_reftr.main([boxes, "--output_dir", str(tmp_path), *go_on, *short, *settings])
    before, after = (read_checkpoint(p)["model"] for p in (first, tmp_path / first.name))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any("_backbone." in name for name in changed)

"""ALVG's published commands: names of configurations, flags, --cfg-options."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from groundwork.settings import RunConfig, load_config
from groundwork.tools import published_alvg
from tests.helpers.published_tree import RELEASED
from tests.helpers.script_runs import CONFIGS

COMMANDS = json.loads((RELEASED / "commands.json").read_text())
NAMES = COMMANDS["alvg_config_names"]
BASE = "configs/single/ViT-base/refcoco/refcoco.py"
ROOT = Path(__file__).parents[2]


def settings(arguments: list[str]) -> RunConfig:
    overrides = arguments[arguments.index("--set") + 1 :] if "--set" in arguments else []
    return load_config(arguments[arguments.index("--config") + 1], overrides)


@pytest.mark.parametrize("name", NAMES)
def test_every_published_name_is_one_of_ours_or_names_the_nearest(name):
    key = name.removesuffix(".py")
    if key in published_alvg.PUBLISHED:
        assert published_alvg.resolve(f"configs/{name}").is_file()
        return
    with pytest.raises(ValueError, match="the nearest is configs/alvg/") as caught:
        published_alvg.resolve(f"./configs/{name}")
    assert (CONFIGS / str(caught.value).rpartition("configs/")[2]).is_file()


def test_no_published_name_is_missing():
    known = {*published_alvg.PUBLISHED, *published_alvg.WITHOUT_RECIPE}
    assert {name.removesuffix(".py") for name in NAMES} <= known and len(NAMES) == 51


@pytest.mark.parametrize(
    ("name", "benchmark", "epochs", "layers"),
    [
        ("single/ViT-base/grefcoco/grefcoco", "grefcoco", 250, 12),
        ("single/ViT-base/flickr30k/flicker30", "flickr30k", 30, 12),
        ("single/ViT-base/flickr30k/flickr30k", "flickr30k", 30, 12),
        ("single/ViT-large/refcocog/refcocog", "refcocog_umd", 30, 24),
        ("single/ViT-large/refcocoggoogle/refcocoggoogle", "refcocog_google", 30, 24),
        ("mix/ViT-large/pretrian-mixed", "mixed", 30, 24),
        ("mix/ViT-large/finetune_coco_all/noema#finetune#refcoco+", "refcoco+", 10, 24),
    ],
)
def test_a_published_name_is_that_training(name, benchmark, epochs, layers):
    config = settings(published_alvg.train_arguments(["--config", f"configs/{name}.py"]))
    assert (config.benchmark, config.epochs) == (benchmark, epochs)
    assert config.model.encoder.layers == layers


def test_names_that_nobody_published_are_refused():
    with pytest.raises(ValueError, match="no published ALVG configuration; there are single/"):
        published_alvg.resolve("configs/single/ViT-large/grefcoco/grefcoco.py")


def test_all_published_flags_are_taken():
    for script in ("train", "test"):
        given = []
        for flag in COMMANDS["flags"][f"ALVG/tools/{script}.py"]:
            value = {"--config": BASE, "--cfg-options": "seed=1", "--launcher": "pytorch"}
            name = flag["flag"][0]
            given += [] if name == "--finetune-from" else [name, value.get(name, "file.pth")]
        make = getattr(published_alvg, f"{script}_arguments")
        words = make(given)
        assert settings(words).seed == 1
        known = {"--resume": "file.pth", "--output_dir": "file.pth", "--load-from": "file.pth"}
        if script == "test":
            known = {"--checkpoint": "file.pth", "--output_dir": "runs/alvg/refcoco/results"}
        assert known.items() <= dict(zip(words[::2], words[1::2], strict=False)).items()
    start = ["--config", BASE, "--finetune-from", "a.pth"]
    assert published_alvg.train_arguments(start)[-2:] == ["--finetune-from", "a.pth"]
    assert "a.pth" in published_alvg.test_arguments(start)


def test_without_a_configuration_it_is_the_published_one():
    assert settings(published_alvg.train_arguments([])).benchmark == "grefcoco"


def test_options_set_what_they_set_there():
    options = (
        "data.samples_per_gpu=2 data.workers_per_gpu=0 img_size=320 max_token=12 ema=True"
        " grad_norm_clip=0.5 optimizer_config.lr=1e-4 scheduler_config.decay_steps=3,5"
        " scheduler_config.max_epoch=6 evaluate_interval=2 start_evaluate_epoch=4 use_fp16=True"
        " model.head.num_queries=2 model.head.score_attn_loss_weight=8 ema=False"
        " model.vis_enc.pretrain=beit.pth optimizer_config.betas=(0.9,0.99) precision=bf16"
    )
    start = ["--config", BASE, "--cfg-options", *options.split()]
    config = settings(published_alvg.train_arguments([*start, "--set", "log_every=7"]))
    assert (config.batch_size, config.data.workers, config.data.image_size) == (2, 0, 320)
    assert config.data.max_tokens == config.model.max_text_tokens == 12
    assert (config.clip_norm, config.ema, config.precision) == (0.5, None, "bf16")
    assert (config.optimizer.lr, config.optimizer.betas) == (1e-4, (0.9, 0.99))
    assert (config.schedule.drop_epochs, config.epochs) == ((3.0, 5.0), 6)
    assert (config.select.every, config.select.first, config.log_every) == (2, 4, 7)
    assert (config.model.queries, config.model.weights["score_attention"]) == (2, 8.0)
    assert config.model.init.beit3 == "beit.pth"


def test_dead_options_are_said_and_others_are_errors(capsys):
    assert published_alvg.overrides_of(["model.head.distill_type=hard"]) == []
    assert "model.head.distill_type (the released code ignores it" in capsys.readouterr().err
    with pytest.raises(ValueError, match="use --resume-from FILE"):
        published_alvg.overrides_of(["resume_from=a.pth"])
    with pytest.raises(ValueError, match="expected KEY=VALUE"):
        published_alvg.overrides_of(["seed"])
    start = ["--config", BASE, "--cfg-options", "model.head.colour=red"]
    with pytest.raises(ValueError, match=r"model.head: unknown key; did you mean 'heads'"):
        settings(published_alvg.train_arguments(start))


def test_the_published_script_ends_with_the_nearest_recipe(tmp_path):
    dead = "configs/mix/ViT-base/two-stage_distill_mix/noema#finetune#refcoco.py"
    command = [sys.executable, str(ROOT / "tools/train.py"), "--config", dead]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "token branch" in done.stderr and "configs/alvg/refcoco.yaml" in done.stderr

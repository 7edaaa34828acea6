"""The released flags of the five ALBEF scripts, and the launcher that adds one of them."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import grounding_eval_singlegpu
import grounding_eval_singlegpu_flickr
import grounding_eval_singlegpu_refclef
import Pretrain_coco
import Pretrain_vg
from groundwork.jobs import evaluate, train
from groundwork.jobs.launch_flags import adopt_launch_flags, truth
from tests.helpers.published_tree import RELEASED
from tests.helpers.tiny_runs import write_config

FLAGS = json.loads((RELEASED / "commands.json").read_text())["flags"]
SCRIPTS = {
    "SelfEQ/Pretrain_vg.py": (train, Pretrain_vg),
    "SelfEQ/Pretrain_coco.py": (train, Pretrain_coco),
    "AMC-grounding/Pretrain.py": (train, Pretrain_vg),
    "SelfEQ/grounding_eval_singlegpu.py": (evaluate, grounding_eval_singlegpu),
    "AMC-grounding/grounding_eval_singlegpu.py": (evaluate, grounding_eval_singlegpu),
    "SelfEQ/grounding_eval_singlegpu_flickr.py": (evaluate, grounding_eval_singlegpu_flickr),
    "SelfEQ/grounding_eval_singlegpu_refclef.py": (evaluate, grounding_eval_singlegpu_refclef),
}
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_flag_of_a_released_script_is_taken(name, monkeypatch):
    """With its published default written out, as text."""
    job, script = SCRIPTS[name]
    parse, seen = job.parse_args, []

    def parse_only(argv, **about):
        seen.append(parse(argv, **about))
        raise InterruptedError

    monkeypatch.setattr(job, "parse_args", parse_only)
    argv = ["--checkpoint", "x.pth"]
    for flag in FLAGS[name]:
        argv += flag["flag"]
        argv += [] if "action" in flag else [str(flag["default"] or flag["default"])]
    with pytest.raises(InterruptedError):
        script.main(argv)
    (args,) = seen
    assert (args.seed, args.device, args.distributed) == (42, "cuda", True)
    assert args.dist_url == "env://"


@pytest.mark.parametrize(
    ("given", "expected"),
    [([], False), (["--resume"], True), (["--resume", "True"], True), (["--resume=False"], False)],
)
def test_resume_is_a_switch_and_a_word(given, expected):
    args = train.parse_args([*given, "--output_dir", "x"], description="", config="c.yaml")
    assert args.resume is expected


def test_a_word_that_is_neither_is_refused():
    with pytest.raises(argparse.ArgumentTypeError):
        truth("perhaps")


def test_another_word_is_the_file_of_the_run_that_goes_on():
    args = train.parse_args(["--resume", "run/last.ckpt"], description="", config="c.yaml")
    assert (args.resume, args.checkpoint) == (True, "run/last.ckpt")


def adopted(*argv: str) -> dict[str, str]:
    args = train.parse_args(argv, description="", config="c.yaml")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            # Registered, so that what is set meanwhile is taken back.
            patch.setenv(name, "")
            del os.environ[name]
        adopt_launch_flags(args)
        return {
            k: os.environ[k]
            for k in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
            if k in os.environ
        }


@pytest.mark.parametrize("flag", ["--local_rank=3", "--local-rank=3"])
def test_the_rank_of_the_old_launcher_is_taken(flag):
    assert adopted(flag) == {"LOCAL_RANK": "3"}


def test_the_meeting_point_may_be_an_address():
    assert adopted() == adopted("--dist_url", "env://", "--world_size=8") == {}
    place = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "23456"}
    assert adopted("--dist_url", "tcp://10.0.0.1:23456") == place
    with pytest.raises(ValueError, match=r"use env:// or tcp://HOST:PORT"):
        adopted("--dist_url", "file:///tmp/x")


@pytest.mark.slow
def test_the_old_launcher_works_without_use_env(embedded, tmp_path):
    config = write_config(
        tmp_path / "c.yaml", embedded,
        stages=[{"objective": "itc_itm_mlm", "epochs": 1, "steps": 2}], log_every=1,
    )  # fmt: skip
    launcher = [sys.executable, "-W", "ignore", "-m", "torch.distributed.launch"]
    script = [str(ROOT / "Pretrain_vg.py"), "--config", str(config), "--device", "cpu"]
    more = ["--output_dir", str(tmp_path / "run"), "--resume", "False"]
    done = subprocess.run(
        [*launcher, "--nproc_per_node=2", "--master_port=29643", *script, *more],
        capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert (tmp_path / "run/checkpoint_00.pth").is_file() and manifest["world_size"] == 2

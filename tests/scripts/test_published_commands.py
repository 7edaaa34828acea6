"""Every command line of the published README files reaches the right job with the right meaning."""

import logging
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import grounding_eval_singlegpu
import grounding_eval_singlegpu_flickr
import grounding_eval_singlegpu_refclef
import Pretrain_coco
import Pretrain_vg
import test
import train
from groundwork.jobs import evaluate
from groundwork.jobs import train as training_job
from groundwork.tools import published_alvg, published_reftr
from tests.helpers.published_tree import RELEASED

LAUNCH = "python -m torch.distributed.launch --nproc_per_node=8 --use_env "
SLURM = "MASTER_PORT=29501 GPUS_PER_NODE=4 ./tools/run_dist_slurm.sh RefTR 4 "
SCRIPTS: dict[str, Callable[[list[str]], Any]] = {
    "Pretrain.py": Pretrain_vg.main,  # AMC's name of it
    "Pretrain_vg.py": Pretrain_vg.main,
    "Pretrain_coco.py": Pretrain_coco.main,
    "grounding_eval_singlegpu.py": grounding_eval_singlegpu.main,
    "grounding_eval_singlegpu_refclef.py": grounding_eval_singlegpu_refclef.main,
    "grounding_eval_singlegpu_flickr.py": grounding_eval_singlegpu_flickr.main,
    "train.py": train.main,
    "test.py": test.main,
    "tools/train.py": lambda argv: train.main(published_alvg.train_arguments(argv)),
    "tools/test.py": lambda argv: test.main(published_alvg.test_arguments(argv)),
    "./tools/run_dist_slurm.sh": lambda argv: published_reftr.main(argv[2:]),
    "tools/dist_train.sh": lambda argv: train.main(
        published_alvg.train_arguments(["--config", argv[0], "--launcher", "pytorch", *argv[2:]])
    ),
}
EVALUATIONS = ("grounding_eval_singlegpu", "grounding_eval_singlegpu_refclef",
               "grounding_eval_singlegpu_flickr")  # fmt: skip
FILES = {"grounding_eval_singlegpu": "refcoco", "grounding_eval_singlegpu_refclef": "refclef",
         "grounding_eval_singlegpu_flickr": "flickr"}  # fmt: skip
COMMANDS = [
    ("amc", "CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 " + LAUNCH + "Pretrain.py --config"
     " configs/Pretrain.yaml --output_dir ALBEF_Grounding --checkpoint ALBEF.pth"),
    ("selfeq", LAUNCH + "Pretrain_vg.py --config configs/Pretrain_vg.yaml --output_dir ALBEF_VG"
     " --checkpoint ALBEF.pth"),
    ("selfeq", LAUNCH + "Pretrain_coco.py --config configs/Pretrain_coco.yaml --output_dir"
     " ALBEF_COCO --checkpoint ALBEF.pth"),
    *((repository, f"CUDA_VISIBLE_DEVICES=1 python {script}.py --checkpoint {weights} --output_dir"
       f" {weights}/results --config configs/Grounding_{FILES[script]}.yaml")
      for repository, weights in (("amc", "ALBEF_Grounding"), ("amc", "best_flickr.pth"),
                                  ("selfeq", "ALBEF_VG"), ("selfeq", "checkpoint_vg.pth"))
      for script in EVALUATIONS),
    ("reftr", SLURM + "configs/flickr30k/RefTR_flickr.sh"),
    ("reftr", SLURM + "configs/flickr30k/RefTR_flickr.sh --eval"
     " --resume=./exps/flickr30k/checkpoint.pth"),
    *(("refclip", f"python train.py --config ./config/{name}.yaml")
      for name in ("refcoco", "refcoco+", "refcocog", "referit")),
    ("refclip", "python test.py --config ./config/refcoco.yaml --eval-weights det_best.pth"),
    *(("alvg", f"python tools/train.py --config configs/single/ViT-base/{name}/{name}.py")
      for name in ("refcoco", "refcocoplus", "refcocog", "refcocoggoogle", "flickr30k", "referit",
                   "grefcoco")),
    ("alvg", "bash tools/dist_train.sh configs/mix/ViT-large/pretrian-mixed.py 8"),
    ("alvg", "python tools/test.py --config configs/single/ViT-base/refcoco/refcoco.py --load-from"
     " best.pth"),
]  # fmt: skip


@pytest.fixture
def jobs(tmp_path, monkeypatch) -> list[dict[str, Any]]:
    """What the jobs are told to do; they do nothing."""
    seen: list[dict[str, Any]] = []

    def training(config, args, _):
        seen.append({"config": config, "start": args.checkpoint, "output": args.output_dir})

    def evaluation(job, *_, **__):
        about = {"start": str(job.checkpoints), "output": str(job.output_dir)}
        seen.append({"config": job.config, **about})
        return []

    monkeypatch.setattr(training_job, "run", training)
    monkeypatch.setattr(evaluate, "run", evaluation)
    monkeypatch.setattr(evaluate, "checkpoint_files", lambda path: [path])  # there are none here
    monkeypatch.chdir(tmp_path)
    handlers, level = logging.root.handlers[:], logging.root.level
    yield seen
    logging.root.handlers[:], logging.root.level = handlers, level


@pytest.mark.parametrize(("repository", "command"), COMMANDS)
def test_a_published_command_is_understood(repository, command, jobs):
    folder = "config" if repository == "refclip" else "configs"
    if (RELEASED / repository).is_dir():
        Path(folder).symlink_to(RELEASED / repository)
    words = shlex.split(command)
    place = next(i for i, word in enumerate(words) if word in SCRIPTS)
    argv = words[place + 1 :]
    given = dict(zip(argv, [*argv[1:], ""], strict=True))
    if "run_dist" in command and "--eval" in argv:
        Path("exps/flickr30k").mkdir(parents=True)
    SCRIPTS[words[place]](argv)
    (job,) = jobs
    if "--checkpoint" in given:
        assert (job["start"], job["output"]) == (given["--checkpoint"], given["--output_dir"])
    for flag in ("--eval-weights", "--load-from"):
        assert flag not in given or job["start"] == given[flag]
    if repository == "reftr":
        assert job["config"].benchmark == "flickr30k"
        assert "--eval" not in argv or job["start"] == "./exps/flickr30k/checkpoint.pth".lstrip(
            "./"
        )
    if repository in ("refclip", "alvg"):
        assert job["config"].system == repository

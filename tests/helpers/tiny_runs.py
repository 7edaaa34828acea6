"""Tiny training runs for tests: a configuration, and processes that train and may be killed."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import BinaryIO

import torch

from groundwork import utils
from groundwork.files.json_lines import JsonLines
from groundwork.settings import dump_yaml
from tests.helpers.fork_server import addresses, fork_server

MODEL = {
    "image_size": 32,
    "patch_size": 8,
    "vision_width": 32,
    "vision_depth": 2,
    "vision_heads": 2,
    "embed_dim": 16,
    "queue_size": 22,
    "explanation_layer": 2,
    "text": {
        "vocab_size": 256,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "fusion_layer": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
    },
}
STAGES = [
    {"objective": "selfeq", "epochs": 1, "steps": 5, "optimizer": {"lr": 1e-3}},
    {"objective": ["itc_itm_mlm", "amc"], "epochs": 1, "steps": 5},
    {"objective": ["itc_itm_mlm", "selfeq", "amc"], "epochs": 1, "steps": 5},
]


def write_config(path: Path, data: Path, **changes: object) -> Path:
    """A run of 15 steps over all objectives; its queues of 22 wrap around several times."""
    config = {
        "system": "albef",
        "data": {
            "train": {
                "train": [str(data / "vg/train.json")],
                "relation": [str(data / "vg/relation.json")],
            },
            "image_root": str(data / "images"),
            "text_encoder": str(data / "tokenizer"),
            "mask_size": 32,
            "workers": 0,
        },
        "model": MODEL,
        "stages": STAGES,
        "optimizer": {"lr": 1e-3},
        "batch_size": 6,
        "log_every": 3,
        "save_every_steps": 2,
    }
    path.write_text(dump_yaml(config | changes))
    return path


def start(target: Callable[..., None], *args: object) -> ForkServerProcess:
    """Run `target` in a process of its own, forked from one that has imported everything."""
    process = fork_server().Process(target=_run, args=(target, *args))
    process.start()
    return process


def _run(target: Callable[..., None], *args: object) -> None:
    torch.set_num_threads(1)
    # Loading processes fork as they do under a script; here they would import everything again.
    multiprocessing.set_start_method("fork", force=True)
    target(*args)


def start_group(target: Callable[..., None], *args: object, processes: int = 2) -> None:
    """Run `target` in the processes of one group and wait for all; none is left behind."""
    ranks = [start(_run_rank, address, target, *args) for address in addresses(processes)]
    try:
        for process in ranks:
            process.join(100)
        assert [process.exitcode for process in ranks] == [0] * processes
    finally:
        for process in ranks:
            process.kill()
            process.join()


def _run_rank(environment: dict[str, str], target: Callable[..., None], *args: object) -> None:
    os.environ.update(environment)
    with utils.process_group("cpu"):
        target(*args)


def train(argv: Sequence[str], output: Path, environment: dict[str, str] | None = None) -> None:
    """What `Pretrain_vg.py` does with `argv`; standard error goes to `output`.err."""
    import Pretrain_vg
    from groundwork.jobs import run_script

    os.environ.update(environment or {})
    sys.stderr = output.with_suffix(".err").open("a", buffering=1)
    run_script(lambda: Pretrain_vg.main([*argv, "--output_dir", str(output), "--device", "cpu"]))


def train_until(moment: str, count: int, argv: Sequence[str], output: Path) -> None:
    """`train`, but the process kills itself at the `count`-th `moment` (a key of MOMENTS)."""
    MOMENTS[moment](_Countdown(count))
    train(argv, output)


class _Countdown:
    def __init__(self, count: int):
        self.left = count

    def over(self) -> bool:
        self.left -= 1
        return self.left == 0


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _while_writing_a_checkpoint(countdown: _Countdown) -> None:
    save = torch.save

    def half_a_save(content: dict, file: BinaryIO) -> None:
        save(content, file)
        if countdown.over():
            file.truncate(file.tell() // 2)
            _kill()

    torch.save = half_a_save


def _before_a_checkpoint_gets_its_name(countdown: _Countdown) -> None:
    save = torch.save

    def save_and_die(content: dict, file: BinaryIO) -> None:
        save(content, file)
        if countdown.over():
            _kill()

    torch.save = save_and_die


def _between_a_new_checkpoint_and_the_removal_of_the_old(countdown: _Countdown) -> None:
    unlink = Path.unlink

    def die_instead(path: Path, missing_ok: bool = False) -> None:
        if path.name == "last.ckpt" and countdown.over():
            _kill()
        unlink(path, missing_ok=missing_ok)

    Path.unlink = die_instead


def _after_a_step(countdown: _Countdown) -> None:
    from groundwork.engine import Trainer

    train_step = Trainer.train_step

    def step_and_die(*args, **kwargs):
        losses = train_step(*args, **kwargs)
        if countdown.over():
            _kill()
        return losses

    Trainer.train_step = step_and_die


def _while_writing_a_log_line(countdown: _Countdown) -> None:
    append = JsonLines.append

    def half_a_line(self: JsonLines, row: dict) -> None:
        append(self, row)
        if countdown.over():
            os.truncate(self.path, self.path.stat().st_size - 20)
            _kill()

    JsonLines.append = half_a_line


MOMENTS: dict[str, Callable[[_Countdown], None]] = {
    "while writing a checkpoint": _while_writing_a_checkpoint,
    "before a checkpoint gets its name": _before_a_checkpoint_gets_its_name,
    "between two checkpoints": _between_a_new_checkpoint_and_the_removal_of_the_old,
    "after a step": _after_a_step,
    "while writing a log line": _while_writing_a_log_line,
}

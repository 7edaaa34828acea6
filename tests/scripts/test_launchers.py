"""The launch scripts in tools/ start what they say, with the arguments they were given."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
CONFIG = "configs/flickr30k/RefTR_flickr.sh"
EVALUATION = ("--eval", "--resume=./exps/flickr30k/checkpoint.pth")


@pytest.fixture
def launch(tmp_path):
    """Runs a script where `python` and, if wanted, `srun` only print their arguments."""

    def run(name: str, *arguments: str, slurm: bool = False, **environment: str):
        for program in ("python", *(["srun"] if slurm else [])):
            path = tmp_path / program
            path.write_text(f'#!/bin/bash\necho {program} "$@"\n')
            path.chmod(0o755)
        path = f"{tmp_path}{os.pathsep}{os.defpath}"
        return subprocess.run(
            [TOOLS / name, *arguments],
            env={"PATH": path, **environment},
            capture_output=True,
            text=True,
            timeout=20,
        )

    return run


def test_the_published_slurm_command_keeps_its_form(launch):
    done = launch("run_dist_slurm.sh", "RefTR", "4", CONFIG, *EVALUATION, slurm=True)
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert {"--job-name=RefTR", "--ntasks=4", "--gres=gpu:4", "--ntasks-per-node=4"} <= set(words)
    assert words[words.index("-m") :] == ["-m", "tools.published_reftr", CONFIG, *EVALUATION]


def test_environment_of_the_published_command_is_heard(launch):
    more = {"GPUS_PER_NODE": "2", "CPUS_PER_TASK": "5", "SRUN_ARGS": "--partition=ours --exclusive"}
    done = launch("run_dist_slurm.sh", "RefTR", "16", CONFIG, slurm=True, **more)
    words = set(done.stdout.split())
    assert {"--gres=gpu:2", "--ntasks=16", "--cpus-per-task=5", "--exclusive"} <= words
    assert "--partition=ours" in words
    assert "--gres=gpu:8" in launch("run_dist_slurm.sh", "x", "16", CONFIG, slurm=True).stdout


def test_without_slurm_the_processes_start_here(launch):
    done = launch("run_dist_slurm.sh", "RefTR", "3", CONFIG, *EVALUATION, MASTER_PORT="29501")
    words = done.stdout.split()
    assert "no srun here" in done.stderr
    assert {"--nproc_per_node=3", "--master_port=29501"} <= set(words)
    assert words[-4:] == ["tools.published_reftr", CONFIG, *EVALUATION]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("dist_train.sh", (CONFIG, "2")), ("run_dist_launch.sh", ("2", CONFIG))],
)
def test_one_machine_is_started_by_torchrun(launch, name, arguments):
    words = launch(name, *arguments, "--output_dir", "runs/x y").stdout.split()
    assert words[:3] == ["python", "-m", "torch.distributed.run"]
    assert "--nproc_per_node=2" in words and words[-5:-2] == [
        "tools.published_reftr",
        CONFIG,
        "--output_dir",
    ]


@pytest.mark.parametrize(
    ("name", "module"), [("dist_train.sh", "tools.train"), ("dist_test.sh", "tools.test")]
)
@pytest.mark.parametrize(
    "config", ["configs/mix/ViT-large/pretrian-mixed.py", "configs/alvg/x.yaml"]
)
def test_alvgs_commands_keep_their_form(launch, name, module, config):
    words = launch(name, config, "8", "--load-from", "a b.pth", PORT="29501").stdout.split()
    assert {"--nproc_per_node=8", "--master_port=29501"} <= set(words)
    start = ["-m", module, "--config", config, "--launcher", "pytorch", "--load-from", "a", "b.pth"]
    assert words[-len(start) :] == start


@pytest.mark.parametrize(
    "name",
    ["dist_train.sh", "dist_test.sh", "run_dist_launch.sh", "run_dist_slurm.sh", "slurm_train.sh"],
)
def test_too_few_arguments_print_the_usage(launch, name):
    done = launch(name)
    assert done.returncode == 2 and "usage:" in done.stderr


class Slurm(NamedTuple):
    """A job of tools/slurm_train.sh under way, as `signalled` makes it."""

    job: subprocess.Popen
    folder: Path

    def until(self, name: str) -> None:
        """Until one of the fake commands has written a file."""
        end = time.monotonic() + 20
        while not (self.folder / name).exists() and time.monotonic() < end:
            time.sleep(0.01)

    def queued(self) -> str:
        file = self.folder / "queue"
        return file.read_text() if file.exists() else ""


@contextmanager
def slurm(folder: Path, step: str, **environment: str) -> Iterator[Slurm]:
    """srun is Python code after which its tasks have begun, and passes signals on to itself, as
    Slurm's own does to them; scontrol takes half a second."""
    (folder / "srun").write_text(
        f"#!{sys.executable} -S\nimport os, signal, sys\nfrom pathlib import Path\n"
        f"signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGUSR1}})\nfolder = {str(folder)!r}\n"
        "Path(folder, 'said').write_text(' '.join(sys.argv[1:]))\nPath(folder, 'begun').touch()\n"
        + step
    )
    (folder / "scontrol").write_text(
        f"#!/bin/bash\ntouch '{folder}/asked'\nsleep 0.5\necho \"$@\" > '{folder}/queue'\n"
    )
    for name in ("srun", "scontrol"):
        (folder / name).chmod(0o755)
    path = f"{folder}{os.pathsep}{os.defpath}"
    script = [TOOLS / "slurm_train.sh", "--config", "x.yaml", "--output_dir", "runs/x y"]
    with subprocess.Popen(
        script, env={"PATH": path, "SLURM_JOB_ID": "7", **environment}, stderr=subprocess.DEVNULL
    ) as job:
        yield Slurm(job, folder)


WAITS = "signal.sigwait({signal.SIGUSR1})\n"
STEPS = {
    "saves": f"{WAITS}sys.exit(75)\n",
    "is not training yet": "signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})\n"
    "signal.pause()\n",
}
# bash takes a function of this name from its environment. Here the step ends within it, so that
# `wait` has its status no more.
SLOWLY = {"BASH_FUNC_kill%%": '() { builtin kill "$@" && sleep 0.5; }'}


@pytest.mark.parametrize("slowly", [{}, SLOWLY], ids=["", "ends before it is looked at"])
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM], ids=lambda one: one.name)
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_preempted_training_is_put_back_into_the_queue(step, number, slowly, tmp_path):
    with slurm(tmp_path, step, **slowly) as one:
        one.until("begun")
        one.job.send_signal(number)
        assert one.job.wait(20) == 0
    assert one.queued() == "requeue 7\n"
    called = (tmp_path / "said").read_text()
    assert called.endswith("python train.py --config x.yaml --output_dir runs/x y --resume auto")


def test_a_second_signal_does_not_reach_what_puts_it_back(tmp_path):
    with slurm(tmp_path, STEPS["saves"]) as one:
        for name in ("begun", "asked"):
            one.until(name)
            one.job.send_signal(signal.SIGUSR1)
        one.job.send_signal(signal.SIGTERM)
        assert one.job.wait(20) == 0
    assert one.queued() == "requeue 7\n"


@pytest.mark.parametrize("ends", [0, 1])
def test_a_training_that_is_told_to_end_and_is_done_or_fails_is_not_put_back(tmp_path, ends):
    with slurm(tmp_path, f"{WAITS}sys.exit({ends})\n") as one:
        one.until("begun")
        one.job.send_signal(signal.SIGUSR1)
        assert one.job.wait(20) == ends
    assert not one.queued()


@pytest.mark.parametrize("status", [0, 1])
def test_a_training_that_ends_is_not_put_back(tmp_path, status):
    for name, ends in (("srun", status), ("scontrol", 9)):
        (tmp_path / name).write_text(f"#!/bin/bash\nexit {ends}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [TOOLS / "slurm_train.sh", "--config", "x.yaml"],
        env={"PATH": f"{tmp_path}{os.pathsep}{os.defpath}"},
        timeout=20,
    )
    assert done.returncode == status

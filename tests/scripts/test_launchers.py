"""The launch scripts in tools/ start what they say, with the arguments they were given."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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


@pytest.mark.parametrize("at_once", [False, True], ids=["saves", "ends before it is looked at"])
def test_a_preempted_training_is_signalled_and_put_back_into_the_queue(tmp_path, at_once):
    # srun passes the signal on and gives the status of its tasks, as Slurm's own does.
    (tmp_path / "srun").write_text(
        f"#!{sys.executable} -S\nimport signal, sys\nfrom pathlib import Path\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "(folder / 'said').write_text(' '.join(sys.argv[1:]))\n(folder / 'begun').touch()\n"
        "signal.sigwait({signal.SIGUSR1})\nsys.exit(75)\n"
    )
    (tmp_path / "scontrol").write_text(f"#!/bin/bash\necho \"$@\" > '{tmp_path}/queue'\n")
    for name in ("srun", "scontrol"):
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.defpath}", "SLURM_JOB_ID": "7"}
    if at_once:  # bash takes a function of this name from its environment
        environment["BASH_FUNC_kill%%"] = '() { builtin kill "$@" && sleep 0.5; }'
    script = [TOOLS / "slurm_train.sh", "--config", "x.yaml", "--output_dir", "runs/x y"]
    with subprocess.Popen(script, env=environment, stderr=subprocess.PIPE, text=True) as job:
        end = time.monotonic() + 20
        while not (tmp_path / "begun").exists() and time.monotonic() < end:
            time.sleep(0.01)
        job.send_signal(signal.SIGUSR1)
        assert job.wait(20) == 0, job.stderr.read()
    assert (tmp_path / "queue").read_text() == "requeue 7\n"
    assert (
        (tmp_path / "said")
        .read_text()
        .endswith("python train.py --config x.yaml --output_dir runs/x y --resume auto")
    )


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

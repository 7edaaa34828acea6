"""Devices, processes, seeds and logging."""

import ast
import logging
import os
import platform
import random
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from groundwork import utils

ROOT = Path(__file__).parents[2]
PARTS = {ROOT / "utils.py", ROOT / "benchmarks.py"}  # at the top, but no doors
LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def run_python(code, *launcher, **environment):
    """Runs code in the project's root in a new process (or several, with a launcher)."""
    path = environment.pop("script")
    path.write_text(textwrap.dedent(code))
    clean = {k: v for k, v in os.environ.items() if k not in LAUNCHER}
    return subprocess.run(
        [sys.executable, *launcher, str(path)],
        cwd=ROOT,
        env={**clean, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


GATHER = """
    import sys, torch, utils
    with utils.process_group("cpu"):
        rank = utils.rank()
        rows = utils.all_gather(torch.arange(rank + 2).unsqueeze(1) + 10 * rank)
        names = utils.all_gather_objects({"rank": rank})
        empty = utils.all_gather(torch.zeros(0, 3))
        utils.barrier()
        sys.stdout.write(repr((rows.flatten().tolist(), names, empty.shape[0])) + chr(10))
"""


def test_gathering_keeps_rank_order_for_unequal_sizes_under_torchrun(tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    result = run_python(GATHER, *launcher, script=tmp_path / "gather.py")
    assert result.returncode == 0, result.stderr
    expected = "([0, 1, 10, 11, 12], [{'rank': 0}, {'rank': 1}], 0)"
    assert result.stdout.splitlines() == [expected, expected]


def test_without_a_launcher_the_same_code_runs_alone(tmp_path):
    result = run_python(GATHER, script=tmp_path / "gather.py")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["([0, 1], [{'rank': 0}], 0)"]


NESTED = """
    import sys, torch, torch.distributed as dist, utils
    with utils.process_group("cpu"):
        groups = []
        for job in range(3):
            with utils.process_group("cpu"):
                groups.append(dist.group.WORLD)
                utils.barrier()
        same = all(group is dist.group.WORLD for group in groups)
    sys.stdout.write(repr((same, dist.is_initialized())) + chr(10))
"""


def test_jobs_one_after_another_share_the_group_around_them(tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    result = run_python(NESTED, *launcher, script=tmp_path / "nested.py")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["(True, False)"] * 2


def test_slurm_tasks_find_their_rank_and_the_first_host(monkeypatch):
    for name in (*LAUNCHER, "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    slurm = {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "8"}
    slurm |= {"SLURM_STEP_NODELIST": "gpu[03-04,9]", "SLURM_JOB_ID": "40007"}
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    given = {}
    monkeypatch.setattr(utils.dist, "init_process_group", lambda *a, **k: given.update(a=a, **k))
    monkeypatch.setattr(utils.dist, "destroy_process_group", lambda: None)
    with utils.process_group("cpu"):
        pass
    found = {name: os.environ.pop(name) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    assert found == {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}
    assert os.environ.pop("MASTER_ADDR") == "gpu03"
    assert os.environ.pop("MASTER_PORT") == "20007"
    assert given["a"] == ("gloo",)


def test_a_device_that_does_not_exist_is_refused_with_the_remedy():
    assert utils.choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="--device gpu: not a device; use cpu, cuda"):
        utils.choose_device("gpu")
    with pytest.raises(ValueError, match="GPU 99 is not among the"):
        utils.choose_device("cuda:99")


def test_the_same_seed_draws_the_same_numbers_and_another_rank_different_ones(monkeypatch):
    def draw(rank):
        monkeypatch.setattr(utils, "rank", lambda: rank)
        utils.seed_everything(7)
        return random.random(), np.random.rand(), torch.rand(3).tolist()

    assert draw(0) == draw(0)
    assert all(a != b for a, b in zip(draw(0), draw(1), strict=True))


def test_only_process_0_logs_below_warnings(monkeypatch):
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    try:
        utils.setup_logging()
        assert root.level == logging.INFO
        monkeypatch.setattr(utils, "rank", lambda: 1)
        utils.setup_logging()
        assert root.level == logging.WARNING
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


FAULTS = """
    import resource, torch, utils
    utils.process_group("cpu").__enter__()
    def fresh_pages():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(2**24).add_(1)  # 64 MiB
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    # Aligned tensors leave gaps at first, which then grow together.
    first, *others = [fresh_pages() for _ in range(12)]
    assert max(others[-4:]) < first / 10, (first, others)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc")
def test_freed_memory_is_used_again(tmp_path):
    result = run_python(FAULTS, script=tmp_path / "faults.py")
    assert result.returncode == 0, result.stderr


THREADS = """
    import re, threading
    from pathlib import Path
    from groundwork import utils
    utils.share_heap()
    def megabytes():
        (found,) = re.findall(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
        return int(found) / 1000
    ready, turn, kept = threading.Barrier(8), threading.Lock(), []
    def use():
        ready.wait()
        with turn:
            pieces = [bytearray(b"a") * 60_000 for _ in range(500)]  # 30 MB
            kept.append(pieces.pop())  # what is freed lies below it
    before = megabytes()
    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print("grown by", used := megabytes() - before)
    assert 20 < used < 60
    utils.release_freed_memory()
    assert megabytes() - before < 10, megabytes() - before
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc")
def test_threads_share_what_they_free_and_give_it_back(tmp_path):
    result = run_python(THREADS, script=tmp_path / "threads.py")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("given", [None, "ACTIVE"])
def test_waiting_threads_sleep_unless_somebody_says_otherwise(given, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    environment = {"OMP_DISPLAY_ENV": "TRUE"} | ({"OMP_WAIT_POLICY": given} if given else {})
    loaded = run_python("import groundwork.utils", script=tmp_path / "load.py", **environment)
    shown = re.search(r"OMP_WAIT_POLICY = '(\w+)'", loaded.stderr)
    if shown is None:
        pytest.skip("this torch has another OpenMP than GNU's")
    assert shown[1] == (given or "PASSIVE")


@pytest.mark.parametrize("door", sorted(set(ROOT.glob("*.py")) - PARTS), ids=lambda door: door.name)
def test_every_door_loads_the_project_before_torch(door):
    imported = (
        [node.module] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
        for node in ast.parse(door.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    )
    names = [name.split(".")[0] for names in imported for name in names]
    foreign = [name for name in names if name not in sys.stdlib_module_names]
    assert foreign[0] == "groundwork"

"""Devices, processes, seeds, and files that are complete or absent."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from groundwork import utils

ROOT = Path(__file__).parents[2]
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
    device = utils.init_distributed("cpu")
    rank = utils.rank()
    rows = utils.all_gather(torch.arange(rank + 2).unsqueeze(1) + 10 * rank)
    names = utils.all_gather_objects({"rank": rank})
    empty = utils.all_gather(torch.zeros(0, 3))
    utils.barrier()
    sys.stdout.write(repr((rows.flatten().tolist(), names, empty.shape[0])) + chr(10))
    utils.close_distributed()
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


def test_slurm_tasks_find_their_rank_and_the_first_host(monkeypatch):
    for name in (*LAUNCHER, "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    slurm = {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "8"}
    slurm |= {"SLURM_STEP_NODELIST": "gpu[03-04,9]", "SLURM_JOB_ID": "40007"}
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    given = {}
    monkeypatch.setattr(utils.dist, "init_process_group", lambda *a, **k: given.update(a=a, **k))
    utils.init_distributed("cpu")
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


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), utils.atomic_write(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.json"]


def test_a_killed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    code = f"""
        import os, signal, utils
        with utils.atomic_write({str(path)!r}) as partial:
            partial.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run_python(code, script=tmp_path / "kill.py").returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_a_finished_write_replaces_the_file_and_is_as_readable_as_others(tmp_path):
    path = tmp_path / "new" / "result.json"
    with utils.atomic_write(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    (tmp_path / "plain").write_text("")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_json_lines_come_back_as_written_without_an_unfinished_last_line(tmp_path):
    log = utils.JsonLines(tmp_path / "run" / "log.txt")
    assert log.rows() == []
    for step in range(3):
        log.append({"step": step, "phrase": "grün"})
    with log.path.open("a") as file:
        file.write('{"step": 3, "phr')
    assert [row["step"] for row in log.rows()] == [0, 1, 2]
    log.replace(row for row in log.rows() if row["step"] < 2)
    log.append({"step": 9})
    assert [row["step"] for row in log.rows()] == [0, 1, 9]


@pytest.mark.parametrize("left", ["", '{"step": 0}\n', '{"step": 0}\n{"phrase": "gr\u00fc', '{"st'])
def test_the_next_row_does_not_continue_what_a_killed_process_left_unfinished(tmp_path, left):
    log = utils.JsonLines(tmp_path / "log.txt", sync=True)
    # Half of the last letter, too, when that is two bytes.
    log.path.write_bytes(left.encode().removesuffix(b"\xbc"))
    before = log.rows()
    assert before == ([{"step": 0}] if "0" in left else [])
    log.append({"step": 1}, {"step": 2})
    assert log.rows() == utils.JsonLines(log.path).rows() == [*before, {"step": 1}, {"step": 2}]


def test_threads_share_a_file_of_json_lines(tmp_path):
    log = utils.JsonLines(tmp_path / "log.txt")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda step: log.append({"step": step, "text": "a" * 9000}), range(200)))
    assert sorted(row["step"] for row in log.rows()) == list(range(200))


@pytest.mark.parametrize("line", [b"{]", b"[1]", b"", b'{"a": "\xff"}'])
def test_a_damaged_line_of_json_lines_is_named(tmp_path, line):
    log = utils.JsonLines(tmp_path / "log.txt")
    log.path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    with pytest.raises(ValueError, match=r"log\.txt line 2.*delete the line"):
        log.rows()


def test_no_row_makes_no_file(tmp_path):
    log = utils.JsonLines(tmp_path / "run" / "log.txt", sync=True)
    log.append()
    assert log.rows() == [] and not log.path.parent.exists()


def test_the_manifest_tells_code_data_versions_and_configuration(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/Pretrain_vg.py", "--seed", "1"])
    data = tmp_path / "train.json"
    data.write_text("[]")
    path = utils.write_manifest(tmp_path / "run", {"batch_size": 2}, seed=1, files=[data])
    manifest = json.loads(path.read_text())
    assert path.name == "manifest.json"
    assert manifest["command"] == ["Pretrain_vg.py", "--seed", "1"]
    assert manifest["config"] == {"batch_size": 2}
    assert (manifest["seed"], manifest["world_size"]) == (1, 1)
    assert manifest["versions"]["torch"] == torch.__version__.split("+")[0]
    assert set(manifest["git"]) == {"commit", "dirty"}
    assert manifest["data"] == {str(data): utils.fingerprint(data)}


def test_a_fingerprint_changes_with_either_end_and_the_size_of_a_file(tmp_path):
    path = tmp_path / "big"
    content = bytearray(3 << 20)
    path.write_bytes(content)
    first = utils.fingerprint(path)
    assert first["bytes"] == 3 << 20
    for position in (0, -1):
        changed = bytearray(content)
        changed[position] = 1
        path.write_bytes(changed)
        assert utils.fingerprint(path) != first
    path.write_bytes(content + b"0")
    assert utils.fingerprint(path) != first
    with pytest.raises(FileNotFoundError, match="none.json: no such annotation file"):
        utils.fingerprint(tmp_path / "none.json")


def test_code_outside_a_git_checkout_has_an_unknown_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(utils, "__file__", str(tmp_path / "utils.py"))
    assert utils.git_state() == {"commit": "unknown", "dirty": None}


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

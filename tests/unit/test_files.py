"""Files that are complete or absent, lines that survive their writer, and the run manifest."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from groundwork.files import manifest
from groundwork.files.json_lines import JsonLines
from groundwork.files.safe import atomic_write

ROOT = Path(__file__).parents[2]


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.json"]


def test_a_killed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    code = f"""
import os, signal
from groundwork.files.safe import atomic_write
with atomic_write({str(path)!r}) as partial:
    partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_a_finished_write_replaces_the_file_and_is_as_readable_as_others(tmp_path):
    path = tmp_path / "new" / "result.json"
    with atomic_write(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    (tmp_path / "plain").write_text("")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_json_lines_come_back_as_written_without_an_unfinished_last_line(tmp_path):
    log = JsonLines(tmp_path / "run" / "log.txt")
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
    log = JsonLines(tmp_path / "log.txt", sync=True)
    # Half of the last letter, too, when that is two bytes.
    log.path.write_bytes(left.encode().removesuffix(b"\xbc"))
    before = log.rows()
    assert before == ([{"step": 0}] if "0" in left else [])
    log.append({"step": 1}, {"step": 2})
    assert log.rows() == JsonLines(log.path).rows() == [*before, {"step": 1}, {"step": 2}]


def test_threads_share_a_file_of_json_lines(tmp_path):
    log = JsonLines(tmp_path / "log.txt")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda step: log.append({"step": step, "text": "a" * 9000}), range(200)))
    assert sorted(row["step"] for row in log.rows()) == list(range(200))


@pytest.mark.parametrize("line", [b"{]", b"[1]", b"", b'{"a": "\xff"}'])
def test_a_damaged_line_of_json_lines_is_named(tmp_path, line):
    log = JsonLines(tmp_path / "log.txt")
    log.path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    with pytest.raises(ValueError, match=r"log\.txt line 2.*delete the line"):
        log.rows()


def test_no_row_makes_no_file(tmp_path):
    log = JsonLines(tmp_path / "run" / "log.txt", sync=True)
    log.append()
    assert log.rows() == [] and not log.path.parent.exists()


def test_the_manifest_tells_code_data_versions_and_configuration(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/Pretrain_vg.py", "--seed", "1"])
    data = tmp_path / "train.json"
    data.write_text("[]")
    path = manifest.write_manifest(
        tmp_path / "run", {"batch_size": 2}, seed=1, data=manifest.fingerprints([data])
    )
    written = json.loads(path.read_text())
    assert path.name == "manifest.json"
    assert written["command"] == ["Pretrain_vg.py", "--seed", "1"]
    assert written["config"] == {"batch_size": 2}
    assert (written["seed"], written["world_size"]) == (1, 1)
    assert written["versions"]["torch"] == torch.__version__.split("+")[0]
    assert set(written["git"]) == {"commit", "dirty"}
    assert written["data"] == {str(data): manifest.fingerprint(data)}


def test_a_fingerprint_changes_with_either_end_and_the_size_of_a_file(tmp_path):
    path = tmp_path / "big"
    content = bytearray(3 << 20)
    path.write_bytes(content)
    first = manifest.fingerprint(path)
    assert first["bytes"] == 3 << 20
    for position in (0, -1):
        changed = bytearray(content)
        changed[position] = 1
        path.write_bytes(changed)
        assert manifest.fingerprint(path) != first
    path.write_bytes(content + b"0")
    assert manifest.fingerprint(path) != first
    with pytest.raises(FileNotFoundError, match="none.json: no such annotation file"):
        manifest.fingerprint(tmp_path / "none.json")


def test_a_file_that_changes_while_it_is_read_is_named(tmp_path):
    path = tmp_path / "train.json"
    path.write_text("[1, 2]")
    with manifest.reading([path]) as data:
        pass
    assert data == {str(path): manifest.fingerprint(path)}
    with (
        pytest.raises(ValueError, match=r"train.json changed while it was read; .* again"),
        manifest.reading([path]),
    ):
        path.write_text("[1")


def test_code_outside_a_git_checkout_has_an_unknown_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "__file__", str(tmp_path / "files" / "manifest.py"))
    assert manifest.git_state() == {"commit": "unknown", "dirty": None}

"""A run that is killed and resumed gives what the uninterrupted run gives, bit for bit."""

import json
import signal
import time
from pathlib import Path

import pytest
import torch

import Pretrain_vg
from groundwork.models.common.checkpoint import CheckpointError
from tests.helpers.tiny_runs import start, train, train_until, write_config

FINAL = "checkpoint_02.pth"


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_data) -> Path:
    return write_config(tmp_path_factory.mktemp("config") / "run.yaml", tiny_data)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, config) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    finish(start(train, ["--config", str(config)], folder), folder)
    return folder


def finish(process, folder: Path) -> None:
    process.join(120)
    assert process.exitcode == 0, folder.with_suffix(".err").read_text()


def killed(process, folder: Path) -> None:
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, folder.with_suffix(".err").read_text()


def log_lines(folder: Path) -> list[dict]:
    """All lines, without what depends on the clock."""
    rows = [json.loads(line) for line in (folder / "log.txt").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "samples_per_second"} for row in rows]


def flat(value, prefix: str = "") -> dict[str, object]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {name: v for k, below in items for name, v in flat(below, f"{prefix}/{k}").items()}
    return {prefix: value}


def assert_same_run(folder: Path, reference: Path) -> None:
    ours, theirs = (flat(torch.load(f / FINAL, weights_only=True)) for f in (folder, reference))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        same = torch.equal(ours[name], value) if torch.is_tensor(value) else ours[name] == value
        assert same, name
    assert log_lines(folder) == log_lines(reference)
    files = {path.name for path in folder.iterdir()}
    assert files == {path.name for path in reference.iterdir()}


def test_the_uninterrupted_run_reaches_every_part_of_the_state(uninterrupted):
    content = torch.load(uninterrupted / FINAL, weights_only=True)
    assert set(content["run"]["other_optimizers"]) == {"stage_0"}
    assert content["model"]["queue_ptr_img"].item() == 15 * 6 % 22
    names = {name for row in log_lines(uninterrupted) for name in row}
    assert {"loss_mlm", "loss_ita", "loss_itm", "loss_amc_max", "loss_cst_syn"} <= names


@pytest.mark.parametrize(
    ("moment", "count"),
    [
        ("after a step", 3),
        ("while writing a checkpoint", 1),
        ("before a checkpoint gets its name", 3),
        ("between two checkpoints", 2),
        ("while writing a log line", 4),
    ],
)
def test_a_killed_run_continues_as_if_nothing_had_happened(
    tmp_path, config, uninterrupted, moment, count
):
    folder, argv = tmp_path / "run", ["--config", str(config)]
    killed(start(train_until, moment, count, argv, folder), folder)
    if list(folder.glob("*.ckpt")) + list(folder.glob("*.pth")):
        argv.append("--resume")
    finish(start(train, argv, folder), folder)
    assert_same_run(folder, uninterrupted)


def test_a_run_killed_again_and_again_continues_as_if_nothing_had_happened(
    tmp_path, config, uninterrupted
):
    folder, argv = tmp_path / "run", ["--config", str(config)]
    killed(start(train_until, "after a step", 4, argv, folder), folder)
    for moment in ("after a step", "while writing a checkpoint", "while writing a log line"):
        killed(start(train_until, moment, 3, [*argv, "--resume"], folder), folder)
    finish(start(train, [*argv, "--resume"], folder), folder)
    assert_same_run(folder, uninterrupted)


def test_a_run_killed_from_outside_continues_as_if_nothing_had_happened(
    tmp_path, config, uninterrupted
):
    folder, argv = tmp_path / "run", ["--config", str(config)]
    process = start(train, argv, folder)
    wait_for(lambda: (folder / "log.txt").is_file() and len(log_lines(folder)) >= 4, process)
    process.kill()
    killed(process, folder)
    finish(start(train, [*argv, "--resume"], folder), folder)
    assert_same_run(folder, uninterrupted)


def test_a_resumed_run_may_load_with_more_processes(tmp_path, config, uninterrupted):
    folder, argv = tmp_path / "run", ["--config", str(config)]
    killed(start(train_until, "after a step", 13, argv, folder), folder)
    finish(start(train, [*argv, "--resume", "--set", "data.workers=1"], folder), folder)
    ours, theirs = (torch.load(f / FINAL, weights_only=True) for f in (folder, uninterrupted))
    assert all(torch.equal(ours["model"][k], v) for k, v in theirs["model"].items())
    assert log_lines(folder) == log_lines(uninterrupted)


def wait_for(condition, process) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.002)


def resume(config: Path, folder: Path, *more: str) -> None:
    """Resume in this process."""
    Pretrain_vg.main(
        ["--config", str(config), "--output_dir", str(folder), "--device", "cpu", "--resume", *more]
    )


def test_a_run_killed_before_its_first_checkpoint_is_told_to_start_again(tmp_path, config):
    with pytest.raises(FileNotFoundError, match="start without --resume"):
        resume(config, tmp_path)


def test_weights_without_the_state_of_a_run_cannot_be_resumed(tmp_path, config, uninterrupted):
    published = torch.load(uninterrupted / FINAL, weights_only=True)
    del published["run"]
    torch.save(published, tmp_path / "ALBEF.pth")
    with pytest.raises(CheckpointError, match="--checkpoint without --resume"):
        resume(config, tmp_path, "--checkpoint", str(tmp_path / "ALBEF.pth"))


@pytest.mark.parametrize(
    "change", ["optimizer.lr=2e-3", "seed=7", "model.embed_dim=8", "batch_size=4"]
)
def test_another_configuration_cannot_continue_a_run(config, uninterrupted, tmp_path, change):
    checkpoint = str(uninterrupted / FINAL)
    with pytest.raises(CheckpointError, match=rf"{change.split('=')[0]} was .*, now "):
        resume(config, tmp_path, "--checkpoint", checkpoint, "--set", change)


def test_a_truncated_checkpoint_is_named_with_what_to_do(tmp_path, config, uninterrupted):
    whole = (uninterrupted / FINAL).read_bytes()
    (tmp_path / FINAL).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"checkpoint_02\.pth: .*(truncated|damaged)"):
        resume(config, tmp_path)


def test_the_newest_of_more_than_a_hundred_epochs_is_found_by_its_number(tmp_path):
    from groundwork.engine import Snapshots

    for epoch in (9, 99, 100):
        (tmp_path / f"checkpoint_{epoch:02d}.pth").touch()
    snapshots = Snapshots(tmp_path, {}, export=dict, restore_model=print)
    assert snapshots.newest().name == "checkpoint_100.pth"

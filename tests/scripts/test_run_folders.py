"""A folder holds one run: what is refused, what may stand beside it, and where scripts write."""

import shutil
from pathlib import Path

import pytest

import grounding_eval_singlegpu
import Pretrain_vg
import train
import train_detector
from groundwork.jobs.folders import names_apart, results_folder, run_folder
from tests.helpers import script_runs
from tests.helpers.script_runs import CONFIGS, arguments, error_of

AMC = "tiny/Pretrain_vg_amc"
VAL = ["data.splits=[val]"]
pytestmark = pytest.mark.usefixtures("embedded")


def content(folder: Path) -> dict[str, bytes]:
    """The files of a run, without its curves."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def train_again(folder: Path, *more: object) -> Path:
    return script_runs.train(Pretrain_vg, AMC, folder, *more, epochs=2)


def test_a_new_run_where_there_is_one_is_refused_and_changes_nothing(trained):
    before = content(trained)
    message = error_of(lambda: train_again(trained))
    assert f"{trained} holds a run (checkpoint_00.pth, checkpoint_01.pth)" in message
    assert "--resume" in message and "another --output_dir" in message
    assert "results of evaluations may stay" in message
    assert content(trained) == before


@pytest.mark.parametrize(
    "script, config", [(train, "tiny/reftr/refcoco+"), (train_detector, "tiny/detector")]
)
@pytest.mark.parametrize("name", ["checkpoint_07.pth", "checkpoint_best.pth", "last.ckpt"])
def test_every_training_script_refuses(script, config, name, tmp_path):
    (tmp_path / name).touch()
    argv = ["--config", str(CONFIGS / f"{config}.yaml"), "--output_dir", str(tmp_path)]
    message = error_of(lambda: script.main([*argv, "--device", "cpu"]))
    assert f"{tmp_path} holds a run ({name})" in message


def test_a_run_of_another_folder_does_not_go_on_in_one_that_holds_a_run(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "other")
    checkpoint = trained / "checkpoint_00.pth"
    message = error_of(lambda: train_again(folder, "--resume", "--checkpoint", checkpoint))
    assert f"{folder} holds a run" in message


@pytest.mark.parametrize("inside", [True, False])
def test_a_run_of_another_system_does_not_go_on_and_nothing_is_written(trained, tmp_path, inside):
    """Inside of its folder, or in a new one from its file."""
    folder = shutil.copytree(trained, tmp_path / "run")
    before = content(folder)
    out = folder if inside else tmp_path / "new"
    origin = [] if inside else [folder / "checkpoint_01.pth"]
    argv = arguments("tiny/reftr/refcoco+", out, "--resume", *origin)
    message = error_of(lambda: train.main(argv))
    assert "configuration: system was 'albef', now 'reftr';" in message
    assert content(folder) == before and (inside or not out.exists())


def test_the_log_of_a_run_without_a_checkpoint_is_replaced_with_a_word(tmp_path, capsys):
    out = tmp_path / "run"
    (out / "tensorboard").mkdir(parents=True)
    (out / "tensorboard" / "events").touch()
    (out / "log.txt").write_text('{"kind": "step", "global_step": 0}\n')
    (out / "notes.md").write_text("mine")
    script_runs.train(Pretrain_vg, AMC, out)
    assert "the log of a run without a checkpoint is replaced" in capsys.readouterr().err
    assert '"global_step": 0' not in (out / "log.txt").read_text()
    assert not (out / "tensorboard" / "events").exists()
    assert (out / "notes.md").read_text() == "mine"


def test_an_evaluation_in_the_folder_of_a_run_leaves_it_to_be_resumed(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    log = (folder / "log.txt").read_bytes()
    # As if it had been stopped after its first epoch.
    (folder / "checkpoint_01.pth").unlink()
    before = content(folder)
    script_runs.evaluate(
        grounding_eval_singlegpu, "tiny/Grounding_refcoco", folder, folder, overrides=VAL
    )
    after = content(folder)
    assert {name: after[name] for name in before} == before
    train_again(folder, "--resume")
    assert (folder / "checkpoint_01.pth").is_file()
    steps = [line.split(b"samples_per")[0] for line in log.splitlines()]
    again = (folder / "log.txt").read_bytes().splitlines()
    assert [line.split(b"samples_per")[0] for line in again] == steps


def test_folders_differ_by_configuration():
    runs = {path: run_folder(path) for path in CONFIGS.rglob("*.yaml")}
    assert len(set(runs.values())) == len(runs)
    assert run_folder("configs/reftr/refcoco.yaml") == Path("runs/reftr/refcoco")
    assert run_folder("tiny/reftr/refcoco+") == Path("runs/tiny/reftr/refcoco+")
    assert run_folder("reftr/refcoco") == Path("runs/reftr/refcoco")
    assert run_folder("/somewhere/configs/Pretrain_vg.yaml") == Path("runs/Pretrain_vg")
    assert run_folder("./config/refcoco.yaml") == Path("runs/refcoco")
    assert run_folder("mine.yaml") == Path("runs/mine")
    results = results_folder("configs/reftr/refcoco.yaml")
    assert results == Path("runs/reftr/refcoco/results")


@pytest.mark.parametrize(
    "files, names",
    [
        (["runs/a/x.pth", "runs/a/y.pth"], ["x.pth", "y.pth"]),
        (["runs/a/x.pth", "runs/b/x.pth", "z.pth"], ["a/x.pth", "b/x.pth", "z.pth"]),
        (["a/run/x.pth", "b/run/x.pth"], ["a/x.pth", "b/x.pth"]),
        (["a/run/x.pth", "b/run/x.pth", "c/a/x.pth"], ["a/run/x.pth", "b/run/x.pth", "a/x.pth"]),
    ],
)
def test_files_of_one_name_are_told_apart_by_their_folders(files, names):
    assert list(names_apart([Path(file) for file in files]).values()) == names


def test_the_scripts_write_there(trained, tmp_path, monkeypatch):
    data = f"roots.embedded={Path('data/embedded').absolute()}"
    monkeypatch.chdir(tmp_path)
    argv = arguments(AMC, Path("unused"), overrides=[data, *script_runs.shortened(AMC)])
    del argv[argv.index("--output_dir") : argv.index("--output_dir") + 2]
    Pretrain_vg.main(argv)
    assert (tmp_path / "runs" / AMC / "checkpoint_00.pth").is_file()
    config = "tiny/Grounding_refcoco"
    checkpoint = ("--checkpoint", trained / "checkpoint_01.pth")
    argv = arguments(config, Path("unused"), *checkpoint, overrides=[data, *VAL])
    del argv[argv.index("--output_dir") : argv.index("--output_dir") + 2]
    grounding_eval_singlegpu.main(argv)
    assert (tmp_path / "runs" / config / "results" / "results.json").is_file()

"""A training, an evaluation, a check and a page from tar shards are those from the folder."""

import json
from pathlib import Path

import fsspec
import pytest
import torch

import test
import train
from groundwork.files.shards import INDEX, shards_at
from groundwork.models.common.checkpoint import read_checkpoint
from groundwork.tools import check_data, shards
from tests.helpers.script_runs import CONFIGS, error_of

AMC = (CONFIGS / "tiny/Pretrain_vg_amc.yaml", CONFIGS / "tiny/Grounding_refcoco.yaml")
REFTR = (CONFIGS / "tiny/reftr/refcoco+.yaml",) * 2
ALVG = (CONFIGS / "tiny/alvg/refcoco+.yaml",) * 2
SMALL = {
    AMC: ["stages.0.epochs=2", "stages.0.steps=2"],
    REFTR: ["epochs=2", "steps=2", "data.image_size=48", "data.max_image_size=48"],
    ALVG: ["epochs=2", "steps=2"],
}
SHORT = ("batch_size=4", "log_every=1", "select=null", "precision=fp32")
pytestmark = pytest.mark.usefixtures("embedded")


@pytest.fixture(scope="module")
def packed(workplace, tmp_path_factory) -> dict[tuple[Path, Path], Path]:
    """The folders of images that the systems read, each in several shards."""
    found = {}
    for system, folder in {AMC: "images", REFTR: "images/train2014"}.items():
        found[system] = tmp_path_factory.mktemp("shards")
        source = f"{workplace}/data/embedded/{folder}"
        shards.main(["pack", source, str(found[system]), "--megabytes", "0.02"])
        assert len(list(found[system].glob("*.tar"))) > 3
    return found | {ALVG: found[REFTR]}


def run_training(system, out: Path, *more: str, overrides=()) -> dict[str, torch.Tensor]:
    config, _ = system
    train.main(
        ["--config", str(config), "--output_dir", str(out), "--device", "cpu", *more,
         "--set", *SHORT, *SMALL[system], *overrides]
    )  # fmt: skip
    return read_checkpoint(max(out.glob("checkpoint_0*.pth")))["model"]


def losses(out: Path) -> list[tuple[int, float]]:
    rows = map(json.loads, (out / "log.txt").read_text().splitlines())
    return [(row["step"], row["loss"]) for row in rows if row["kind"] == "step"]


@pytest.mark.parametrize(
    "system",
    [
        pytest.param(AMC, id="AMC"),
        pytest.param(REFTR, id="RefTR", marks=pytest.mark.slow),
        pytest.param(ALVG, id="ALVG", marks=pytest.mark.slow),
    ],
)
def test_a_training_from_shards_is_that_from_files_and_goes_on_elsewhere(system, packed, tmp_path):
    expected, folder = run_training(system, tmp_path / "files"), packed[system]
    root = f"data.image_root={folder}/*.tar"
    found = run_training(system, tmp_path / "shards", overrides=[root, "data.workers=1"])
    assert losses(tmp_path / "shards") == losses(tmp_path / "files")
    assert all(torch.equal(found[name], value) for name, value in expected.items())

    store = fsspec.filesystem("memory")
    shards_at.cache_clear()  # as in a new process
    store.put(f"{folder}/", "/bucket/", recursive=True)
    try:
        part = tmp_path / "shards"
        for later in sorted(part.glob("checkpoint_0*.pth"))[1:]:
            later.unlink()
        root = "data.image_root=memory://bucket/*.tar"
        found = run_training(system, part, "--resume", overrides=[root, "data.workers=0"])
    finally:
        store.rm("/bucket", recursive=True)
    assert losses(part) == losses(tmp_path / "files")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_an_evaluation_of_shards_is_that_of_files_with_its_page(packed, tmp_path):
    run_training(REFTR, tmp_path / "run")
    rows = [
        test.main(
            ["--config", str(REFTR[1]), "--checkpoint", str(tmp_path / "run/checkpoint_01.pth"),
             "--output_dir", str(tmp_path / name), "--split", "val", "--device", "cpu",
             "--set", *SMALL[REFTR], "precision=fp32", *more]
        )
        for name, *more in [("files",), ("shards", f"data.image_root={packed[REFTR]}/*.tar")]
    ]  # fmt: skip
    assert rows[0] == rows[1] and rows[0]
    first, second = (
        sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("files", "shards")
    )
    assert first == second
    (sheet,) = (name for name in first if name.endswith(".png"))
    sheets = [(tmp_path / name / sheet).read_bytes() for name in ("files", "shards")]
    assert sheets[0] == sheets[1]


def test_the_check_of_shards_is_that_of_the_run(packed, tmp_path):
    def check(root: str) -> int:
        return check_data.main(
            [str(REFTR[0]), "--workers", "1", "--full", "--set", f"data.image_root={root}"]
        )

    assert check(f"{packed[REFTR]}/*.tar") == 0
    one = min(packed[REFTR].glob("*.tar"))
    assert check(str(one)) == 1, "images of other shards are missing"
    (tmp_path / one.name).write_bytes(one.read_bytes()[:900])
    message = error_of(lambda: check(f"{tmp_path}/*.tar"))
    assert "is cut or no tar file" in message
    assert message == error_of(
        lambda: run_training(
            REFTR, tmp_path / "run", overrides=[f"data.image_root={tmp_path}/*.tar"]
        )
    )
    assert not (tmp_path / INDEX).exists()

"""The project as others get it: a wheel with one import name, and scripts that need no wheel."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import groundwork

ROOT = Path(__file__).parents[2]
NOT_SOURCE = (".*", "tests", "checkpoints", "data", "docs", "runs", "build", "*.egg-info")
DATA_FOLDERS = ("configs", "dataset/vocabularies", "tools/paraphrasing")
USE = """
import importlib, pkgutil
import models
import groundwork
assert models.FOREIGN
for module in pkgutil.walk_packages(groundwork.__path__, "groundwork."):
    importlib.import_module(module.name)
from groundwork.dataset.text import load_tokenizer
from groundwork.settings import load_config
from groundwork.settings.load import CONFIGS
config = load_config(CONFIGS / "reftr" / "refcoco+.yaml")
assert len(load_tokenizer(config.data.text_encoder)) == 30522
print(groundwork.__file__, models.__file__)
from groundwork.__main__ import main
main(["train", "--help"])
"""


def run(*arguments, cwd, path=()):
    """What a Python process printed; its own import path is `path`."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))},
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder into which the wheel was installed, as site-packages."""
    folder = tmp_path_factory.mktemp("package")
    # Made from a copy: setuptools writes beside what it packs, and packs what it wrote before.
    ignore = shutil.ignore_patterns(*NOT_SOURCE)
    source = shutil.copytree(ROOT, folder / "source", symlinks=True, ignore=ignore)
    quiet = ("--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")
    run("-m", "pip", "wheel", *quiet, "--no-build-isolation", "-w", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    run("-m", "pip", "install", *quiet, "--no-compile", "--target", site, wheel, cwd=folder)
    return site


@pytest.fixture
def elsewhere(tmp_path):
    """A folder of another project, which has a package called models."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("FOREIGN = True\n")
    return tmp_path


def test_a_wheel_holds_groundwork_and_nothing_else(installed):
    metadata = f"groundwork-{groundwork.__version__}.dist-info"
    assert {path.name for path in installed.iterdir()} == {"groundwork", metadata}
    package = installed / "groundwork"
    assert not (package / "experiments").exists() and not list(package.rglob("test_*.py"))
    for folder in DATA_FOLDERS:
        sources = [path for path in (ROOT / folder).rglob("*") if path.is_file()]
        missing = [p for p in sources if not (package / p.relative_to(ROOT)).is_file()]
        assert {path.suffix for path in missing} <= {".md", ".pyc"}, missing


def test_a_wheel_works_beside_a_foreign_package_called_models(installed, elsewhere):
    used = run("-c", USE, cwd=elsewhere, path=[installed])
    files, *usage = used.splitlines()
    assert files.split() == [
        f"{installed}/groundwork/__init__.py",
        f"{elsewhere}/models/__init__.py",
    ]
    assert any("--resume" in line for line in usage)
    version = run("-m", "groundwork", "--version", cwd=elsewhere, path=[installed])
    assert version.strip() == groundwork.__version__


def test_a_script_starts_in_place_and_links_are_not_needed(elsewhere):
    assert "--config" in run(ROOT / "train.py", "--help", cwd=elsewhere)
    clone = elsewhere / "clone"
    shutil.copytree(ROOT / "files", clone / "files")
    (clone / "groundwork").mkdir()
    shutil.copy(ROOT / "groundwork" / "__init__.py", clone / "groundwork")
    (clone / "groundwork" / "files").write_text("../files")  # a link as some systems write it
    where = run("-c", "from groundwork.files import foreign; print(foreign.__file__)", cwd=clone)
    assert where.strip() == str(clone / "files" / "foreign.py")

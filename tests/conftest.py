"""Options and fixtures for the whole suite."""

import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(max(1, torch.get_num_threads() // 2))
GOLDEN = Path(__file__).parent / "golden"
# So that none of them is left to one process at the end; make test gives a file to one.
DEAREST = (
    "test_export.py", "test_inputs.py", "test_referring_scripts.py", "test_every_system.py",
    "test_fault_matrix.py", "test_one_answer.py", "test_scripts.py", "test_exported.py",
    "test_quickstart.py", "test_pseudo_labels.py", "test_engine_resume.py", "test_distributed.py",
)  # fmt: skip


def pytest_addoption(parser):
    parser.addoption("--golden-dir", type=Path, default=GOLDEN, help="folder of golden .npz files")
    parser.addoption("--e2e-set", type=Path, help="a set as in tests/e2e/sets, or a folder of sets")
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, too")


def pytest_collection_modifyitems(config, items):
    """Slow tests run with --slow, and on a set that was asked for. The dearest files come first."""
    places = {name: place for place, name in enumerate(DEAREST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
    if config.getoption("--slow") or config.getoption("--e2e-set"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))


def golden_meta(file: Path) -> dict:
    with np.load(file) as arrays:
        return json.loads(str(arrays["meta"]))


def pytest_generate_tests(metafunc):
    """One run per golden file of the system that a test asks for; test ids hold the file's stem."""
    found = metafunc.config.getoption("--golden-dir").glob("*.npz")
    files = sorted(file for file in found if not file.stem.endswith("_trajectory"))
    if "golden_files" in metafunc.fixturenames:
        metafunc.parametrize("golden_files", [files], ids=["all"], scope="module")
    for fixture, system in (
        ("albef_golden", "albef"),
        ("evaluation_golden", "evaluation"),
        ("reftr_golden", "reftr"),
        ("refclip_golden", "refclip"),
        ("simrec_golden", "simrec"),
        ("alvg_golden", "alvg"),
    ):
        if fixture in metafunc.fixturenames:
            mine = [file for file in files if golden_meta(file)["system"] == system]
            metafunc.parametrize(
                fixture, mine, ids=[f.stem for f in mine], indirect=True, scope="module"
            )


def load_golden(file: Path) -> tuple[dict[str, np.ndarray], dict]:
    with np.load(file) as arrays:
        return {name: arrays[name] for name in arrays.files}, golden_meta(file)


@pytest.fixture(scope="module")
def albef_golden(request):
    """(arrays, meta, state-dict layout or None) of one ALBEF file; objectives share layouts."""
    arrays, meta = load_golden(request.param)
    names = (f"amc_{meta['size']}_keys.json", f"{request.param.stem}_keys.json")
    folders = (request.param.parent, GOLDEN)
    layouts = [f / name for f in folders for name in names if (f / name).is_file()]
    return arrays, meta, json.loads(layouts[0].read_text()) if layouts else None


@pytest.fixture(scope="module")
def reftr_golden(request):
    """(arrays, meta, state-dict layout) of one RefTR file."""
    return load_with_layout(request.param)


@pytest.fixture(scope="module")
def refclip_golden(request):
    """(arrays, meta, state-dict layout) of one RefCLIP file."""
    return load_with_layout(request.param)


@pytest.fixture(scope="module")
def simrec_golden(request):
    """(arrays, meta, state-dict layout) of one SimREC file."""
    return load_with_layout(request.param)


@pytest.fixture(scope="module")
def alvg_golden(request):
    """(arrays, meta, state-dict layout) of one ALVG file."""
    return load_with_layout(request.param)


def load_with_layout(file: Path) -> tuple[dict[str, np.ndarray], dict, dict]:
    """A file of a system whose key lists are called SYSTEM_keys_SIZE.json."""
    arrays, meta = load_golden(file)
    name = f"{meta['system']}_keys_{meta['size'].split('_')[0]}.json"
    folders = (file.parent, GOLDEN)
    layout = next(f / name for f in folders if (f / name).is_file())
    return arrays, meta, json.loads(layout.read_text())


@pytest.fixture(scope="module")
def evaluation_golden(request):
    return load_golden(request.param)[0]


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    """A folder with the embedded data set, 40 scenes, where `configs/data.yaml` looks for it."""
    from groundwork.dataset.synthetic import (
        write_dataset,  # here: most tests do without these packages
    )

    folder = tmp_path_factory.mktemp("workplace")
    write_dataset(folder / "data" / "embedded", scenes=40, seed=3)
    return folder


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder of all processes of this run, for what takes long and is the same in each."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def embedded(workplace, monkeypatch):
    """The embedded data set; the working directory is the one that the shipped configs expect."""
    monkeypatch.chdir(workplace)
    handlers, level = logging.root.handlers[:], logging.root.level
    yield workplace / "data" / "embedded"
    # The scripts set up logging for a whole process, which here goes on.
    logging.root.handlers[:], logging.root.level = handlers, level


@pytest.fixture(scope="session")
def trained(workplace):
    """A run folder with two checkpoints of a tiny model that has hardly been trained."""
    import Pretrain_vg
    from tests.helpers.script_runs import train

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        return train(Pretrain_vg, "tiny/Pretrain_vg_amc", workplace / "trained", epochs=2)


@pytest.fixture(scope="session")
def checkpoints(workplace) -> dict[str, Path]:
    """A file of each kind, as a training run leaves it."""
    from tests.helpers.own_checkpoints import write_checkpoints

    return write_checkpoints(workplace, workplace / "own_checkpoints")


@pytest.fixture(scope="session")
def tiny_data(workplace) -> Path:
    """The folder of the embedded data set of `workplace`."""
    return workplace / "data" / "embedded"


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """The embedded data set with the files of every system, 20 scenes."""
    from groundwork.dataset.synthetic import write_dataset

    folder = tmp_path_factory.mktemp("drawn")
    write_dataset(folder, scenes=20, seed=5)
    return folder


@pytest.fixture
def data(drawn, tmp_path):
    """A copy of `drawn` that a test may spoil."""
    return shutil.copytree(drawn, tmp_path / "data")

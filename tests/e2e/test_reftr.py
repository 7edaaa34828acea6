"""RefTR from released files to released outputs, record by record beside the published code.

    pytest tests/e2e/test_reftr.py [--e2e-set FOLDER] [--slow]

Lists of photographs are read if GROUNDWORK_REALDATA names their folder.
"""

import numpy as np
import pytest

from tests.e2e.conftest import photographs, set_of
from tests.e2e.reftr_adapter import evaluate
from tests.e2e.reftr_set import ReftrSet
from tests.e2e.reftr_stages import DATA, RESULTS

SLOW = ("main", "base")
DRAWN = "turned/unc/val"


def pytest_generate_tests(metafunc):
    """A test per list and stage that was recorded of it; of the full-size model only results."""
    stages = {"data_stage": DATA, "result_stage": RESULTS}
    for fixture, table in stages.items():
        if fixture in metafunc.fixturenames:
            recording = ReftrSet(set_of(metafunc.config, "reftr"), None, None).recording
            rows = [
                pytest.param(name, stage, id=f"{name}-{stage}", marks=marks_of(name))
                for name, arrays in recording.items()
                for stage, (_, array) in table.items()
                if array in arrays and not (table is DATA and name.startswith("base"))
            ]
            metafunc.parametrize(("name", fixture), rows)


def marks_of(name):
    return [pytest.mark.slow] if name.startswith(SLOW) else []


@pytest.fixture(scope="module")
def files(request, tmp_path_factory):
    work = tmp_path_factory.mktemp("reftr")
    return ReftrSet(set_of(request.config, "reftr"), work, photographs())


@pytest.fixture(autouse=True)
def only_with_their_pictures(request, files):
    callspec = getattr(request.node, "callspec", None)
    name = callspec.params["name"] if callspec else DRAWN
    if files.photographs is None and files.needs_photographs(name.split("/")[0]):
        pytest.skip("a list of photographs; GROUNDWORK_REALDATA names their folder")


def test_what_enters_the_network_is_the_published_input(files, name, data_stage):
    compare, _ = DATA[data_stage]
    compare(files.recording[name], files.items(name))


def test_what_is_measured_is_the_published_result(files, name, result_stage):
    compare, _ = RESULTS[result_stage]
    compare(files.recording[name], *files.run(name))


def test_a_released_checkpoint_gives_the_results_of_its_weights_alone(files, tmp_path):
    place, split = files.place(DRAWN)
    checkpoint = files.checkpoint("tiny", released=True)
    rows = evaluate(place, [split], checkpoint, tmp_path).rows[split]
    plain, _ = files.run(DRAWN)
    assert np.allclose([row.box for row in rows], [row.box for row in plain.rows[split]])

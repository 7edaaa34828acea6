"""No input for any reader ends in a library's error, a hang or gigabytes of memory.

A sample of what `python -m tests.fuzz` tries.
"""

import pytest

from tests.fuzz import campaign
from tests.fuzz.found import FOUND
from tests.fuzz.readers import PAIRS, READERS

INPUTS = 100


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """The embedded data set, not to be changed."""
    from groundwork.dataset.synthetic import write_dataset

    folder = tmp_path_factory.mktemp("sound")
    write_dataset(folder, scenes=20, seed=5)
    return folder


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_every_input_is_read_or_refused_by_one_clear_error(reader, sound, tmp_path):
    if "ONNX" in reader.name:
        pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    report = campaign.run(reader, sound, tmp_path / "work", INPUTS)
    assert report.inputs >= INPUTS and not report.failed, str(report)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_check_and_run_agree_on_every_list(pair, sound, tmp_path):
    report = campaign.run(pair, sound, tmp_path / "work", 8)
    assert not report.failed, str(report)


def test_every_input_that_was_found_belongs_to_a_reader():
    files = {(reader.name, file) for reader in READERS for file in reader.files}
    assert all((found.reader, found.file) in files for found in FOUND)

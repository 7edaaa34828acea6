"""What tests of rows and of pages share."""

import pytest

from groundwork.report.predictions import Prediction, Run
from tests.helpers.evaluated import prediction, run_with_images


@pytest.fixture
def run(tmp_path) -> Run:
    return run_with_images(tmp_path)


@pytest.fixture
def evaluated() -> list[Prediction]:
    return [prediction(number) for number in range(12)]

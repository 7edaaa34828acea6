"""Drawings that cost tests less."""

import pytest

from groundwork.report import sheet

_DOTS = 40


@pytest.fixture(scope="module", autouse=True)
def coarse_sheets():
    """Image sheets with fewer dots per inch, whose drawing and encoding is half of the time of an
    evaluation of some images. Those that jobs of the fault matrix draw are as they ship. A folder
    of tests takes it into its conftest.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sheet, "DPI", _DOTS)
        yield

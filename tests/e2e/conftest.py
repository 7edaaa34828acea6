"""Sets of released files with what the published code made of them.

A set is a folder as `tests/e2e/sets/<system>`: annotation files, texts and images in the
published form, the description of small weights, and a recording of the published code's outputs.
"""

import os
from pathlib import Path

import pytest

from tests.helpers.sheets import coarse_sheets  # noqa: F401

OWN = Path(__file__).parent / "sets"


def set_of(config: pytest.Config, system: str) -> Path:
    """The folder of a system's set: --e2e-set itself, its subfolder, or the copy that ships."""
    given = config.getoption("--e2e-set")
    if given is None:
        return OWN / system
    inside = given / system
    return inside if inside.is_dir() else given


def photographs() -> Path | None:
    """The folder of real images, which do not ship; None without it."""
    folder = os.environ.get("GROUNDWORK_REALDATA")
    return Path(folder) if folder else None

"""What tests of scripts share."""

from tests.helpers.sheets import coarse_sheets  # noqa: F401

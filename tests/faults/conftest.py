"""What tests of faults share."""

from tests.helpers.sheets import coarse_sheets  # noqa: F401

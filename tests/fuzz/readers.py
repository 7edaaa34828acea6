"""Every reader of files that others may have written."""

from tests.fuzz import annotations, differential, others

READERS = (*annotations.READERS, *others.READERS)
PAIRS = differential.READERS
"""Of check and run, each with some lists of a configuration."""

"""Every reader of files that others may have written."""

from tests.fuzz import annotations, others

READERS = (*annotations.READERS, *others.READERS)

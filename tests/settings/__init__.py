"""Configurations: ours and released ones."""

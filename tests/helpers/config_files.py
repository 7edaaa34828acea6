"""Configurations that ship, released ones, and ones of a test's own."""

from pathlib import Path

from groundwork.settings import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
RELEASED = Path(__file__).parents[1] / "released"


def load_text(folder, text, purpose="training", overrides=()):
    """The configuration that a YAML text in a file of `folder` means."""
    path = folder / "own.yaml"
    path.write_text(text)
    return load_config(path, overrides, purpose=purpose)

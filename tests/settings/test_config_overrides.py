"""Every key of every configuration that ships may be set to the value it has: nothing changes.

A default that lives in a factory of the section above, and not in the section's own type or in the
YAML, is lost as soon as another key of the section is set.
"""

import copy
import functools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from groundwork.jobs.benchmark_files import require_benchmark
from groundwork.settings import (
    DetectorConfig,
    RunConfig,
    load,
    load_config,
    load_detector,
    to_dict,
)

CONFIGS = Path(__file__).parents[2] / "configs"
# Not for use by themselves: what others build on, and the paths.
PARTS = {"base", "data", "large", "res", "model", "training"}
SHIPPED = sorted(path for path in CONFIGS.rglob("*.yaml") if path.stem not in PARTS)


def loaded(path: Path, *overrides: str) -> RunConfig | DetectorConfig:
    if "detector" in (path.parent.name, path.stem):
        return load_detector(path, overrides)
    evaluation = path.stem.startswith("Grounding")
    return load_config(path, overrides, purpose="evaluation" if evaluation else "training")


def settings_of(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything in a configuration that has no keys below it."""
    if isinstance(value, dict) and value:
        keys = list(value.items())
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        keys = list(enumerate(value))
    else:
        yield place, value
        return
    for key, item in keys:
        yield from settings_of(item, f"{place}.{key}" if place else str(key))


@pytest.fixture
def parsed_once(monkeypatch) -> None:
    """Files and values are parsed once: the test reads each file some hundred times."""
    parse = functools.cache(load.parse_yaml)
    monkeypatch.setattr(load, "parse_yaml", lambda text, where: copy.deepcopy(parse(text, where)))


@pytest.mark.usefixtures("parsed_once")
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_setting_a_key_to_its_own_value_changes_nothing(path):
    config = loaded(path)
    for key, value in settings_of(to_dict(config)):
        override = f"{key}={json.dumps(value)}"
        assert loaded(path, override) == config, override


def test_a_key_of_a_section_leaves_the_defaults_of_the_others():
    simrec = CONFIGS / "simrec" / "refcoco.yaml"
    assert load_config(simrec, ["model.text.dropout=0.0"]).model.text.layers == 1
    grounding = CONFIGS / "Grounding_refcoco.yaml"
    changed = load_config(grounding, ["model.embed_dim=128"], purpose="evaluation")
    assert (
        changed.model.image_size
        == load_config(grounding, purpose="evaluation").model.image_size
        == 384
    )


def test_what_ships_is_of_the_benchmark_that_it_names():
    """By the splits and the places of the published files."""
    configs = {path: loaded(path) for path in SHIPPED}
    for path, config in configs.items():
        if isinstance(config, RunConfig):
            require_benchmark(config, str(path))
    plus = configs[CONFIGS / "refclip" / "refcoco+.yaml"]
    with pytest.raises(ValueError, match=r"x\.yaml: benchmark is refcoco, but .* is of refcoco\+"):
        require_benchmark(replace(plus, benchmark="refcoco"), "x.yaml")

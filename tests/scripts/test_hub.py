"""hubconf.py, as torch.hub reads it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import hubconf
from groundwork.jobs.tokenizers import beside_weights, load_texts
from groundwork.models import SYSTEMS
from groundwork.settings import load_config, to_dict
from tests.helpers.script_runs import CONFIGS

ROOT = str(Path(__file__).parents[2])
TINY = {
    name: CONFIGS / ("tiny/Pretrain_vg_amc" if name == "albef" else f"tiny/{name}/refcoco+")
    for name in SYSTEMS
}

pytestmark = pytest.mark.usefixtures("embedded")


def hub(system, *arguments, **keywords):
    return torch.hub.load(ROOT, system, *arguments, source="local", **keywords)


@pytest.fixture
def saved(tmp_path):
    """system -> (file of a tiny system's own weights with its configuration, those weights)."""

    def save(system):
        config = load_config(TINY[system].with_suffix(".yaml"))
        texts = load_texts(config)
        model = SYSTEMS[system].build(config.model, texts).model
        published = SYSTEMS[system].published_state(model)
        content = {"model": published, "config": to_dict(config)}
        content |= {**SYSTEMS[system].beside, **beside_weights(texts)}
        torch.save(content, tmp_path / "own.pth")
        return tmp_path / "own.pth", model.state_dict()

    return save


def test_every_system_has_an_entry():
    entries = {name for name, value in vars(hubconf).items() if callable(value)}
    assert {name for name in entries if not name.startswith("_")} == {*SYSTEMS, "grounder"}
    assert all(importlib.util.find_spec(name) for name in hubconf.dependencies)


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_entry_gives_a_system_with_the_weights_of_its_file(system, saved):
    file, state = saved(system)
    for parts in (hub(system, file), hub(system, file, config=str(TINY[system]) + ".yaml")):
        assert not parts.evaluated.training
        found = parts.model.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in found.items())


def test_the_grounder_of_the_hub_answers_for_a_file_of_any_system(saved):
    file, _ = saved("simrec")
    grounder = hub("grounder", file, device="cpu")
    (found,) = grounder.ground(np.zeros((40, 60, 3), np.uint8), "the red circle")
    assert grounder.about.system == "simrec" and found.boxes.shape == (1, 4)


def test_an_entry_refuses_another_system_and_a_file_that_does_not_say_what_it_is(saved, tmp_path):
    file, _ = saved("reftr")
    with pytest.raises(ValueError, match="is of reftr, not of simrec"):
        hub("simrec", file)
    torch.save({"model": {}}, tmp_path / "published.pth")
    with pytest.raises(ValueError, match="holds no configuration; name one"):
        hub("reftr", tmp_path / "published.pth")

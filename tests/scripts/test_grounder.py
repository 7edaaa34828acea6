"""`Grounder`: one image and some phrases; that it says what an evaluation says is in
test_one_answer.py."""

import numpy as np
import pytest

import groundwork
from groundwork import Grounder
from groundwork.jobs.systems import SHIPPED
from groundwork.models.common.explain import METHODS
from tests.helpers.published_files import drawn

pytestmark = pytest.mark.usefixtures("embedded")


def test_importing_the_package_imports_no_torch_and_knows_the_class():
    assert groundwork.Grounder is Grounder
    assert "Grounder" in groundwork.__all__


@pytest.mark.parametrize("method", METHODS)
def test_a_phrase_has_the_same_heat_map_whichever_others_are_asked_with_it(method):
    grounder = Grounder.load(
        SHIPPED, device="cpu", overrides=[f"model.explanation.method={method}"]
    )
    longer = "the small blue square on the left of the large green triangle"
    (alone,) = grounder.ground(drawn(), "a star", words=True)
    together, _ = grounder.ground(drawn(), ["a star", longer], words=True)
    top = float(alone.heatmap.max())
    assert top > 0 and alone.point == together.point
    assert together.heatmap == pytest.approx(alone.heatmap, abs=1e-4 * top)
    for one, other in zip(together.word_maps, alone.word_maps, strict=True):
        assert np.abs(one.heatmap - other.heatmap).max() <= 1e-4 * other.heatmap.max()

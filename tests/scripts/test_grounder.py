"""`Grounder`: one image and some phrases, by a checkpoint of any system."""

from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

import groundwork
from groundwork import Grounder
from groundwork.geometry import runs_to_mask
from tests.helpers.own_checkpoints import KINDS, evaluated

pytestmark = pytest.mark.usefixtures("embedded")


def test_importing_the_package_imports_no_torch_and_knows_the_class():
    assert groundwork.Grounder is Grounder
    assert "Grounder" in groundwork.__all__


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_what_an_evaluation_says(kind, checkpoints, tmp_path):
    run, predictions = evaluated(kind, checkpoints[kind], tmp_path / "out")
    grounder = Grounder.load(checkpoints[kind], device="cpu")
    assert grounder.about.system == kind.split("_")[0]
    of_images = [list(found) for _, found in groupby(predictions, lambda one: one.image)]
    assert any(len({one.point for one in found}) > 1 for found in of_images[:6])
    for expected in of_images[:6]:
        path = Path(run.image_root, expected[0].image)
        found = grounder.ground(path, [one.phrase for one in expected])
        for one, other in zip(found, expected, strict=True):
            assert one.size == other.size
            assert one.point == pytest.approx(other.point, abs=0.01)
            boxes = [other.box] if other.box and not other.several else other.found
            assert one.boxes == pytest.approx(np.reshape(boxes, (-1, 4)), abs=0.01)
            if other.score is not None:
                assert one.scores[0] == pytest.approx(other.score, abs=1e-3)
            if other.mask is not None:
                # A probability of one half may fall on either side.
                assert (one.mask != runs_to_mask(other.mask, one.size)).mean() < 1e-3

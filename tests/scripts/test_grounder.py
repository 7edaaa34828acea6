"""`Grounder`: one image and some phrases; that it says what an evaluation says is in
test_one_answer.py."""

import numpy as np
import pytest
import torch
from PIL import Image

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


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    return Grounder.load(SHIPPED, device="cpu")


@pytest.mark.parametrize(
    ("phrases", "said"),
    [
        (None, "None is of type NoneType"),
        (["a ring", float("nan")], "nan is of type float"),
        (b"a ring", "b'a ring' is of type bytes"),
        ("a caf\udce9", r"holds '\\udce9', which is no letter"),
    ],
)
def test_a_phrase_that_is_no_text_is_named(phrases, said, grounder):
    with pytest.raises(ValueError, match=f"phrase .*{said}"):
        grounder.ground(drawn(), phrases)


def test_a_tensor_of_half_precision_is_an_image(grounder):
    image = torch.rand(3, 40, 60).bfloat16()
    (one,), (other,) = (grounder.ground(each, "a ring") for each in (image, image.float()))
    assert one.point == other.point and one.score == other.score


def test_a_pillow_image_that_cannot_be_decoded_any_more_is_said_to_be_damaged(grounder, tmp_path):
    file = tmp_path / "a.jpg"
    Image.fromarray(drawn()).save(file)
    with Image.open(file) as closed:
        pass
    file.write_bytes(file.read_bytes()[:-200])
    for image in (closed, Image.open(file)):
        with pytest.raises(ValueError, match="the image cannot be decoded"):
            grounder.ground(image, "a ring")


def test_a_text_in_the_place_of_the_image_is_a_file_that_does_not_exist(grounder):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        grounder.ground("the red circle " * 500, "a ring")


def test_a_configuration_that_was_read_takes_no_overrides(grounder):
    with pytest.raises(ValueError, match=r"overrides .* are not applied to a configuration"):
        Grounder.load(
            SHIPPED, config=grounder._loaded.config, overrides=["model.explanation.region=otsu"]
        )

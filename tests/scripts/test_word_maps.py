"""Maps of words: of the AMC model that ships, and of systems that have none."""

from pathlib import Path

import numpy as np
import pytest

import predict
from groundwork import Grounder
from groundwork.jobs.systems import SHIPPED
from groundwork.models.common.explain import METHODS
from tests.helpers.own_checkpoints import write_checkpoint
from tests.helpers.script_runs import error_of

pytestmark = pytest.mark.usefixtures("embedded")
# Of different length; "hexagon" is not in the vocabulary, which cuts it into letters.
PHRASES = ["star", "the red circle", "the small blue hexagon to the left of the green square"]
# Those whose map is a mean over tokens; the others read the row of [CLS].
OVER_TOKENS = ("gradcam", "attention", "gradient_attention", "legrad")


@pytest.fixture
def image(embedded) -> Path:
    return sorted((embedded / "images" / "test").glob("*.jpg"))[0]


@pytest.fixture(scope="module")
def amc() -> Grounder:
    return Grounder.load(SHIPPED, device="cpu")


def test_the_words_are_those_of_the_phrase_after_the_token_of_the_whole_text(amc, image):
    for found, phrase in zip(amc.ground(image, PHRASES, words=True), PHRASES, strict=True):
        assert [word.word for word in found.word_maps] == ["[CLS]", *phrase.split()]
        for word in found.word_maps:
            assert word.pieces == (len("hexagon") if word.word == "hexagon" else 1)
            assert word.heatmap.shape == found.heatmap.shape
            assert np.isfinite(word.heatmap).all() and (word.heatmap >= 0).all()


@pytest.mark.parametrize("method", OVER_TOKENS)
def test_the_map_of_a_phrase_is_the_mean_of_its_words_by_their_pieces(method, image):
    grounder = Grounder.load(
        SHIPPED, device="cpu", overrides=[f"model.explanation.method={method}"]
    )
    # Asked together, so that the shorter ones are padded.
    for found in grounder.ground(image, PHRASES, words=True):
        total = sum(word.pieces * word.heatmap for word in found.word_maps)
        mean = total / sum(word.pieces for word in found.word_maps)
        assert found.heatmap.max() > 0
        np.testing.assert_allclose(mean, found.heatmap, rtol=1e-5, atol=1e-6)
        # Of many orders below 1, too.
        assert np.abs(mean - found.heatmap).max() < 1e-5 * found.heatmap.max()


@pytest.mark.parametrize("method", METHODS)
def test_asking_for_words_changes_no_bit_of_the_answer(method, image):
    grounder = Grounder.load(
        SHIPPED, device="cpu", overrides=[f"model.explanation.method={method}"]
    )
    plain = grounder.ground(image, PHRASES)
    for one, other in zip(grounder.ground(image, PHRASES, words=True), plain, strict=True):
        assert np.array_equal(one.heatmap, other.heatmap)
        assert (one.point, one.score, one.evidence) == (other.point, other.score, other.evidence)
        assert one.word_maps and not other.word_maps


@pytest.mark.parametrize("method", sorted(set(METHODS) - set(OVER_TOKENS)))
def test_where_the_row_of_cls_is_the_map_it_is_that_of_its_token(method, image):
    grounder = Grounder.load(
        SHIPPED, device="cpu", overrides=[f"model.explanation.method={method}"]
    )
    for found in grounder.ground(image, PHRASES, words=True):
        assert np.array_equal(found.word_maps[0].heatmap, found.heatmap)


def test_words_of_colour_and_of_shape_are_found_by_different_maps(amc, embedded):
    images = sorted((embedded / "images" / "test").glob("*.jpg"))
    for image in images:
        (found,) = amc.ground(image, "the green triangle", words=True)
        maps = {word.word: word.heatmap / word.heatmap.max() for word in found.word_maps}
        assert np.abs(maps["green"] - maps["triangle"]).max() > 0.05


def test_a_word_that_comes_twice_has_a_map_for_each_time(amc, image):
    (found,) = amc.ground(image, "the circle above the circle", words=True)
    first, second = (word for word in found.word_maps if word.word == "circle")
    assert not np.array_equal(first.heatmap, second.heatmap)


def test_systems_without_maps_of_words_say_so(image, tmp_path):
    reftr = write_checkpoint("reftr", tmp_path / "reftr.pth")
    grounder = Grounder.load(reftr, device="cpu")
    assert not grounder.gives_word_maps
    with pytest.raises(ValueError, match="leave words out"):
        grounder.ground(image, PHRASES, words=True)
    by_similarity = Grounder.load(
        write_checkpoint("albef", tmp_path / "albef.pth"),
        device="cpu",
        overrides=["model.explanation.mode=itc"],
    )
    assert not by_similarity.gives_word_maps
    with pytest.raises(ValueError, match="leave words out"):
        by_similarity.ground(image, PHRASES, words=True)
    call = [str(image), "star", "--words", "--checkpoint", str(reftr), "--out", str(tmp_path / "o")]
    assert "ask a checkpoint of ALBEF" in error_of(lambda: predict.main(call))
    assert not (tmp_path / "o").exists()


def test_predict_draws_a_strip_of_those_that_have_them(image, tmp_path):
    reftr = write_checkpoint("reftr", tmp_path / "reftr.pth")
    call = [str(image), *PHRASES[:2], "--device", "cpu", "--checkpoint", str(SHIPPED), str(reftr)]
    predict.main([*call, "--words", "--out", str(tmp_path / "words")])
    (strip,) = (tmp_path / "words" / "words").iterdir()
    assert strip.name == f"{image.name}.png" and strip.stat().st_size > 10_000
    predict.main([*call, "--out", str(tmp_path / "plain")])
    assert not (tmp_path / "plain" / "words").exists()

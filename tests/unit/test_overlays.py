"""Drawing what was found into images of any shape."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from groundwork.geometry import Grounding, WordMap
from groundwork.report.overlays import (
    MOST,
    Answer,
    as_image,
    draw_overlays,
    draw_words,
    save_overlays,
    verdict,
)
from groundwork.report.sheet import overlay


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def grounding(size: tuple[int, int], **more) -> Grounding:
    height, width = size
    box = np.array([[width / 4, height / 4, width / 2, height / 2]])
    found = Grounding("the red circle", (width / 3, height / 3), box, np.ones(1), None, None, size)
    return replace(found, **more)


@pytest.mark.parametrize("size", [(96, 128), (900, 90), (60, 1200), (1, 1)])
def test_a_drawing_is_readable_whatever_the_shape_of_the_image(size):
    heat = np.eye(8, dtype=np.float32)
    answer = Answer("one", [grounding(size, heatmap=heat, derived=frozenset({"box"}))])
    drawn = draw_overlays(picture(*size), [answer])
    width, height = drawn.get_size_inches()
    assert 2 <= width <= 12 and height <= 12
    assert as_image(drawn).size == (int(width * drawn.dpi), int(height * drawn.dpi))


def test_box_mask_and_verdict_change_what_is_drawn():
    size, image = (80, 100), picture(80, 100)
    mask = np.zeros(size, dtype=bool)
    mask[20:40, 30:60] = True
    kinds = [
        grounding(size),
        grounding(size, mask=mask),
        grounding(size, score=0.25),
        grounding(size, present=0.1),
        grounding(size, present=0.9),
        grounding(size, heatmap=np.eye(4, dtype=np.float32)),
    ]
    images = {as_image(draw_overlays(image, [Answer("one", [one])])).tobytes() for one in kinds}
    assert len(images) == len(kinds)
    assert verdict(kinds[3]) == "not there, present 10%"
    assert verdict(kinds[2]) == "score 0.25"


def test_what_has_no_box_or_is_improbable_is_not_there():
    none = grounding((80, 100), boxes=np.zeros((0, 4)), scores=np.zeros(0))
    assert not none.is_there and verdict(none) == "not there"
    assert grounding((80, 100), present=0.4, threshold=0.3).is_there
    assert not grounding((80, 100), present=0.4).is_there


def test_opacity_goes_from_the_image_to_the_heat_map():
    image, heat = picture(16, 16), np.eye(4, dtype=np.float32)
    assert (overlay(image, heat, 0) == image).all()
    half, whole = overlay(image, heat, 0.5).astype(int), overlay(image, heat).astype(int)
    assert np.abs(half - (image + whole) / 2).max() <= 1 and (whole != image).any()


def test_many_phrases_go_into_several_images(tmp_path):
    size = (40, 50)
    answers = [Answer(name, [grounding(size)] * (MOST + 1)) for name in ("one", "two")]
    files = save_overlays(tmp_path / "a.jpg.png", picture(*size), answers)
    assert [file.name for file in files] == ["a.jpg.png", "a.jpg_2.png"]
    heights = [Image.open(file).height for file in files]
    assert heights[0] > 8 * heights[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f.name for f in files)


def test_words_have_rows_of_their_own_also_where_the_phrase_is_not_there():
    size, image = (80, 100), picture(80, 100)
    heat = np.eye(8, dtype=np.float32)
    words = tuple(WordMap(f"word{n}", 1 + n % 2, np.roll(heat, n, axis=0)) for n in range(12))
    found = grounding(size, heatmap=heat, word_maps=words, derived=frozenset({"box"}))
    absent = replace(found, present=0.1)
    one, two = (draw_words(image, [Answer("one", [found] * n)]) for n in (1, 2))
    # The phrase and its 12 words fill two rows.
    assert len(one.axes) == 13 and len(two.axes) == 26
    assert 1.8 < two.get_size_inches()[1] / one.get_size_inches()[1] < 2
    texts = [text.get_text() for text in one.texts]
    assert {"word0", "word11"} <= set(texts)
    assert texts.count("6% of the heat") == 6 and texts.count("11% of the heat") == 6
    told = [text.get_text() for text in draw_words(image, [Answer("one", [absent])]).texts]
    assert "not there, present 10%" in told
    drawn = draw_words(image, [Answer("one", [absent])]).axes[1].images[0].get_array()
    assert (drawn == one.axes[1].images[0].get_array()).all(), "the map of a word does not fade"

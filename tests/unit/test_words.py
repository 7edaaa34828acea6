"""Whole words as tokens, their vectors, and images in the middle of a square."""

import numpy as np
import pytest

from groundwork.dataset.letterbox import GREY, letterbox, letterbox_of
from groundwork.dataset.referring.transforms import ReferringTransform
from groundwork.dataset.words import SPECIAL, Vocabulary, split_words
from groundwork.models.common.letterbox import to_image
from groundwork.models.common.word_vectors import word_matrix, word_vectors

WORDS = Vocabulary.of_texts(["The girl's red-shirt", "red dog"])


def write(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# --- words ----------------------------------------------------------------------------------------


def test_punctuation_goes_and_hyphens_part_words():
    assert split_words("The GIRL's red-shirt, on/near (it)!?") == [
        "the", "girls", "red", "shirt", "on", "near", "it",
    ]  # fmt: skip


def test_words_are_numbered_as_they_appear_after_the_special_ones():
    assert WORDS.words == [*SPECIAL, "the", "girls", "red", "shirt", "dog"]
    assert WORDS("red unicorn, the dog")["input_ids"] == [5, 1, 3, 7]
    assert WORDS("red dog the", truncation=True, max_length=2)["input_ids"] == [5, 7]
    # The special words cannot be said: texts are lower case.
    assert WORDS("PAD UNK")["input_ids"] == [1, 1] and WORDS(" ?! ")["input_ids"] == []


def test_a_vocabulary_comes_back_from_its_file(tmp_path):
    WORDS.save(tmp_path / "words.txt")
    assert Vocabulary.read(tmp_path / "words.txt") == WORDS


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["[PAD]", "the"], "no vocabulary of whole words; it begins with PAD, UNK, CLS"),
        ([*SPECIAL, "dog", "cat", "dog"], "'dog' is in the vocabulary twice"),
    ],
)
def test_other_files_are_no_vocabularies(tmp_path, lines, message):
    with pytest.raises(ValueError, match=r"words\.txt") as error:
        Vocabulary.read(write(tmp_path / "words.txt", lines))
    assert message in str(error.value)
    with pytest.raises(FileNotFoundError, match="is written beside checkpoints"):
        Vocabulary.read(tmp_path / "nowhere.txt")


# --- vectors --------------------------------------------------------------------------------------


def test_vectors_come_from_words_from_parts_or_are_zero(tmp_path):
    path = write(tmp_path / "glove.txt", ["red 1 2", "t 3 4", "shirt 5 6", ". . . 7 8", "red 9 9"])
    words = ["red", "t_shirt", "unicorn"]
    table, coverage = word_vectors(words, path, 2)
    assert table.tolist() == [[1, 2], [4, 5], [0, 0]] and table.dtype == np.float32
    assert (coverage.found, coverage.joined, coverage.missing) == (1, 1, ("unicorn",))
    assert "vectors for 1 of 3 words, for 1 more from their parts; 1 have none" in str(coverage)


def test_the_header_of_word2vec_is_no_word(tmp_path):
    path = write(tmp_path / "vectors.txt", ["1 2", "red 1 2"])
    assert word_vectors(["red"], path, 2)[0].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["red 1 2 3"], None),
        (["red 1"], "expected a word and 2 numbers"),
        (["red one two"], "expected a word and 2 numbers"),
        (["blue 1 2"], "has a vector for none of the 1 words"),
    ],
)
def test_files_of_another_width_or_of_no_word_are_refused(tmp_path, lines, message):
    path = write(tmp_path / "glove.txt", lines)
    with pytest.raises(ValueError, match=message or "none of the 1 words"):
        word_vectors(["red"], path, 2)
    with pytest.raises(FileNotFoundError, match=r"glove\.840B\.300d\.txt"):
        word_vectors(["red"], tmp_path / "nowhere", 2)


def test_a_matrix_has_a_row_for_every_word(tmp_path):
    table = np.arange(6.0).reshape(3, 2)
    np.save(tmp_path / "words.npy", table)
    found = word_matrix(["a", "b", "c"], tmp_path / "words.npy", 2)
    assert found.dtype == np.float32 and (found == table).all()
    with pytest.raises(ValueError, match="needs 4 vectors of 2"):
        word_matrix(["a", "b", "c", "d"], tmp_path / "words.npy", 2)
    np.save(tmp_path / "code.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        word_matrix(["a"], tmp_path / "code.npy", 2)


# --- letterbox ------------------------------------------------------------------------------------


def test_the_image_lies_in_the_middle_of_grey():
    canvas, place = letterbox(np.zeros((50, 100, 3), dtype=np.uint8), 64)
    assert place == ((32, 64), (0, 16)) and canvas.shape == (64, 64, 3)
    assert not canvas[16:48].any() and (canvas[:16] == GREY).all() and (canvas[48:] == GREY).all()


@pytest.mark.parametrize("size", [(50, 100), (331, 97), (10, 1000), (1000, 10), (64, 64)])
def test_boxes_come_back_to_the_image(size):
    place = letterbox_of(size, 416)
    (height, width), (left, top) = place
    whole = np.array([left, top, left + width, top + height], dtype=float)
    np.testing.assert_allclose(to_image(whole, size, *place), [0, 0, size[1], size[0]])


def test_the_transform_says_where_the_image_lies():
    transform = ReferringTransform(96, 96, "letterbox", normalize=False)
    size = (48, 24)
    assert transform.resized(size) == (96, 48) and transform.offset(size) == (24, 0)
    image = transform(np.full((*size, 3), 255, dtype=np.uint8))
    assert image.shape == (3, 96, 96) and image.max() == 1
    assert image[0, 0, 0].item() == pytest.approx(GREY / 255)

"""Phrases with a target in an image and without one, as annotations say or by other images."""

from pathlib import Path

import pytest

from groundwork.dataset.absent import Asked, annotated, of_wrong_images
from groundwork.dataset.record import Phrase, Record
from groundwork.dataset.sources import read_splits

BOX = ((0.0, 0.0, 1.0, 1.0),)


def read(file: Path, format_name: str) -> list[tuple[Path, Record]]:
    records = read_splits({"val": [str(file)]}, format_name)
    return [(Path(record.image), record) for record in records]


@pytest.fixture(scope="module")
def said(tiny_data) -> list[Asked]:
    return annotated(read(tiny_data / "refcoco+" / "refs(unc).p", "refer"))


def test_the_no_targets_of_grefcoco_are_those_of_its_annotations(tiny_data):
    records = read(tiny_data / "annotations" / "grefcoco" / "instances.json", "instances")
    asked = annotated(records)
    nothing = {
        (path, phrase.text)
        for path, record in records
        for phrase in record.phrases
        if phrase.matches_nothing
    }
    assert nothing
    assert {(one.image, one.phrase) for one in asked if not one.there} == nothing
    assert sum(one.there for one in asked) > len(nothing)


def test_what_annotations_leave_open_is_left_out_and_what_they_repeat_comes_once():
    phrases = (
        Phrase("the sky"),  # neither a box nor marked
        Phrase("...", boxes=BOX),  # no word
        Phrase("a dog", boxes=BOX),
        Phrase("a dog", boxes=BOX),
        Phrase("a cat", matches_nothing=True),
        Phrase("a cow", matches_nothing=True, boxes=BOX),  # contradicts itself: evaluated as none
    )
    found = annotated([(Path("a.jpg"), Record("a.jpg", 9, 9, phrases))])
    assert [(one.phrase, one.there) for one in found] == [
        ("a dog", True), ("a cat", False), ("a cow", False),
    ]  # fmt: skip


def test_a_phrase_goes_to_an_image_whose_annotations_do_not_contain_it(said):
    assert all(one.there for one in said)
    made = of_wrong_images(said, seed=0)
    assert 0.9 * len(said) < len(made) <= len(said)
    assert not any(one.there for one in made)
    words = {
        image: [set(one.phrase.split()) for one in said if one.image == image]
        for image in {one.image for one in said}
    }
    for one in made:
        assert not any(set(one.phrase.split()) - {"the"} <= other for other in words[one.image])
    assert len({one.image for one in made}) > 1


def test_the_draw_is_that_of_the_seed(said):
    assert of_wrong_images(said, seed=3) == of_wrong_images(said, seed=3)
    assert of_wrong_images(said, seed=3) != of_wrong_images(said, seed=4)


def test_what_every_image_contains_is_paired_with_none():
    one, other = Path("a.jpg"), Path("b.jpg")
    asked = [
        Asked(one, "the red dog", True),
        Asked(other, "a red dog on grass", True),
        Asked(other, "a cat", False),
    ]
    # Image b contains "red dog"; image a does not contain "on grass". The cat has no target.
    assert of_wrong_images(asked, seed=0) == [Asked(one, "a red dog on grass", False)]

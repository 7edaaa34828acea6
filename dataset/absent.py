"""Phrases that mean something in an image and phrases that do not, to tell the two apart by."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from groundwork.dataset.images import ImagePlace
from groundwork.dataset.record import Record
from groundwork.dataset.text import clean_caption

_ARTICLES = frozenset({"a", "an", "the"})
_TRIES = 100
_ALL = 1000  # words


class Asked(NamedTuple):
    """A phrase about an image file; `there`: what it means is in it."""

    image: ImagePlace
    phrase: str
    there: bool


def annotated(records: Iterable[tuple[ImagePlace, Record]]) -> list[Asked]:
    """What annotations say of their phrases: those with boxes have a target, those that are marked
    `matches_nothing` have none. What says neither, and what has no word, is left out; what is said
    twice of an image comes once."""
    found: dict[tuple[ImagePlace, str], bool] = {}
    for path, record in records:
        for phrase in record.phrases:
            known = bool(phrase.boxes) or phrase.matches_nothing
            if known and clean_caption(phrase.text, _ALL):
                key = (path, phrase.text)
                found[key] = found.get(key, False) or not phrase.matches_nothing
    return [Asked(path, phrase, there) for (path, phrase), there in found.items()]


def of_wrong_images(asked: Sequence[Asked], seed: int) -> list[Asked]:
    """Every phrase that has a target once more, about another image, drawn from those whose
    annotations do not contain it: no phrase with a target there has all of its words (articles do
    not count). A phrase for which none is found is left out.

    An image may show what nobody said of it, so that some of these have a target after all.

    Args:
        seed: the same gives the same.
    """
    said: dict[ImagePlace, list[frozenset[str]]] = defaultdict(list)
    for one in asked:
        if one.there:
            said[one.image].append(_words(one.phrase))
    images, random = list(said), np.random.default_rng(seed)
    found = []
    for one in asked:
        words = _words(one.phrase)
        for _ in range(_TRIES if one.there else 0):
            image = images[int(random.integers(len(images)))]
            if not any(words <= other for other in said[image]):
                found.append(Asked(image, one.phrase, there=False))
                break
    return found


def _words(phrase: str) -> frozenset[str]:
    return frozenset(clean_caption(phrase, _ALL).split()) - _ARTICLES

"""Kinds of expressions, and how right a system is about each."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from groundwork import geometry
from groundwork.metrics import bootstrap_interval
from groundwork.report.predictions import Prediction, Run, correct, gives_boxes

_COLOURS = (
    "red green blue yellow purple white black brown grey gray orange pink golden violet tan beige"
)
_RELATIONS = (
    "above below under over behind between beside near next front facing holding wearing closest "
    "beneath atop underneath touching"
)
_ORDINALS = (
    "first second third fourth fifth last 1st 2nd 3rd 4th 5th leftmost rightmost topmost lowest "
    "middle center centre"
)
WORDS: Mapping[str, frozenset[str]] = {
    "left, right": frozenset("left right leftmost rightmost l r".split()),
    "colours": frozenset(_COLOURS.split()),
    "relations": frozenset(_RELATIONS.split()),
    "ordinals, extremes": frozenset(_ORDINALS.split()),
}
OTHER = "none of these"
# Bounds, and the names of what lies below each; shares are of the image's area.
_SIZES = (0.02, "under 2 %"), (0.1, "2 to 10 %"), (0.3, "10 to 30 %"), (2.0, "30 % and more")
_LENGTHS = (3, "1 or 2"), (6, "3 to 5"), (10, "6 to 9"), (float("inf"), "10 and more")


class Group(NamedTuple):
    """A kind of expressions: how many, and the percentage that is right with its interval."""

    name: str
    n: int
    value: float
    low: float
    high: float


def words_of(phrase: str) -> list[str]:
    """The words of a phrase in small letters."""
    return re.findall(r"\w+", phrase.lower())


def kinds_of(prediction: Prediction) -> list[str]:
    """The kinds of words that an expression has; a relation with "of", such as "left of", is one of
    both."""
    words = words_of(prediction.phrase)
    found = [kind for kind, known in WORDS.items() if known & set(words)]
    sides = WORDS["left, right"]
    said = any(a in sides and b == "of" for a, b in pairwise(words))
    if said and "relations" not in found:
        found.append("relations")
    return found or [OTHER]


def size_of(prediction: Prediction) -> str:
    """The share of the image that the true boxes cover."""
    if not prediction.boxes:
        return "nothing is meant"
    height, width = prediction.size
    inside = geometry.clip_boxes(geometry.as_boxes(prediction.boxes), prediction.size)
    share = geometry.union_area(inside) / (height * width)
    return next(name for bound, name in _SIZES if share < bound)


def length_of(prediction: Prediction) -> str:
    """How many words an expression has."""
    return next(name for bound, name in _LENGTHS if len(words_of(prediction.phrase)) < bound)


GROUPINGS: Mapping[str, tuple[Callable[[Prediction], Iterable[str]], Sequence[str]]] = {
    "size of the target, of the image": (
        lambda one: [size_of(one)],
        [*(name for _, name in _SIZES), "nothing is meant"],
    ),
    "words of the expression": (lambda one: [length_of(one)], [name for _, name in _LENGTHS]),
    "kinds of words": (kinds_of, [*WORDS, OTHER]),
}
"""What expressions are grouped by: the groups of one, and all groups in their order."""


def breakdown(run: Run, predictions: Sequence[Prediction]) -> dict[str, list[Group]]:
    """How right a system is per group, by `correct`; groups without an expression are left out. An
    expression may be in several groups of words."""
    boxes = gives_boxes(run)
    found: dict[str, list[Group]] = {}
    for title, (names, order) in GROUPINGS.items():
        members: dict[str, list[Prediction]] = {name: [] for name in order}
        for prediction in predictions:
            for name in names(prediction):
                members[name].append(prediction)
        found[title] = [
            _group(name, kept, boxes, run.seed) for name, kept in members.items() if kept
        ]
    return found


def _group(name: str, predictions: Sequence[Prediction], boxes: bool, seed: int) -> Group:
    hits = [100.0 * correct(one, boxes=boxes) for one in predictions]
    images = [one.image for one in predictions]
    low, high = bootstrap_interval(hits, groups=images, seed=seed)
    return Group(name, len(hits), sum(hits) / len(hits), low, high)

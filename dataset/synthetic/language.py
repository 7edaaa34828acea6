"""What is said about a scene: descriptions with known targets, their texts, captions and
paraphrases.

A description is evaluated with a margin: an object that fulfils it only just (a circle hardly left
of the middle) is neither a match nor excluded, and an expression is kept only if its targets are
the same under the strict and under the generous reading.
"""

from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np

from groundwork.dataset.synthetic.scenes import Scene, Thing
from groundwork.dataset.synthetic.vocabulary import COLOURS, POSITIONS, RELATIONS, SHAPES, SYNONYMS

EXTREMES = {"left": "leftmost", "right": "rightmost", "top": "topmost", "bottom": "lowest"}
ORDER = ("size", "texture", "colour", "shape")
_DIRECTION = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
_RELATION_SIDE = dict(zip(RELATIONS, POSITIONS, strict=True))
_MARGIN = 0.08  # of the image's extent: closer calls are left unsaid
_CAPTION_DETAIL = {1: 0.85, 2: 0.6, 3: 0.3, 4: 0.2, 5: 0.2}  # rate of size and of texture words
_MAX_WORDS = 22  # with [CLS] and [SEP] below the 25 tokens of the published configurations


@dataclass(frozen=True)
class Description:
    """Meaning of an expression: attributes of the target and at most one of position, extreme,
    relation to an anchor."""

    attributes: tuple[tuple[str, str], ...]
    position: str = ""
    extreme: str = ""
    relation: str = ""
    anchor: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, object]:
        """The parts that are set; attributes as `{name: word}`."""
        parts = {key: value for key, value in asdict(self).items() if value}
        return {k: dict(v) if k in ("attributes", "anchor") else v for k, v in parts.items()}


@dataclass(frozen=True)
class Expression:
    """A text of base words with its meaning, the indices of its targets and its kind."""

    text: str
    kind: str
    description: Description
    targets: tuple[int, ...]


def _having(things: tuple[Thing, ...], attributes: tuple[tuple[str, str], ...]) -> list[int]:
    return [i for i, t in enumerate(things) if all(getattr(t, k) == v for k, v in attributes)]


def _along(scene: Scene, index: int, side: str) -> float:
    """Signed distance of an object's centre from the image's middle towards a side, in image
    extents."""
    x, y = scene.things[index].centre
    dx, dy = _DIRECTION[side]
    return dx * (x / scene.width - 0.5) + dy * (y / scene.height - 0.5)


def evaluate(scene: Scene, description: Description) -> tuple[set[int], set[int]]:
    """Indices of the objects that surely match, and of those that match or come close to it."""
    named = _having(scene.things, description.attributes)
    if description.position:
        depth = {i: _along(scene, i, description.position) for i in named}
        return {i for i in named if depth[i] > _MARGIN}, {
            i for i in named if depth[i] > -_MARGIN / 2
        }
    if description.extreme:
        depth = {i: _along(scene, i, description.extreme) for i in named}
        near = {i for i in named if depth[i] > max(depth.values()) - _MARGIN}
        return (near, near) if len(near) == 1 else (set(), near)
    if description.relation:
        anchors = _having(scene.things, description.anchor)
        if len(anchors) != 1:
            return set(), set(named)
        side = _RELATION_SIDE[description.relation]
        zero = _along(scene, anchors[0], side)
        depth = {i: _along(scene, i, side) - zero for i in named if i != anchors[0]}
        return {i for i, d in depth.items() if d > _MARGIN}, {
            i for i, d in depth.items() if d > -_MARGIN / 2
        }
    return set(named), set(named)


def noun(attributes: tuple[tuple[str, str], ...]) -> str:
    """The attribute words in spoken order: size, texture, colour, shape."""
    words = dict(attributes)
    return " ".join(words[key] for key in ORDER if key in words)


def _text(rng: np.random.Generator, description: Description) -> str:
    name = noun(description.attributes)
    if description.position:
        where = "on the" if description.position in ("left", "right") else "at the"
        side = f"{where} {description.position}" + (
            " side" if rng.random() < 0.3 and where == "on the" else ""
        )
        name = f"{name} {side}"
    elif description.extreme:
        name = f"{EXTREMES[description.extreme]} {name}"
    elif description.relation:
        link = description.relation
        if link.endswith("of") and rng.random() < 0.5:
            link = f"to the {link}"
        name = f"{name} {link} the {noun(description.anchor)}"
    return f"the {name}" if rng.random() < 0.5 else name


def _subset(
    rng: np.random.Generator, thing: Thing, rates: tuple[float, float, float]
) -> tuple[tuple[str, str], ...]:
    """The shape, and size, texture, colour each at its rate."""
    drawn = rng.random(3) < rates
    keys = [key for key, kept in zip(ORDER, (*drawn, True), strict=True) if kept]
    return tuple((key, getattr(thing, key)) for key in keys)


def unique_attributes(
    rng: np.random.Generator, scene: Scene, index: int
) -> tuple[tuple[str, str], ...]:
    """Attributes that only this object has, mostly few: full ones always are, no two objects agree
    in all four."""
    thing = scene.things[index]
    for rates in ((0.15, 0.15, 0.85), (0.15, 0.15, 1.0), (0.5, 0.5, 1.0), (0.5, 0.5, 1.0)):
        attributes = _subset(rng, thing, rates)
        if _having(scene.things, attributes) == [index]:
            return attributes
    return tuple((key, getattr(thing, key)) for key in ORDER)


def _proposal(rng: np.random.Generator, scene: Scene, index: int, kind: str) -> Description | None:
    if kind == "attribute":
        return Description(unique_attributes(rng, scene, index))
    attributes = _subset(rng, scene.things[index], (0.1, 0.15, 0.4))
    if kind == "relation":
        others = [i for i in range(len(scene.things)) if i != index]
        if not others:
            return None
        anchor = unique_attributes(rng, scene, others[int(rng.integers(len(others)))])
        return Description(attributes, relation=str(rng.choice(RELATIONS)), anchor=anchor)
    if len(_having(scene.things, attributes)) < 2 and rng.random() < 0.9:
        return None  # a position that is not needed to tell the object apart is rarely said
    side = str(rng.choice(POSITIONS))
    return (
        Description(attributes, position=side)
        if kind == "position"
        else Description(attributes, extreme=side)
    )


def refer(rng: np.random.Generator, scene: Scene, index: int, kind: str) -> Expression | None:
    """An expression of a kind (attribute, position, extreme, relation) that means this object
    alone; None if none was found."""
    for _ in range(1 if kind == "attribute" else 12):
        description = _proposal(rng, scene, index, kind)
        if description is not None and evaluate(scene, description) == ({index}, {index}):
            return Expression(_text(rng, description), kind, description, (index,))
    return None


def refer_to_none(rng: np.random.Generator, scene: Scene) -> Expression:
    """A colour and a shape that no object of the scene has together."""
    seen = {(t.colour, t.shape) for t in scene.things}
    absent = [(c, s) for c in COLOURS for s in SHAPES if (c, s) not in seen]
    colour, shape = absent[int(rng.integers(len(absent)))]
    description = Description((("colour", colour), ("shape", shape)))
    return Expression(_text(rng, description), "none", description, ())


def refer_to_several(rng: np.random.Generator, scene: Scene) -> Expression | None:
    """`every ...` for a shape, with or without colour, that at least two objects have."""
    for index in rng.permutation(len(scene.things)):
        attributes = _subset(rng, scene.things[int(index)], (0.0, 0.0, 0.5))
        found = tuple(_having(scene.things, attributes))
        if len(found) >= 2:
            return Expression(
                f"every {noun(attributes)}", "several", Description(attributes), found
            )
    return None


def caption(rng: np.random.Generator, scene: Scene) -> str:
    """A sentence that names every object by colour and shape at least, in any order.

    The fewer the objects, the more is said about each, so that captions of different scenes rarely
    describe each other: a text that is drawn as a negative should be wrong.
    """
    count = len(scene.things)
    spare = _MAX_WORDS - 4 * count - 1
    names, order = [], rng.permutation(count).tolist()
    for index in order:
        detail = _CAPTION_DETAIL[count] if spare >= 2 else 0.0
        attributes = _subset(rng, scene.things[index], (detail, detail, 1.0))
        spare -= len(attributes) - 2
        names.append(f"a {noun(attributes)}")
    links = [_caption_link(rng, scene, a, b, spare) for a, b in pairwise(order)]
    body = names[0] + "".join(f"{link}{name}" for link, name in zip(links, names[1:], strict=True))
    if count == 1:
        body += _caption_position(rng, scene)
    return f"there is {body}" if spare >= 8 and rng.random() < 0.2 else body


def _caption_position(rng: np.random.Generator, scene: Scene) -> str:
    clear = [side for side in POSITIONS if _along(scene, 0, side) > _MARGIN]
    if not clear:
        return ""
    side = clear[int(rng.integers(len(clear)))]
    return f" on the {side}" if side in ("left", "right") else f" at the {side}"


def _caption_link(rng: np.random.Generator, scene: Scene, a: int, b: int, spare: int) -> str:
    """` and ` between two objects, or their relation where it is clear and there is room for the
    words."""
    if len(scene.things) <= 3 and spare >= 3 and rng.random() < 0.25:
        clear = [
            relation
            for relation, side in _RELATION_SIDE.items()
            if _along(scene, a, side) - _along(scene, b, side) > _MARGIN
        ]
        if clear:
            return f" {clear[int(rng.integers(len(clear)))]} "
    return " and "


def with_synonyms(
    rng: np.random.Generator, text: str, rate: float, columns: tuple[int, ...] = (0, 1)
) -> str:
    """The text with each base word replaced, at `rate`, by one of its synonyms (column 0 = seen, 1
    = held-out)."""
    words = text.split(" ")
    for i, word in enumerate(words):
        if word in SYNONYMS and rng.random() < rate:
            words[i] = SYNONYMS[word][columns[int(rng.integers(len(columns)))]]
            if i and words[i - 1] == "a" and words[i][0] in "aei":
                words[i - 1] = "an"
    return " ".join(words)


def paraphrase(rng: np.random.Generator, text: str, column: int, rate: float = 0.7) -> str:
    """The text with at least one word replaced by its synonym of a column."""
    while True:
        other = with_synonyms(rng, text, rate, (column,))
        if other != text:
            return other

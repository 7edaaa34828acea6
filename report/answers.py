"""What systems say about phrases in an image, as part of a page that a visitor is looking at.

A row per phrase, a figure per system. Boxes and points are elements of the page above the image, so
that they stay sharp; heat maps and masks are layers over it, each an image of its own, which
browsers fetch when it is looked at.
"""

import html
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from groundwork.geometry import Grounding, resize_mask
from groundwork.report.overlays import FOUND, Answer, heat_shares, verdict
from groundwork.report.sheet import overlay, with_mask

LONGEST = 512  # pixels of an image on the page
ABSENT = "not there"
_QUALITY = 88


@dataclass(frozen=True)
class Layer:
    """What may be laid over the image of a figure. label: on its button; map: (h, w) float32, a
    heat map; mask: (h, w) bool; with neither the image is shown as it is."""

    label: str
    map: np.ndarray | None = None
    mask: np.ndarray | None = None

    @property
    def drawn(self) -> bool:
        """Is there anything to be seen of it?"""
        return self.map is not None or self.mask is not None


@dataclass(frozen=True)
class Figure:
    """A phrase, as it was typed, by a system. layers: at least one, the first is shown first."""

    phrase: str
    system: str
    grounding: Grounding
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Shown:
    """What browsers fetch of an answer, and nothing else of it, such as masks in all pixels of the
    image that was handed in.

    image: (h, w, 3) uint8 RGB, at most `LONGEST` pixels wide and high. layers: those that are
    drawn, in the order in which `page_html` numbers them, from 1.
    """

    image: np.ndarray
    layers: tuple[Layer, ...]

    @property
    def size(self) -> int:
        """Bytes in memory, nearly."""
        arrays = [array for one in self.layers for array in (one.map, one.mask)]
        return self.image.nbytes + sum(array.nbytes for array in arrays if array is not None)


@dataclass(frozen=True)
class Page:
    """An answered question: image as of `Shown`; rows: of every phrase, a figure per system."""

    image: np.ndarray
    rows: tuple[tuple[Figure, ...], ...]

    @property
    def shown(self) -> Shown:
        """What is to be kept of it."""
        figures = (figure for row in self.rows for figure in row)
        layers = (layer for figure in figures for layer in figure.layers if layer.drawn)
        return Shown(self.image, tuple(layers))


def page_of(image: np.ndarray, phrases: Sequence[str], answers: Sequence[Answer]) -> Page:
    """An answer as it is to be shown.

    Args:
        image: (H, W, 3) uint8 RGB, in whose pixels the groundings are.
        phrases: as they were typed.
        answers: at least one, each of all phrases.
    """
    scale = LONGEST / max(image.shape[:2])
    height, width = (max(1, round(scale * length)) for length in image.shape[:2])
    shown = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    figures = [
        [
            Figure(phrase, one.system, found, layers_of(found, (height, width)))
            for phrase, found in zip(phrases, one.groundings, strict=True)
        ]
        for one in answers
    ]
    return Page(np.asarray(shown), tuple(zip(*figures, strict=True)))


def layers_of(found: Grounding, size: tuple[int, int]) -> tuple[Layer, ...]:
    """What can be laid over the image; masks at `size` (h, w), maps on the system's own grid. The
    maps can be looked at of what is not there, too: they tell where it was looked for."""
    maps = [] if found.heatmap is None else [Layer("heat map", map=found.heatmap)]
    words = zip(found.word_maps, heat_shares(found), strict=True)
    maps += [Layer(f"{word.word} {share:.0%}", map=word.heatmap) for word, share in words]
    if not found.is_there:
        return (Layer(ABSENT), *maps)
    if "box" in found.derived and maps:
        return tuple(maps)
    if found.mask is not None and "mask" not in found.derived:
        return (Layer("mask", mask=resize_mask(found.mask, size)), *maps)
    return (Layer("box"), *maps)


def draw_layer(shown: Shown, number: int) -> bytes:
    """The image (0) or a layer over it (from 1) as a JPEG.

    Raises:
        LookupError: there is no such layer.
    """
    image, layers = shown.image, shown.layers
    if not 0 <= number <= len(layers):
        raise LookupError(f"there are {len(layers)} layers, not {number}")
    if number:
        layer = layers[number - 1]
        if layer.map is not None:
            image = overlay(image, layer.map)
        elif layer.mask is not None:
            image = with_mask(image, layer.mask, FOUND)
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=_QUALITY)
    return content.getvalue()


def page_html(page: Page, address: str, told: str) -> str:
    """What is told of all, and the rows. Layer n is fetched from `address` with {n}
    in the place of its number."""
    numbers = itertools.count(1)
    rows = []
    for row in page.rows:
        figures = []
        for figure in row:
            addresses = [
                address.format(n=next(numbers) if layer.drawn else 0) for layer in figure.layers
            ]
            figures.append(
                _figure(figure, address.format(n=0), addresses, page.image.shape[:2], len(row) > 1)
            )
        phrase = html.escape(row[0].phrase)
        rows.append(
            f'<section class="gw-row"><h3 class="gw-phrase">{phrase}</h3>'
            f'<div class="gw-figures">{"".join(figures)}</div></section>'
        )
    kind = " gw-several" * (len(page.rows[0]) > 1)
    return (
        f'<div class="gw-told">{html.escape(told)}</div>'
        f'<div class="gw-rows{kind}">{"".join(rows)}</div>'
    )


def message_html(message: str) -> str:
    """What is said in the place of an answer."""
    return f'<div class="gw-message">{html.escape(" ".join(message.split()))}</div>'


def _figure(
    figure: Figure, plain: str, addresses: Sequence[str], size: Sequence[int], named: bool
) -> str:
    found = figure.grounding
    system = f'<div class="gw-system">{html.escape(figure.system)}</div>' if named else ""
    images = (
        f'<img class="gw-plain" alt="" src="{plain}">'
        f'<img class="gw-layer" alt="{html.escape(figure.phrase)}" src="{addresses[0]}">'
    )
    images += _marks(found) if found.is_there else f'<div class="gw-absent">{ABSENT}</div>'
    return (
        f'<figure class="gw-figure">{system}'
        f'<div class="gw-image" style="--gw-ratio:{size[1] / size[0]:.4f}">{images}</div>'
        f"{_buttons(figure.layers, addresses)}<figcaption>{_caption(figure)}</figcaption></figure>"
    )


def _buttons(layers: Sequence[Layer], addresses: Sequence[str]) -> str:
    """One per layer, which lays it over the image; of a single one there is nothing to choose."""
    if len(layers) < 2:
        return ""
    buttons = (
        f'<button type="button" class="gw-button{" gw-on" * (not number)}" value="{address}">'
        f"{html.escape(layer.label)}</button>"
        for number, (layer, address) in enumerate(zip(layers, addresses, strict=True))
    )
    return f'<div class="gw-buttons">{"".join(buttons)}</div>'


def _marks(found: Grounding) -> str:
    """Boxes, dashed where they are derived; and the point of a system that has no boxes itself."""
    height, width = found.size
    derived = "box" in found.derived
    marks = []
    for number, box in enumerate(found.boxes):
        x1, y1, x2, y2 = np.clip(box, 0, [width, height, width, height]).tolist()
        place = _percent(left=x1 / width, top=y1 / height,
                         width=(x2 - x1) / width, height=(y2 - y1) / height)  # fmt: skip
        kind = " gw-derived" * derived + " gw-further" * (number > 0)
        marks.append(f'<div class="gw-box{kind}" style="{place}"></div>')
    if derived:
        # The centre of the pixel that the point names.
        x, y = found.point
        place = _percent(left=(x + 0.5) / width, top=(y + 0.5) / height)
        marks.append(f'<div class="gw-point" style="{place}"></div>')
    return "".join(marks)


def _percent(**places: float) -> str:
    return ";".join(f"{name}:{100 * share:.3f}%" for name, share in places.items())


def _caption(figure: Figure) -> str:
    """In words and numbers, in pixels of the image: score, whether it is there, point, best box;
    and what was read of the phrase if that is not what was typed."""
    found = figure.grounding
    parts = [f"<b>{html.escape(words)}</b>"] if (words := verdict(found)) else []
    if found.is_there:
        x, y = found.point
        box = ", ".join(f"{side:.0f}" for side in found.boxes[0])
        parts += [f"point ({x:.0f}, {y:.0f})", f"box ({box})"]
        if "box" in found.derived:
            parts[-1] += " from the heat map"
    if found.phrase.lower() != figure.phrase.lower():
        parts.append(f"read as “{html.escape(found.phrase)}”")
    return "".join(f"<span>{part}</span>" for part in parts)

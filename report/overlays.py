"""What systems say about phrases in an image, drawn into it: one cell per phrase and system."""

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from groundwork.files.safe import atomic_write
from groundwork.geometry import Grounding
from groundwork.report.sheet import DPI, INK, PALE, outline, overlay, with_mask

FOUND = "#00e5ff"  # far from the colours of heat maps, and from skin, sky and grass
WIDEST = 12.0  # inches, of an image of several cells
SIDES = ((1, 5.5), (6, 3.6), (math.inf, 2.7))  # up to so many panels: inches of the longer side
NARROWEST = 1.9  # inches of a cell, so that its words can be read however narrow the image is
GAP, LINE, MARGIN = 0.16, 0.17, 0.12  # inches: between cells, of a line of text, around all
LETTERS = 13.0  # of a title per inch
WORDS = 8  # maps of words in a row
MOST = 12
"""Phrases in one image; more go into further ones."""


@dataclass(frozen=True)
class Answer:
    """What one system says: a grounding per phrase, of the same phrases as the others beside it."""

    system: str
    groundings: Sequence[Grounding]


@dataclass(frozen=True)
class _Panel:
    """An image of a cell. heat: what is laid over it. answer: boxes and masks are drawn, or that it
    is not there. point: the point is drawn."""

    heat: np.ndarray | None
    answer: bool
    point: bool


@dataclass(frozen=True)
class _Cell:
    """One phrase by one system; width and height in inches of one of its panels."""

    title: str
    caption: str
    grounding: Grounding
    panels: tuple[_Panel, ...]


def draw_overlays(picture: np.ndarray, answers: Sequence[Answer], opacity: float = 1.0) -> Figure:
    """The image under what was found in it, for at most `MOST` phrases.

    Of one system, cells for its phrases, side by side as far as there is room; of several, a row
    per phrase and a column per system. A system that gives boxes or masks is shown with those, and
    with its heat map in a second panel; one of which these are derived, with heat map, point and a
    dashed box. What is not there is a faded image that says so.

    Args:
        picture: (H, W, 3) uint8 RGB, in whose pixels the groundings are.
        answers: at least one, of at least one phrase.
        opacity: of heat maps and masks, from 0 to 1.
    """
    several = len(answers) > 1
    rows = [[_cell(one, several) for one in of_phrase]
            for of_phrase in zip(*(_named(a) for a in answers), strict=True)]  # fmt: skip
    panels = (
        sum(len(cell.panels) for cell in rows[0]) if several else len(rows) * len(rows[0][0].panels)
    )
    side = next(inches for most, inches in SIDES if panels <= most)
    height, width = (side * length / max(picture.shape[:2]) for length in picture.shape[:2])
    if not several:
        rows = _wrapped([cell for (cell,) in rows], width, height)
    return _Sheet(picture, (height, width), opacity).draw(rows, headed=several)


def draw_words(picture: np.ndarray, answers: Sequence[Answer], opacity: float = 1.0) -> Figure:
    """The heat map of each phrase beside those of its words, whether it is there or not; a row per
    phrase and system, more of them for a long phrase.

    A map is as hot where it is hottest as any other; below each word stands its share of the heat.

    Args:
        picture, opacity: as of `draw_overlays`.
        answers: with `word_maps`.
    """
    cells = [
        _word_cells(one, system)
        for of_phrase in zip(*(_named(answer) for answer in answers), strict=True)
        for system, one in of_phrase
    ]
    height, width = (NARROWEST * length / max(picture.shape[:2]) for length in picture.shape[:2])
    rows = [row[i : i + WORDS] for row in cells for i in range(0, len(row), WORDS)]
    return _Sheet(picture, (height, width), opacity).draw(rows, headed=True)


def _word_cells(grounding: Grounding, system: str) -> list[_Cell]:
    # A caption has the room of one map.
    short = grounding if grounding.present is None else replace(grounding, score=None)
    cells = [_Cell(system, verdict(short), grounding, (_map_alone(grounding.heatmap),))]
    for word, share in zip(grounding.word_maps, heat_shares(grounding), strict=True):
        panels = (_map_alone(word.heatmap),)
        cells.append(_Cell(word.word, f"{share:.0%} of the heat", grounding, panels))
    return cells


def heat_shares(grounding: Grounding) -> list[float]:
    """Of each of the `word_maps` its share of the heat of all, 0 where there is none."""
    heats = [word.pieces * float(word.heatmap.sum()) for word in grounding.word_maps]
    total = sum(heats)
    return [heat / total if total else 0.0 for heat in heats]


def _map_alone(heat: np.ndarray | None) -> _Panel:
    return _Panel(heat, answer=False, point=False)


def save_overlays(
    path: Path,
    picture: np.ndarray,
    answers: Sequence[Answer],
    draw: Callable[[np.ndarray, Sequence[Answer]], Figure] = draw_overlays,
) -> list[Path]:
    """Draw any number of phrases into `path`, and into NAME_2, NAME_3, ... where they are many.

    Args:
        draw: `draw_overlays` or `draw_words`.

    Returns:
        The files, which appear complete or not at all.
    """
    phrases, written = len(answers[0].groundings), []
    for number, start in enumerate(range(0, phrases, MOST), 1):
        shown = [Answer(one.system, one.groundings[start : start + MOST]) for one in answers]
        file = path if number == 1 else path.with_stem(f"{path.stem}_{number}")
        image = as_image(draw(picture, shown))
        with atomic_write(file) as partial:
            image.save(partial, format=Image.registered_extensions()[file.suffix], quality=90)
        written.append(file)
    return written


def as_image(figure: Figure) -> Image.Image:
    """The pixels of a drawing."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def verdict(grounding: Grounding) -> str:
    """In words: the score of the system, whether it is there, how probably."""
    parts = [] if grounding.is_there else ["not there"]
    if grounding.present is not None:
        parts.append(f"present {grounding.present:.0%}")
    if grounding.score is not None:
        parts.append(f"score {grounding.score:.2f}")
    if len(grounding.boxes) > 1:
        parts.append(f"{len(grounding.boxes)} boxes")
    return ", ".join(parts)


def _named(answer: Answer) -> list[tuple[str, Grounding]]:
    return [(answer.system, grounding) for grounding in answer.groundings]


def _cell(named: tuple[str, Grounding], several: bool) -> _Cell:
    system, grounding = named
    derived = "box" in grounding.derived
    panels = [_Panel(grounding.heatmap if derived else None, answer=True, point=derived)]
    if grounding.heatmap is not None and not derived and grounding.is_there:
        panels.append(_Panel(grounding.heatmap, answer=False, point=False))
    title = system if several else grounding.phrase
    return _Cell(title, verdict(grounding), grounding, tuple(panels))


def _wrapped(cells: Sequence[_Cell], width: float, height: float) -> list[list[_Cell]]:
    """Cells in rows not wider than WIDEST: up to three in one, more so that all together are about
    as wide as high."""
    each = _cell_width(cells[0], width) + GAP
    wanted = math.sqrt(len(cells) * (height + 4 * LINE) / each)
    room = (WIDEST - 2 * MARGIN + GAP) // each
    columns = int(max(1, min(len(cells), room, max(3, math.ceil(wanted)))))
    return [list(cells[start : start + columns]) for start in range(0, len(cells), columns)]


def _cell_width(cell: _Cell, width: float) -> float:
    return max(NARROWEST, width * len(cell.panels))


class _Sheet:
    """Rows of cells on a figure; everything is measured in inches from the top left corner."""

    def __init__(self, picture: np.ndarray, panel: tuple[float, float], opacity: float) -> None:
        self.height, self.width = panel
        side = [max(1, round(length * DPI)) for length in (self.width, self.height)]
        drawn = Image.fromarray(picture).resize((side[0], side[1]), Image.Resampling.BICUBIC)
        self.picture, self.opacity = np.asarray(drawn), opacity
        self.scale = np.array(side) / (picture.shape[1], picture.shape[0])
        self.figure = Figure()
        self.total = (0.0, 0.0)

    def draw(self, rows: Sequence[Sequence[_Cell]], *, headed: bool) -> Figure:
        """headed: the phrase stands above each row, as the cells are named after systems."""
        widths = [
            max(_cell_width(row[n], self.width) for row in rows if n < len(row))
            for n in range(max(map(len, rows)))
        ]
        across = sum(widths) + GAP * (len(widths) - 1)
        heads = [_lines(row[0].grounding.phrase, across) if headed else [] for row in rows]
        # The last row may be a shorter one.
        titles = [
            [_lines(cell.title, width) for cell, width in zip(row, widths[: len(row)], strict=True)]
            for row in rows
        ]
        tall = [max(map(len, of_row)) * LINE for of_row in titles]
        heights = [
            len(head) * 1.25 * LINE + text + self.height + 1.4 * LINE
            for head, text in zip(heads, tall, strict=True)
        ]
        self.total = across + 2 * MARGIN, sum(heights) + GAP * (len(rows) - 1) + 2 * MARGIN
        self.figure.set_size_inches(*self.total)
        self.figure.set_dpi(DPI)
        top = MARGIN
        for row, head, texts, text, height in zip(rows, heads, titles, tall, heights, strict=True):
            self._text(head, MARGIN, top, size=11, weight="bold", spread=1.25)
            below = top + len(head) * 1.25 * LINE + text
            left = MARGIN
            for cell, lines, width in zip(row, texts, widths[: len(row)], strict=True):
                start = below - len(lines) * LINE
                self._text(lines, left, start, weight="normal" if headed else "bold")
                self._draw_cell(cell, left, below)
                self._text([cell.caption], left, below + self.height + 0.2 * LINE, colour=PALE)
                left += width + GAP
            top += height + GAP
        return self.figure

    def _text(
        self,
        lines: Sequence[str],
        left: float,
        top: float,
        *,
        size: float = 9,
        weight: str = "normal",
        colour: str = INK,
        spread: float = 1.0,
    ) -> None:
        width, height = self.total
        for number, line in enumerate(lines):
            y = top + number * spread * LINE
            self.figure.text(left / width, 1 - y / height, line, size=size, weight=weight,
                             color=colour, va="top", parse_math=False)  # fmt: skip

    def _draw_cell(self, cell: _Cell, left: float, top: float) -> None:
        width, height = self.total
        for number, panel in enumerate(cell.panels):
            start = left + number * self.width
            place = (start / width, 1 - (top + self.height) / height)
            axes = self.figure.add_axes(
                (*place, self.width / width, self.height / height), xticks=[], yticks=[]
            )
            self._draw_panel(axes, cell.grounding, panel)
            if number:
                axes.axvline(0, color="white", linewidth=2)

    def _draw_panel(self, axes: Axes, grounding: Grounding, panel: _Panel) -> None:
        shown = self.picture
        rows, columns = shown.shape[:2]
        absent = panel.answer and not grounding.is_there
        if absent:
            shown = (0.45 * shown + 0.55 * 255).astype(np.uint8)
        elif panel.heat is not None:
            shown = overlay(shown, panel.heat, self.opacity)
        elif grounding.mask is not None and "mask" not in grounding.derived:
            shown = with_mask(shown, grounding.mask, FOUND, 0.5 * self.opacity)
        axes.imshow(shown, extent=(0, columns, rows, 0), interpolation="antialiased", aspect="auto")
        axes.set(xlim=(0, columns), ylim=(rows, 0))
        axes.axis("off")
        if absent:
            axes.text(columns / 2, rows / 2, "not there", size=13, weight="bold", color="white",
                      ha="center", va="center", path_effects=outline(1.6))  # fmt: skip
            return
        if panel.answer:
            self._boxes(axes, grounding)
        if panel.point:
            # The centre of the pixel that the point names.
            x, y = (np.array(grounding.point) + 0.5) * self.scale
            axes.plot(x, y, "o", markersize=9, color=FOUND, markeredgecolor="black",
                      markeredgewidth=1.4, clip_on=False)  # fmt: skip

    def _boxes(self, axes: Axes, grounding: Grounding) -> None:
        derived = "box" in grounding.derived
        for number, box in enumerate(grounding.boxes):
            low, high = np.array(box[:2]) * self.scale, np.array(box[2:]) * self.scale
            width = 1.5 if derived or number else 2.2
            frame = Rectangle(
                (low[0], low[1]), *(high - low), fill=False, edgecolor=FOUND, linewidth=width
            )
            frame.set(linestyle="--" if derived else "-", path_effects=outline(width))
            axes.add_patch(frame)


def _lines(text: str, width: float) -> list[str]:
    """At most two lines of a text that is `width` inches wide."""
    letters = max(8, int(width * LETTERS))
    return textwrap.wrap(text, letters, max_lines=2, placeholder=" …") or [""]

"""An image sheet: seeded random hits and misses of an evaluation, drawn to be read in print."""

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import Normal, Stroke
from PIL import Image

from groundwork.dataset.images import image_at, load_image
from groundwork.geometry import resize_mask, runs_to_mask
from groundwork.models.common.heatmap import enlarge
from groundwork.report.predictions import Prediction, Run, correct, gives_boxes

COLOURS = "inferno"
HIT, MISS, TRUTH, INK, PALE = "#1a9850", "#d73027", "#ffffff", "#222222", "#777777"
WIDTH = 10.0  # inches, of the sheet
TALLEST = 2.4  # inches, of a row of images
GAP = 0.16  # inches, between samples
ABOVE, BELOW = 0.36, 0.16  # inches, for the phrase and the file name
LONGEST = 480  # pixels of an image on the sheet; more would only make the file larger
DPI = 160


@dataclass(frozen=True)
class _Cell:
    """One sample on the sheet; left, top, width, height of its panels in inches.

    boxes: the system gives boxes itself, so that they are shown and judged, not points.
    """

    prediction: Prediction
    picture: np.ndarray
    panels: int
    boxes: bool = False
    left: float = 0.0
    top: float = 0.0
    width: float = 0.0
    height: float = 0.0


def choose(predictions: Sequence[Prediction], count: int, seed: int) -> list[Prediction]:
    """`count` predictions drawn without replacement by seed, in their original order."""
    random = np.random.default_rng(seed)
    drawn = random.choice(len(predictions), size=min(count, len(predictions)), replace=False)
    return [predictions[index] for index in sorted(drawn)]


@dataclass(frozen=True)
class Group:
    """Predictions to be drawn, of those of one kind: the hits or the misses.

    heading: says how many of the kind there are, of how many predictions.
    """

    heading: str
    colour: str
    shown: tuple[Prediction, ...]


def drawn(
    run: Run, predictions: Sequence[Prediction], *, hits: int = 9, misses: int = 9, seed: int = 0
) -> tuple[Group, ...]:
    """Seeded random hits, then misses, as many as wanted or as there are of each."""
    groups = []
    for name, colour, wanted, count in (("Hits", HIT, True, hits), ("Misses", MISS, False, misses)):
        of_kind = [one for one in predictions if correct(one, boxes=gives_boxes(run)) is wanted]
        shown = choose(of_kind, count, seed)
        if shown:
            share = f"{name}: {len(of_kind)} of {len(predictions)}, {len(shown)} drawn at random"
            groups.append(Group(share, colour, tuple(shown)))
    return tuple(groups)


def draw_sheet(
    path: Path | str,
    run: Run,
    groups: Sequence[Group],
    *,
    image_root: Path | str | None = None,
    columns: int = 3,
) -> Path:
    """Draw hits, then misses, into one PNG.

    A sample is its image and, if there is a heat map, the image again under the heat map, and
    under a decoder's attention if there is that; with its phrase, the true boxes in white, the
    predicted point in green (hit) or red (miss) and a frame of the same colour. Of a system that
    gives boxes, the predicted box is shown and judged (IoU above 0.5; of any number of targets: all
    found and nothing else), with its mask if there is one, which is not drawn on the maps. The
    counts in the headings are those of all predictions, not of the sheet.

    Args:
        path: of the PNG.
        run: whose predictions these are; names the sheet.
        groups: of `drawn`, at least one.
        image_root: folder of the images; `run.image_root` if not given.
        columns: samples per row.

    Raises:
        ValueError: no predictions.
        FileNotFoundError: an image is absent.
    """
    if not groups:
        raise ValueError(f"no predictions of {run.benchmark} to draw")
    root = run.image_root if image_root is None else os.fspath(image_root)
    figure = _draw(run, groups, root, columns)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, facecolor="white")
    return path


def _draw(run: Run, groups: Sequence[Group], root: str, columns: int) -> Figure:
    top = 0.95
    headings: list[tuple[float, str, str]] = []
    cells: list[_Cell] = []
    for group in groups:
        headings.append((top, group.heading, group.colour))
        top += 0.06
        for start in range(0, len(group.shown), columns):
            items = group.shown[start : start + columns]
            loaded = [_load(root, run.opener, item) for item in items]
            row, top = _row([replace(cell, boxes=gives_boxes(run)) for cell in loaded], top)
            cells += row
        top += 0.3
    figure = Figure(figsize=(WIDTH, top))
    FigureCanvasAgg(figure)
    figure.text(GAP / WIDTH, 1 - 0.27 / top, _title(run), size=13, weight="bold", color=INK)
    _legend(figure, top, "box" if gives_boxes(run) else "point", max(c.panels for c in cells))
    for below, heading, colour in headings:
        figure.text(GAP / WIDTH, 1 - below / top, heading, size=10, weight="bold", color=colour)
    for cell in cells:
        _draw_cell(figure, cell)
    return figure


def _row(cells: Sequence[_Cell], top: float) -> tuple[list[_Cell], float]:
    """Place samples side by side at one height, as wide as the sheet unless that is too tall."""
    ratios = [cell.panels * cell.picture.shape[1] / cell.picture.shape[0] for cell in cells]
    room = WIDTH - GAP * (len(cells) + 1)
    height = min(room / sum(ratios), TALLEST)
    placed, left = [], GAP
    for cell, ratio in zip(cells, ratios, strict=True):
        width = ratio * height
        placed.append(replace(cell, left=left, top=top + ABOVE, width=width, height=height))
        left += width + GAP
    return placed, top + ABOVE + height + BELOW


def _title(run: Run) -> str:
    model = " ".join(part for part in (run.system, run.objective) if part)
    return f"{model} on {run.benchmark}, {Path(run.checkpoint).name}".removesuffix(", ")


def _legend(figure: Figure, total: float, what: str, panels: int) -> None:
    marker: dict[str, Any] = {
        "marker": "o",
        "linestyle": "none",
        "markersize": 8,
        "markeredgecolor": "white",
    }
    box: dict[str, Any] = {"facecolor": "#999999", "edgecolor": TRUTH, "linewidth": 1.6}
    handles = [
        Line2D([], [], color=HIT, label=f"predicted {what}: hit", **marker),
        Line2D([], [], color=MISS, label=f"predicted {what}: miss", **marker),
        Patch(label="true box", **box, path_effects=outline(1.6)),
    ]
    if panels > 1:
        label = "heat map" if panels == 2 else "2nd image: heat map, 3rd: decoder's attention"
        heat = colormaps[COLOURS](0.75)
        handles.append(Patch(facecolor=heat, label=f"{label}, up to its maximum"))
    figure.legend(
        handles=handles, loc="center left", bbox_to_anchor=(0.005, 1 - 0.52 / total), ncols=4,
        frameon=False, fontsize=8.5, handletextpad=0.5, columnspacing=1.8,
    )  # fmt: skip


def _load(root: str, opener: str, prediction: Prediction) -> _Cell:
    array = shown_image(root, opener, prediction, LONGEST)
    return _Cell(prediction, array, panels=1 + len(maps_of(prediction)))


def shown_image(root: str, opener: str, prediction: Prediction, longest: int) -> np.ndarray:
    """(h, w, 3) uint8: the image as the model saw it, as points and boxes are in that frame, with a
    longer side of `longest` pixels.

    Raises:
        FileNotFoundError: there is none.
    """
    picture = Image.fromarray(load_image(image_at(root, prediction.image), prediction.id, opener))
    scale = longest / max(picture.size)
    side = [max(1, round(length * scale)) for length in picture.size]
    return np.asarray(picture.resize(side, Image.Resampling.BICUBIC))


def maps_of(prediction: Prediction) -> list[np.ndarray]:
    """What is laid over the image: heat map, attention of a decoder, those that there are."""
    return [one for one in (prediction.heatmap, prediction.attention) if one is not None]


def overlay(picture: np.ndarray, heatmap: np.ndarray, opacity: float = 1.0) -> np.ndarray:
    """Lay a heat map over an image: (H, W, 3) uint8 and (h, w) -> (H, W, 3) uint8.

    The image fades to grey and the colour grows with the heat, so that a cold region still shows
    what is there. A map that is nowhere zero, such as a score, is cold where it is lowest. A map
    without a positive value, or with one value everywhere, leaves the image as it is, as does an
    opacity of 0.
    """
    low, peak = max(float(np.min(heatmap, initial=np.inf)), 0.0), float(np.max(heatmap, initial=0))
    if peak <= low:
        return picture
    map01 = (torch.from_numpy(np.ascontiguousarray(heatmap, dtype=np.float32)) - low) / (peak - low)
    heat = enlarge(map01[None], picture.shape[:2])[0].clamp(0, 1).numpy()
    colour = colormaps[COLOURS](0.25 + 0.7 * heat)[..., :3] * 255
    weight = 0.75 * heat[..., None] ** 0.8
    grey = picture.mean(axis=2, keepdims=True)
    muted = 0.65 * picture + 0.35 * grey
    laid = (1 - weight) * muted + weight * colour
    if opacity < 1:
        laid = (1 - opacity) * picture + opacity * laid
    return np.clip(laid, 0, 255).astype(np.uint8)


def _draw_cell(figure: Figure, cell: _Cell) -> None:
    prediction, picture = cell.prediction, cell.picture
    width, height = figure.get_size_inches()
    panels = [picture, *(overlay(picture, one) for one in maps_of(prediction))]
    step = cell.width / cell.panels
    for index, panel in enumerate(panels):
        left, bottom = cell.left + index * step, height - cell.top - cell.height
        axes = figure.add_axes(
            (left / width, bottom / height, step / width, cell.height / height),
            xticks=[],
            yticks=[],
        )
        if index:
            axes.axvline(0, color="white", linewidth=2)
        _draw_panel(axes, panel, cell, answer=index == len(panels) - 1, masked=not index)
    corner = (cell.left / width, 1 - (cell.top + cell.height) / height)
    figure.add_artist(
        Rectangle(corner, cell.width / width, cell.height / height, fill=False, linewidth=2,
                  edgecolor=_colour(cell), transform=figure.transFigure)
    )  # fmt: skip
    letters = max(12, int(cell.width * 15))
    phrase = textwrap.shorten(prediction.phrase, 2 * letters - 6, placeholder=" …")
    middle = (cell.left + cell.width / 2) / width
    figure.text(middle, 1 - (cell.top - 0.05) / height, textwrap.fill(phrase, letters), size=8,
                color=INK, ha="center", va="bottom", linespacing=1.1, parse_math=False)  # fmt: skip
    figure.text(middle, 1 - (cell.top + cell.height + 0.05) / height, Path(prediction.image).name,
                size=6, color=PALE, ha="center", va="top", parse_math=False)  # fmt: skip


def _colour(cell: _Cell) -> str:
    return HIT if correct(cell.prediction, boxes=cell.boxes) else MISS


def _draw_panel(axes: Axes, panel: np.ndarray, cell: _Cell, *, answer: bool, masked: bool) -> None:
    height, width = panel.shape[:2]
    prediction = cell.prediction
    scale = np.array([width / prediction.size[1], height / prediction.size[0]])
    if cell.boxes and prediction.mask is not None and masked:
        panel = with_mask(panel, runs_to_mask(prediction.mask, prediction.size), _colour(cell))
    axes.imshow(panel, extent=(0, width, height, 0), interpolation="antialiased", aspect="auto")
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    shown = [(box, TRUTH) for box in prediction.boxes]
    answers = prediction.found if prediction.several else (prediction.box,)
    shown += [(box, _colour(cell)) for box in answers if cell.boxes and box is not None]
    for box, colour in shown:
        low, high = np.array(box[:2]) * scale, np.array(box[2:]) * scale
        axes.add_patch(
            Rectangle(low, *(high - low), fill=False, edgecolor=colour, linewidth=1.5,
                      path_effects=outline(1.5))
        )  # fmt: skip
    if answer and not cell.boxes:
        # The centre of the pixel that the point names.
        x, y = (np.array(prediction.point) + 0.5) * scale
        axes.plot(x, y, "o", markersize=8, color=_colour(cell), markeredgecolor="white",
                  markeredgewidth=1.3, clip_on=False)  # fmt: skip


def with_mask(panel: np.ndarray, mask: np.ndarray, colour: str, opacity: float = 0.5) -> np.ndarray:
    """The (h, w, 3) uint8 panel, tinted where the mask of the original image is."""
    inside = resize_mask(mask, panel.shape[:2])[..., None]
    tint = np.array(to_rgb(colour)) * 255
    return np.where(inside, (1 - opacity) * panel + opacity * tint, panel).astype(np.uint8)


def outline(width: float) -> list[Stroke | Normal]:
    """A dark edge round a line of this width in points, so that it shows on any background."""
    return [Stroke(linewidth=width + 1.6, foreground="black", alpha=0.7), Normal()]

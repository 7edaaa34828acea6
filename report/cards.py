"""Samples as parts of a page: image, heat map, boxes and point, with what a filter asks for."""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from groundwork import geometry, metrics
from groundwork.geometry import runs_to_mask
from groundwork.report.groups import kinds_of, length_of, size_of
from groundwork.report.predictions import Prediction, Run, correct, gives_boxes
from groundwork.report.sheet import HIT, MISS, maps_of, overlay, shown_image, with_mask

LONGEST = 240  # pixels of an image on the page


def rightness(prediction: Prediction, *, boxes: bool) -> float:
    """How right an answer is, to order samples by; the higher the better.

    By boxes the IoU with the best true one. By points: inside a box 1 in its middle and 0 at its
    edge, outside minus the distance to the nearest box, in diagonals of the image.
    """
    if boxes:
        return metrics.box_iou(prediction.box, prediction.boxes)
    margins = [_margin(prediction, box) for box in prediction.boxes]
    return max(margins, default=-1.0)


def _margin(prediction: Prediction, box: Sequence[float]) -> float:
    (x, y), (x1, y1, x2, y2) = prediction.point, box
    if metrics.pointing_any((x, y), [box]):
        return 2 * min((x - x1) / (x2 - x1), (x2 - x) / (x2 - x1),
                       (y - y1) / (y2 - y1), (y2 - y) / (y2 - y1))  # fmt: skip
    away = np.hypot(max(x1 - x, 0, x - x2), max(y1 - y, 0, y - y2))
    return -float(away / np.hypot(*prediction.size))


def card(
    answers: Sequence[tuple[Run, Prediction]], root: str | None = None, *, group: str = ""
) -> str:
    """One expression, with the answer of one system or of several.

    Args:
        answers: of the same expression; the first one's verdict is what a filter asks for.
        root: folder of the images; that of each run if None.
        group: class of the card, such as "best".

    Raises:
        FileNotFoundError: the image is absent.
    """
    run, first = answers[0]
    right = correct(first, boxes=gives_boxes(run))
    asked = {
        "verdict": "right" if right else "wrong",
        "split": first.split,
        "words": "|".join(kinds_of(first)),
        "size": size_of(first),
        "length": length_of(first),
        "text": first.phrase.lower(),
    }
    data = "".join(f' data-{name}="{html.escape(value)}"' for name, value in asked.items())
    score = "" if first.score is None or len(answers) > 1 else f" · score {first.score:.3g}"
    panels = "".join(_answer(*answer, root, named=len(answers) > 1) for answer in answers)
    return (
        f'<figure class="card {html.escape(group)}"{data}><div class="panels">{panels}</div>'
        f"<figcaption>{html.escape(first.phrase)}"
        f"<small>{html.escape(first.split)} · {html.escape(first.image)}{score}</small>"
        "</figcaption></figure>"
    )


def _answer(run: Run, prediction: Prediction, root: str | None, *, named: bool) -> str:
    boxes = gives_boxes(run)
    colour = HIT if correct(prediction, boxes=boxes) else MISS
    image = shown_image(root or run.image_root, run.opener, prediction, LONGEST)
    maps = maps_of(prediction)
    plain = image
    if boxes and prediction.mask is not None:
        plain = with_mask(image, runs_to_mask(prediction.mask, prediction.size), colour)
    shown = [plain, *(overlay(image, one) for one in maps)]
    panels = "".join(_panel(one, prediction, boxes, colour) for one in shown)
    name = f'<span class="name">{html.escape(run.checkpoint or run.system)}</span>' if named else ""
    return f'<div>{name}<div class="answer" style="border-color:{colour}">{panels}</div></div>'


def _panel(image: np.ndarray, prediction: Prediction, boxes: bool, colour: str) -> str:
    """An image with boxes and point above it, which stay sharp at any size."""
    height, width = prediction.size
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=82)
    source = f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
    drawn = [_box(box, "truth", "#fff") for box in prediction.boxes]
    answers = prediction.found if prediction.several else (prediction.box,)
    drawn += [_box(box, "answer", colour) for box in answers if boxes and box is not None]
    if not boxes:
        # The centre of the pixel that the point names.
        x, y = prediction.point[0] + 0.5, prediction.point[1] + 0.5
        radius = 0.025 * max(height, width)
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}"/>')
    return (
        f'<svg viewBox="0 0 {width} {height}" style="aspect-ratio:{width}/{height}">'
        f'<image href="{source}" width="{width}" height="{height}" preserveAspectRatio="none"/>'
        f"{''.join(drawn)}</svg>"
    )


def _box(box: Sequence[float], kind: str, colour: str) -> str:
    x, y, width, height = geometry.xyxy_to_xywh(box).tolist()
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="edge" {place}/><rect class="{kind}" {place} stroke="{colour}"/>'

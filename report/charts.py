"""Line charts as SVG, to be part of a page; and the curves of a training run's log."""

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from groundwork.files.json_lines import JsonLines

INKS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8a5fb0", "#c98a1b", "#4b4b4b", "#17a2a2", "#b0567d")
Series = Mapping[str, Sequence[tuple[float, float]]]
_WIDTH, _HEIGHT, _LEFT, _BELOW, _TOP = 500, 230, 58, 22, 10


def line_chart(
    series: Series,
    *,
    across: str,
    up: str,
    ranges: tuple[tuple[float, float], tuple[float, float]] | None = None,
    dots: bool = False,
) -> str:
    """A chart of named series of (x, y); values that are not finite are left out.

    Args:
        across, up: what the axes show.
        ranges: ((x from, to), (y from, to)); those of the values if None.
        dots: mark every value.
    """
    finite = {
        name: [(x, y) for x, y in line if math.isfinite(x) and math.isfinite(y)]
        for name, line in series.items()
    }
    finite = {name: line for name, line in finite.items() if line}
    if not finite:
        return ""
    places = [place for line in finite.values() for place in line]
    (x1, x2), (y1, y2) = ranges or (_range(p[0] for p in places), _range(p[1] for p in places))

    def at(x: float, y: float) -> tuple[float, float]:
        right, above = (x - x1) / (x2 - x1), (y - y1) / (y2 - y1)
        inner = _HEIGHT - _BELOW - _TOP
        return _LEFT + right * (_WIDTH - _LEFT - 12), _HEIGHT - _BELOW - above * inner

    parts = _axes(at, (x1, x2), (y1, y2))
    for ink, (_, line) in zip(_inks(len(finite)), finite.items(), strict=True):
        shown = [at(*place) for place in line]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shown)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{ink}" stroke-width="1.6"/>')
        if dots or len(shown) == 1:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{ink}"/>' for x, y in shown]
    key = "".join(
        f'<span><i style="background:{ink}"></i>{html.escape(name)}</span>'
        for ink, name in zip(_inks(len(finite)), finite, strict=True)
    )
    return (
        f'<figure class="chart"><figcaption>{html.escape(up)} by {html.escape(across)}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}">{"".join(parts)}</svg>'
        f'<figcaption class="key">{key}</figcaption></figure>'
    )


def _inks(count: int) -> list[str]:
    return [INKS[index % len(INKS)] for index in range(count)]


def _range(values: Iterable[float]) -> tuple[float, float]:
    found = list(values)
    low, high = min(found), max(found)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _axes(
    at: Callable[[float, float], tuple[float, float]],
    across: tuple[float, float],
    up: tuple[float, float],
) -> list[str]:
    lines = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = (low + share * (high - low) for low, high in (across, up))
        left, level = at(across[0], y)
        right, _ = at(across[1], y)
        middle, _ = at(x, up[0])
        below = _HEIGHT - _BELOW + 14
        lines += [
            f'<path d="M{left:.1f} {level:.1f}H{right:.1f}" stroke="#ddd"/>',
            f'<text x="{left - 6:.1f}" y="{level + 4:.1f}" text-anchor="end">{y:.2g}</text>',
            f'<text x="{middle:.1f}" y="{below}" text-anchor="middle">{x:.4g}</text>',
        ]
    return lines


def training_curves(log: Path) -> list[str]:
    """Charts of a run's `log.txt`: losses, learning rate, validation; none of a file without rows
    of steps, as the released format.

    Raises:
        ValueError: a line is no JSON object.
    """
    rows = [row for row in JsonLines(log).rows() if "global_step" in row]
    steps = [row for row in rows if row.get("kind") == "step"]
    checks = [row for row in rows if row.get("kind") == "validation"]
    losses = [name for row in steps for name in row if name.startswith("loss")]
    values = [
        name
        for row in checks
        for name in row
        if isinstance(row[name], float) and name not in ("lr", "seconds")
    ]
    charts = [
        line_chart(_series(steps, losses), across="steps", up="losses"),
        line_chart(_series(steps, ["lr"]), across="steps", up="learning rate"),
        line_chart(_series(checks, values), across="steps", up="validation", dots=True),
    ]
    return [chart for chart in charts if chart]


def _series(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> Series:
    return {
        name: [(row["global_step"], row[name]) for row in rows if name in row]
        for name in dict.fromkeys(names)
    }

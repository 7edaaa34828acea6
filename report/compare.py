"""Two evaluations of the same expressions, pair by pair.

By how much the second is better, with a 95 % bootstrap interval that draws whole images, and
whether what one has right and the other has not is more than chance (McNemar's exact test).
"""

import html
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from groundwork import metrics
from groundwork.metrics.paired import mcnemar
from groundwork.report.cards import card, rightness
from groundwork.report.detail import filter_html, write_page
from groundwork.report.groups import GROUPINGS, words_of
from groundwork.report.prediction_files import predictions_files, read_predictions
from groundwork.report.predictions import Prediction, Run, gives_boxes

SHOWN = 24
Pair = tuple[Prediction, Prediction]
VERDICTS: Mapping[str, Callable[[Prediction], bool]] = {
    "pointing": lambda one: one.hit,
    "Acc@0.5": lambda one: metrics.box_correct(one.box, one.boxes),
    "all found": lambda one: one.all_found,
}
"""What two systems can be compared by."""


@dataclass(frozen=True)
class Line:
    """One row of the comparison; values in percent.

    first, second: share right. gain: second - first, with its interval low to high. won: what the
    second has right and the first has not; lost: the other way round; p: of McNemar's test.
    """

    name: str
    n: int
    first: float
    second: float
    gain: float
    low: float
    high: float
    won: int
    lost: int
    p: float


def paired(first: Sequence[Prediction], second: Sequence[Prediction]) -> list[Pair]:
    """The expressions that both have, in the order of the first.

    By their ids; if no id is shared, as between two forms of annotation, by split, name of the
    image, words, and which of several such it is.
    """
    for key in (_by_id, _by_words):
        others = dict(zip(key(second), second, strict=True))
        pairs = [
            (one, others[name])
            for name, one in zip(key(first), first, strict=True)
            if name in others
        ]
        if pairs:
            return pairs
    return []


def _by_id(predictions: Sequence[Prediction]) -> list[object]:
    return _numbered((one.split, one.id) for one in predictions)


def _by_words(predictions: Sequence[Prediction]) -> list[object]:
    return _numbered(
        (one.split, PurePosixPath(one.image).stem, tuple(words_of(one.phrase)))
        for one in predictions
    )


def _numbered(names: Iterable[tuple[object, ...]]) -> list[object]:
    """The names, told apart where one comes again: an annotation may say the same twice."""
    seen: Counter[object] = Counter()
    keys: list[object] = []
    for name in names:
        keys.append((name, seen[name]))
        seen[name] += 1
    return keys


def verdict_of(first: Run, second: Run, pairs: Sequence[Pair]) -> str:
    """By boxes where both give them themselves, else by points; of any number of targets by all."""
    if any(one.several for pair in pairs for one in pair):
        return "all found"
    return "Acc@0.5" if gives_boxes(first) and gives_boxes(second) else "pointing"


def compare(pairs: Sequence[Pair], verdict: str, *, seed: int = 0) -> list[Line]:
    """All pairs, then each split, then each group of expressions (`groups.GROUPINGS`)."""
    parts: dict[str, list[Pair]] = {"all": list(pairs)}
    for pair in pairs:
        parts.setdefault(f"split: {pair[0].split}", []).append(pair)
    for title, (names, order) in GROUPINGS.items():
        for name in order:
            members = [pair for pair in pairs if name in names(pair[0])]
            if members:
                parts[f"{title}: {name}"] = members
    return [_line(name, members, verdict, seed) for name, members in parts.items()]


def _line(name: str, pairs: Sequence[Pair], verdict: str, seed: int) -> Line:
    right = np.array([[VERDICTS[verdict](one) for one in pair] for pair in pairs])
    gains = right[:, 1].astype(float) - right[:, 0]
    images = [pair[0].image for pair in pairs]
    low, high = metrics.bootstrap_interval(100 * gains, groups=images, seed=seed)
    shares = 100 * right.mean(axis=0)
    won, lost, p = mcnemar(right[:, 0], right[:, 1])
    first, second, gain = float(shares[0]), float(shares[1]), 100 * float(gains.mean())
    return Line(name, len(pairs), first, second, gain, low, high, won, lost, p)


def cells_of(line: Line) -> list[str]:
    """A line as texts, in the order of `HEAD`."""
    p = "< 1e-6" if line.p < 1e-6 else f"{line.p:.2g}"
    return [
        line.name,
        str(line.n),
        f"{line.first:.2f}",
        f"{line.second:.2f}",
        f"{line.gain:+.2f}",
        f"{line.low:+.2f} to {line.high:+.2f}",
        str(line.won),
        str(line.lost),
        p,
    ]


HEAD = ("", "n", "A", "B", "B - A", "95 % interval", "won", "lost", "p (McNemar)")


def write_comparison(
    path: Path | str,
    runs: tuple[Run, Run],
    pairs: Sequence[Pair],
    verdict: str,
    lines: Sequence[Line],
    *,
    image_root: str | None = None,
) -> Path:
    """A page with the table and the samples that B won and lost, the clearest first.

    Raises:
        FileNotFoundError: an image is absent.
    """
    first, second = runs
    title = f"{first.benchmark}: {name_of(first)} (A) and {name_of(second)} (B)"
    head = "".join(f"<th>{html.escape(name)}</th>" for name in HEAD)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells_of(line)) + "</tr>"
        for line in lines
    )
    parts = [
        f"<p>Percent right by {html.escape(verdict)}, of the {len(pairs)} expressions that both "
        "have. Intervals draw whole images; p says how likely such an uneven split of what only "
        "one has right is if both are equally good. The filter's verdict is that on A.</p>",
        f"<table><tr>{head}</tr>{body}</table>",
        "<h2>Samples</h2>",
        filter_html([pair[0] for pair in pairs]),
    ]
    right = VERDICTS[verdict]
    by_boxes = verdict == "Acc@0.5"
    for name, index in (("won by B", 1), ("lost by B", 0)):
        chosen = [pair for pair in pairs if right(pair[index]) and not right(pair[1 - index])]
        chosen.sort(
            key=lambda pair: (
                rightness(pair[index], boxes=by_boxes) - rightness(pair[1 - index], boxes=by_boxes)
            ),
            reverse=True,
        )
        cards = "".join(
            card(list(zip(runs, pair, strict=True)), image_root) for pair in chosen[:SHOWN]
        )
        parts.append(f'<h3>{len(chosen)} {name}</h3><div class="cards">{cards}</div>')
    return write_page(path, title, parts)


def name_of(run: Run) -> str:
    """System, objective and checkpoint, and what is right where two evaluations may differ."""
    protocol = "(merged box)" if run.merged_boxes else ""
    return " ".join(filter(None, (run.system, run.objective, run.checkpoint, protocol)))


def markdown(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table."""
    rows = [HEAD, *map(cells_of, lines)]
    head, *body = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|---" * len(HEAD) + "|", *body])


def evaluation_of(folder: Path, benchmark: str | None) -> tuple[Run, list[Prediction]]:
    """The one evaluation of a folder, or that on a benchmark.

    Raises:
        FileNotFoundError: there is none. ValueError: there are several.
    """
    found = [read_predictions(file) for file in predictions_files(folder)]
    kept = [one for one in found if benchmark in (None, one[0].benchmark)]
    if len(kept) != 1:
        there = ", ".join(f"{run.checkpoint} on {run.benchmark}" for run, _ in found)
        raise ValueError(
            f"{folder} holds {len(kept)} evaluations to compare of {there}: name a "
            "predictions_*.jsonl file, or a --benchmark"
        )
    return kept[0]

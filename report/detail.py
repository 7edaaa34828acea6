"""The page of one evaluation: numbers, groups of expressions, calibration, training, samples.

It needs no other file, no server and no network; a filter of its samples runs in the browser.
"""

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from groundwork.files.safe import write_text
from groundwork.metrics.calibration import Bin, calibration_error, reliability
from groundwork.report.cards import card, rightness
from groundwork.report.charts import line_chart, training_curves
from groundwork.report.groups import GROUPINGS, Group, breakdown
from groundwork.report.pages import CHANCE, EXPLANATION, tables
from groundwork.report.predictions import Prediction, Run, correct, gives_boxes
from groundwork.report.results import Row, chance_rows, score_rows
from groundwork.report.sheet import choose

EACH, RANDOM = 12, 36
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1180px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:0}h2{font-size:1.15rem;margin:2.2rem 0 .4rem}
h3{font-size:1rem;margin:1.2rem 0 .3rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.24rem .7rem;border-bottom:1px solid #ddd}
th{border-bottom:2px solid #222;font-weight:600}.number{text-align:right;white-space:nowrap}
.columns td{white-space:nowrap}
.chance{color:#777}p{color:#555;max-width:60rem}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(25rem,1fr));gap:0 2rem}
.bar{width:34%}.bar div{position:relative;height:.8rem;background:#eee}
.bar i{position:absolute;top:0;bottom:0;left:0;background:#1b6ca8}
.bar b{position:absolute;top:.3rem;height:.2rem;background:#222;opacity:.55}
.chart{margin:.4rem 0}.chart svg{width:100%;font:11px system-ui,sans-serif;fill:#555}
.key{display:flex;flex-wrap:wrap;gap:0 1rem;font-size:.8rem}
.key i{display:inline-block;width:.8rem;height:.2rem;margin:0 .35rem .2rem 0}
.filter{position:sticky;top:0;background:#fff;border-bottom:1px solid #ddd;padding:.6rem 0;
z-index:1;display:flex;flex-wrap:wrap;gap:.5rem 1rem;align-items:center;font-size:.85rem}
.filter input,.filter select{font:inherit;padding:.15rem .3rem;max-width:14rem}
.cards{display:flex;flex-wrap:wrap;gap:1rem;align-items:flex-start}
.card{margin:0;max-width:100%}.card[hidden]{display:none}
.panels{display:flex;flex-wrap:wrap;gap:.4rem}
.answer{border:3px solid;display:flex}
.answer svg{display:block;height:9.5rem;max-width:100%}
.name{font-size:.75rem;color:#555}
rect{fill:none;vector-effect:non-scaling-stroke}.truth,.answer rect{stroke-width:1.6}
rect.edge{stroke:#000;stroke-opacity:.65;stroke-width:3.4}
circle{stroke:#fff;stroke-width:1.4;vector-effect:non-scaling-stroke}
figcaption{font-size:.85rem;max-width:20rem;overflow-wrap:anywhere}
figcaption small{display:block;color:#777}
"""
SCRIPT = """
const bar=document.querySelector('.filter'),cards=[...document.querySelectorAll('.card')];
function filter(){let shown=0;
for(const one of cards){let fits=true;
for(const field of bar.querySelectorAll('[name]')){const asked=field.value.trim().toLowerCase();
const has=(one.dataset[field.name]||'').toLowerCase();
if(asked&&!(field.name=='text'?has.includes(asked):has.split('|').includes(asked)))fits=false}
one.hidden=!fits;shown+=fits}
bar.querySelector('output').value=shown+' of '+cards.length+' shown'}
bar.addEventListener('input',filter);filter();
"""


def write_detail(
    path: Path | str,
    run: Run,
    predictions: Sequence[Prediction],
    *,
    image_root: str | None = None,
    log: Path | None = None,
) -> Path:
    """Write the page of an evaluation.

    Args:
        path: of the page. image_root: folder of the images; that of the run if None.
        log: the training run's `log.txt`, for its curves; None: there is none to show.

    Raises:
        FileNotFoundError: an image is absent. ValueError: the log is none, or no predictions.
    """
    if not predictions:
        raise ValueError(f"no predictions of {run.benchmark} to show")
    what = " ".join(filter(None, (run.system, run.objective)))
    title = f"{what} on {run.benchmark}"
    about = ", ".join(filter(None, (run.checkpoint, run.note, f"{len(predictions)} expressions")))
    rows = score_rows(run, predictions) + chance_rows(run, predictions)
    judged = "Acc@0.5" if gives_boxes(run) else "the pointing game"
    if any(one.several for one in predictions):
        judged = "all targets found and nothing else"
    parts = [
        f"<p>{html.escape(about)}</p>",
        scores_html(rows),
        f"<p>{html.escape(EXPLANATION)}</p>",
        f"<h2>Groups of expressions</h2><p>Percent right by {judged}, with 95 % intervals.</p>",
        _groups_html(breakdown(run, predictions)),
        *_calibration_html(run, predictions),
    ]
    curves = training_curves(log) if log is not None else []
    if curves:
        parts += ["<h2>Training</h2>", f'<div class="columns">{"".join(curves)}</div>']
    parts += _samples_html(run, predictions, image_root)
    return write_page(path, title, parts)


def write_page(path: Path | str, title: str, parts: Sequence[str]) -> Path:
    """A page that needs no other file, of parts that are HTML; with the filter if it has cards."""
    cards = any('class="filter"' in part for part in parts)
    script = f"<script>{SCRIPT}</script>" if cards else ""
    write_text(
        path,
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><body><h1>{html.escape(title)}</h1>{''.join(parts)}{script}"
        f"</body></html>\n",
    )
    return Path(path)


def scores_html(rows: Sequence[Row]) -> str:
    """One table: a line per metric and system, a column per split, published numbers beside."""
    splits = list(dict.fromkeys(str(row["split"]) for row in rows))
    lines: dict[tuple[str, bool], dict[str, str]] = {}
    for title, cells in tables(rows).items():
        for cell in cells:
            chance = cell["system"] in CHANCE
            metric = title.partition(": ")[2] + f", {cell['system']}" * chance
            text = f"{cell['value']} ({cell['95 % interval'].replace(' to ', '–')})"
            published = f", published {cell['published']}" if cell.get("published") else ""
            derived = " derived" if cell.get("note", "").startswith("derived") else ""
            line = lines.setdefault((metric + derived, chance), {})
            line[cell["split"]] = f"{text}{published}, n {cell['n']}"
    head = "".join(f"<th class=number>{html.escape(split)}</th>" for split in splits)
    body = "".join(
        f"<tr{' class=chance' * chance}><td>{html.escape(metric)}</td>"
        + "".join(f"<td class=number>{html.escape(line.get(split, ''))}</td>" for split in splits)
        + "</tr>"
        for (metric, chance), line in lines.items()
    )
    return f"<table><tr><th></th>{head}</tr>{body}</table>"


def _groups_html(groups: Mapping[str, Sequence[Group]]) -> str:
    found = []
    for title, members in groups.items():
        lines = "".join(
            f"<tr><td>{html.escape(one.name)}</td><td class=number>{one.n}</td>"
            f"<td class=number>{one.value:.1f} ({one.low:.1f}–{one.high:.1f})</td>"
            f'<td class="bar"><div><i style="width:{one.value:.1f}%"></i>'
            f'<b style="left:{one.low:.1f}%;width:{one.high - one.low:.1f}%"></b></div></td></tr>'
            for one in members
        )
        found.append(
            f"<div><h3>By {html.escape(title)}</h3><table><tr><th></th><th class=number>n</th>"
            f"<th class=number>right, %</th><th></th></tr>{lines}</table></div>"
        )
    return f'<div class="columns">{"".join(found)}</div>'


def confidences(predictions: Sequence[Prediction]) -> tuple[str, np.ndarray]:
    """What the scores are taken for, and (n,) probabilities; NaN where there is no score."""
    scores = np.array([math.nan if p.score is None else p.score for p in predictions])
    known = scores[np.isfinite(scores)]
    if known.size and known.min() >= 0 and known.max() <= 1:
        return "score", scores
    return "sigmoid of the score", 1 / (1 + np.exp(-np.clip(scores, -700, 700)))


def _calibration_html(run: Run, predictions: Sequence[Prediction]) -> list[str]:
    name, sure = confidences(predictions)
    known = np.isfinite(sure)
    if len(np.unique(sure[known])) < 2:
        return []
    right = np.array([correct(one, boxes=gives_boxes(run)) for one in predictions])
    bins = reliability(sure[known], right[known])
    return [
        f"<h2>Calibration</h2><p>Share of right answers by the {html.escape(name)}; a calibrated "
        f"score lies on the diagonal. Expected calibration error "
        f"{100 * calibration_error(bins):.1f} %, over {int(known.sum())} answers with a score.</p>",
        f'<div class="columns">{_reliability_chart(bins)}{_reliability_table(bins)}</div>',
    ]


def _reliability_chart(bins: Sequence[Bin]) -> str:
    line = [(one.confidence, one.accuracy) for one in bins]
    unit = (0.0, 1.0)
    return line_chart(
        {"this system": line, "calibrated": [(0, 0), (1, 1)]},
        across="confidence", up="share right", ranges=(unit, unit), dots=True,
    )  # fmt: skip


def _reliability_table(bins: Sequence[Bin]) -> str:
    lines = "".join(
        f"<tr><td>{one.low:.1f}–{one.high:.1f}</td><td class=number>{one.n}</td>"
        f"<td class=number>{one.confidence:.2f}</td><td class=number>{one.accuracy:.2f}</td></tr>"
        for one in bins
    )
    head = "".join(f"<th class=number>{name}</th>" for name in ("n", "mean", "right"))
    return f"<table><tr><th>confidence</th>{head}</tr>{lines}</table>"


def _samples_html(run: Run, predictions: Sequence[Prediction], image_root: str | None) -> list[str]:
    boxes = gives_boxes(run)
    order = sorted(
        predictions,
        key=lambda one: (correct(one, boxes=boxes), rightness(one, boxes=boxes)),
        reverse=True,
    )
    groups = {
        "best": _one_per_image(order)[:EACH],
        "worst": _one_per_image(order[::-1])[:EACH],
        "random": choose(predictions, RANDOM, run.seed),
    }
    parts = ["<h2>Samples</h2>", filter_html(predictions)]
    for name, members in groups.items():
        cards = "".join(card([(run, one)], image_root, group=name) for one in members)
        parts.append(f'<h3>{name.capitalize()}</h3><div class="cards">{cards}</div>')
    return parts


def _one_per_image(predictions: Sequence[Prediction]) -> list[Prediction]:
    first: dict[str, Prediction] = {}
    for one in predictions:
        first.setdefault(one.image, one)
    return list(first.values())


def filter_html(predictions: Sequence[Prediction]) -> str:
    """The bar that chooses among the cards of a page."""
    splits = list(dict.fromkeys(one.split for one in predictions))
    (_, sizes), (_, lengths), (_, words) = GROUPINGS.values()
    choices = {
        "verdict": ("right", "wrong"), "split": splits, "words": words, "size": sizes,
        "length": lengths,
    }  # fmt: skip
    fields = "".join(
        f'<label>{name} <select name="{name}"><option value="">any</option>'
        + "".join(f"<option>{html.escape(value)}</option>" for value in values)
        + "</select></label>"
        for name, values in choices.items()
    )
    search = '<label>phrase <input name="text" type="search"></label>'
    return f'<div class="filter">{search}{fields}<output></output></div>'

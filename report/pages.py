"""Tables, image sheets and one page, made from rows and predictions and from nothing else."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from groundwork.benchmarks import BENCHMARKS
from groundwork.files.safe import write_text
from groundwork.report.prediction_files import file_name
from groundwork.report.predictions import Prediction, Run
from groundwork.report.results import Row, update_rows
from groundwork.report.sheet import Group, draw_sheet, drawn

CHANCE = ("centre", "random", "nothing")
COLUMNS = (
    "system", "objective", "checkpoint", "split", "value", "95 % interval", "n", "published", "note"
)  # fmt: skip
# More of them would make a page of a folder of checkpoints too large to open.
_WHOLE_SHEETS = 12
NUMBERS = ("value", "95 % interval", "n", "published")


@dataclass(frozen=True)
class Samples:
    """What is shown of an evaluation on an image sheet, without the predictions that are not.

    image_root: folder of the images; that of the run if None.
    """

    run: Run
    groups: Sequence[Group]
    image_root: str | None = None

    @classmethod
    def of(
        cls,
        run: Run,
        predictions: Sequence[Prediction],
        image_root: str | None = None,
        *,
        each: int = 9,
        seed: int = 0,
    ) -> Samples:
        """At most `each` hits and as many misses, drawn by seed."""
        groups = drawn(run, predictions, hits=each, misses=each, seed=seed)
        return cls(run, groups, image_root)


def published_value(row: Mapping[str, object]) -> str:
    """The published number that a row can be compared with; "" where none is known.

    Numbers on the embedded data set have no published counterpart, nor has a model that was
    trained with AMC and SelfEQ at once.
    """
    system, objective = str(row["system"]), str(row["objective"]).lower()
    trained = [name for name in ("AMC", "SelfEQ") if name.lower() in objective]
    benchmark = BENCHMARKS.get(str(row["benchmark"]))
    if benchmark is None or len(trained) > 1:
        return ""
    if system.lower() == "albef" and trained:
        (system,) = trained
    wanted = (system.lower(), row["split"], row["metric"])
    for known in benchmark.published:
        if (known.system.lower(), known.split, known.metric) == wanted:
            return f"{known.value:.2f}" + " (not verified)" * (not known.verified)
    return ""


def tables(rows: Iterable[Mapping[str, object]]) -> dict[str, list[dict[str, str]]]:
    """Rows as text: {"benchmark: metric": [{column: cell}]}; chance first, empty columns gone."""
    grouped: dict[str, list[Mapping[str, object]]] = {}
    for row in rows:
        grouped.setdefault(f"{row['benchmark']}: {row['metric']}", []).append(row)
    return {title: _table(group) for title, group in grouped.items()}


def _table(rows: Sequence[Mapping[str, object]]) -> list[dict[str, str]]:
    splits = list(dict.fromkeys(row["split"] for row in rows))
    models = list(dict.fromkeys(_model(row) for row in rows))
    ordered = sorted(
        rows,
        key=lambda row: (
            splits.index(row["split"]),
            row["system"] not in CHANCE,
            models.index(_model(row)),
        ),
    )
    cells = [_cells(row) for row in ordered]
    kept = [column for column in COLUMNS if any(line[column] for line in cells)]
    return [{column: line[column] for column in kept} for line in cells]


def _model(row: Mapping[str, object]) -> tuple[object, ...]:
    return (row["system"], row["objective"], row["checkpoint"])


def _cells(row: Mapping[str, object]) -> dict[str, str]:
    # Correlations live in [-1, 1] and need one digit more than percent.
    digits = 3 if row["metric"] == "map correlation" else 2
    notes = [str(row["note"])] if row["note"] else []
    if row["derived"]:
        notes.insert(0, "derived")
    measured = row["value"] is not None
    return {
        "system": str(row["system"]),
        "objective": str(row["objective"]),
        "checkpoint": "/".join(Path(str(row["checkpoint"])).parts[-2:]),
        "split": str(row["split"]),
        "value": f"{row['value']:.{digits}f}" if measured else "n/a",
        "95 % interval": f"{row['low']:.{digits}f} to {row['high']:.{digits}f}" if measured else "",
        "n": str(row["n"]),
        "published": published_value(row),
        "note": ", ".join(notes),
    }


def markdown(rows: Iterable[Mapping[str, object]]) -> str:
    """All rows as Markdown tables, one per benchmark and metric."""
    parts = []
    for title, lines in tables(rows).items():
        columns = list(lines[0])
        widths = [max(len(column), *(len(line[column]) for line in lines)) for column in columns]
        parts.append(f"### {title}\n")
        parts.append(_line(columns, columns, widths))
        rule = [
            "-" * (width - 1) + (":" if column in NUMBERS else "-")
            for column, width in zip(columns, widths, strict=True)
        ]
        parts.append(_line(rule, columns, widths))
        for line in lines:
            cells = [line[column].replace("|", "\\|") for column in columns]
            parts.append(_line(cells, columns, widths))
        parts.append("")
    return "\n".join(parts)


def _line(cells: Sequence[str], columns: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.rjust(width) if column in NUMBERS else cell.ljust(width)
        for cell, column, width in zip(cells, columns, widths, strict=True)
    ]
    return "| " + " | ".join(padded) + " |"


EXPLANATION = (
    "Values in percent unless the metric has a unit of its own; intervals are 95 % bootstrap "
    "intervals that draw whole images; n is the number of expressions; rows of centre and random "
    "are what the centre of the image and a random point would score; derived means that the "
    "system does not give the output itself that the metric needs. Acc@0.5 and Prec@X count an IoU "
    "strictly above the threshold; oIoU is the sum of intersections over the sum of unions; mIoU "
    "(resized) is taken at the size that the network sees, as RefTR's release does; any box and "
    "merged box are Flickr30k's two protocols for phrases with several boxes, of which pointing is "
    "about any where nothing else is said. For expressions of "
    "any number of targets F1 is the share whose boxes are all found (GIoU at least 0.5) and "
    "nothing else, N-acc the share without target for which nothing is found, T-acc that of the "
    "others for which something is; gIoU is the mean of the IoUs, cIoU the sum of intersections "
    "over the sum of unions; nothing is a system that never finds anything."
)


def write_report(
    folder: Path | str,
    rows: Iterable[Mapping[str, object]],
    samples: Sequence[Samples] = (),
    *,
    title: str = "Grounding results",
    pages: Sequence[str] = (),
) -> Path:
    """Write results.json, results.md, an image sheet per item of `samples`, and index.html.

    Args:
        folder: made if needed; rows of a results.json in it are kept unless replaced.
        rows: of results.json's schema.
        samples: what to draw; an item without predictions is left out, as nothing can be drawn.
        title: of the page. pages: others that it links to, relative to `folder`.

    Returns:
        The path of index.html, which contains the sheets and needs no other file.

    Raises:
        FileNotFoundError: an image of a sheet is absent.
    """
    folder = Path(folder)
    merged = update_rows(folder / "results.json", rows)
    sheets: list[Path] = []
    for item in samples:
        if item.groups:
            path = folder / _sheet_name(item.run, [sheet.name for sheet in sheets])
            sheets.append(draw_sheet(path, item.run, item.groups, image_root=item.image_root))
    text = f"# {title}\n\n{markdown(merged)}\n{EXPLANATION}\n"
    text += "".join(f"\n![{sheet.stem}]({sheet.name})\n" for sheet in sheets)
    write_text(folder / "results.md", text)
    page = folder / "index.html"
    write_text(page, _page(title, merged, sheets, pages))
    return page


def _sheet_name(run: Run, taken: Sequence[str]) -> str:
    name = "sheet_" + file_name("_".join(filter(None, (run.system, run.objective, run.benchmark))))
    number = sum(other.startswith(name) for other in taken)
    return f"{name}_{number + 1}.png" if number else f"{name}.png"


STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1080px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.1rem;margin:2rem 0 .4rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.28rem .7rem;border-bottom:1px solid #ddd}
th{border-bottom:2px solid #222;font-weight:600}.number{text-align:right;white-space:nowrap}
.chance{color:#777}img{max-width:100%;margin:1.5rem 0}p{color:#555}
"""


def _page(title: str, rows: Sequence[Row], sheets: Sequence[Path], pages: Sequence[str]) -> str:
    body = [f"<h1>{html.escape(title)}</h1>"]
    links = (f'<a href="{quote(page)}">{html.escape(page)}</a>' for page in pages)
    body += [f"<p>Groups of expressions, calibration, samples: {', '.join(links)}</p>"] * bool(
        pages
    )
    body += tables_html(rows)
    body.append(f"<p>{html.escape(EXPLANATION)}</p>")
    for sheet in sheets:
        alternative = html.escape(sheet.stem.replace("_", " "))
        body.append(f'<img alt="{alternative}" src="{_inline(sheet, len(sheets))}">')
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><body>{''.join(body)}</body></html>\n"
    )


def tables_html(rows: Iterable[Mapping[str, object]]) -> list[str]:
    """All rows as HTML tables, one per benchmark and metric, each with its heading."""
    body = []
    for name, lines in tables(rows).items():
        head = "".join(_html_cell("th", column, column) for column in lines[0])
        body.append(f"<h2>{html.escape(name)}</h2><table><tr>{head}</tr>")
        for line in lines:
            kind = ' class="chance"' if line["system"] in CHANCE else ""
            cells = "".join(_html_cell("td", column, cell) for column, cell in line.items())
            body.append(f"<tr{kind}>{cells}</tr>")
        body.append("</table>")
    return body


def _inline(sheet: Path, sheets: int) -> str:
    """A sheet as part of the page: as it is, or smaller where there are many."""
    if sheets <= _WHOLE_SHEETS:
        return f"data:image/png;base64,{base64.b64encode(sheet.read_bytes()).decode()}"
    content = io.BytesIO()
    with Image.open(sheet) as image:
        image.convert("RGB").save(content, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def _html_cell(tag: str, column: str, text: str) -> str:
    kind = ' class="number"' if column in NUMBERS else ""
    return f"<{tag}{kind}>{html.escape(text)}</{tag}>"

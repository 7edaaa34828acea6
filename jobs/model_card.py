"""The README.md of a saved system: what lies beside its checkpoint says of data and numbers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from groundwork.files.foreign import parse_json, read_text
from groundwork.files.safe import write_text
from groundwork.jobs.presence import Calibration
from groundwork.jobs.pretrained import CARD, CONFIG
from groundwork.jobs.recognition import About
from groundwork.report.results import Row, read_rows

_MANIFEST, _RESULTS = "manifest.json", "results.json"
_PRESENCE, _LICENCE_TITLE = "## Is it there?\n", "## Licence\n"
_LICENCE = (
    "The code that reads these weights is under the MIT licence. The weights are bound by the terms"
    " of the data and of the first weights that they were trained from; read those of each owner."
)


def model_card(about: About, path: Path, calibration: Calibration | None = None) -> str:
    """Markdown with the header that the hub reads.

    Args:
        path: the checkpoint. The manifest.json of its training run beside it, and the rows of it in
            every results.json beside it and in the folders there, are what is known; the rest is
            left out. A folder that was saved before has its card already.
        calibration: of the presence of what phrases mean, if there is one.
    """
    if path.is_dir():
        file = path / CARD
        card = file.read_text(encoding="utf-8") if file.is_file() else _card(about, {}, [])
    else:
        card = _card(about, _manifest(path.parent), list(_rows(path)))
    return _with_presence(card, calibration)


def renew_card(path: Path, calibration: Calibration) -> None:
    """Tell of a new calibration in the card of a saved folder; a file has none."""
    card = path / CARD
    if card.is_file():
        write_text(card, _with_presence(card.read_text(encoding="utf-8"), calibration))


def _with_presence(card: str, calibration: Calibration | None) -> str:
    """The card with this calibration's section before that of the licence, and no other's."""
    before, _, old = card.partition(_PRESENCE)
    after = old.partition("## ")[1:] if old else ()
    card = before + "".join(after)
    if calibration is None:
        return card
    about, licence, terms = card.partition(_LICENCE_TITLE)
    told = (
        "`Grounding.present` is the probability that what a phrase means is in the image, in a"
        " collection in which as many phrases have no target as in what it was fitted on."
    )
    return f"{about}{_PRESENCE}\n{told}\n\n```\n{calibration}\n```\n\n{licence}{terms}"


def _card(about: About, manifest: dict[str, Any], rows: list[Row]) -> str:
    header = ["---", "library_name: groundwork", f"tags: [visual-grounding, {about.system}]", "---"]
    use = [
        "```python",
        "from groundwork import Grounder",
        "",
        'grounder = Grounder.load("FOLDER OR ID OF THIS MODEL")',
        '(found,) = grounder.ground("photo.jpg", ["the red circle"])',
        "```",
    ]
    parts = [
        "\n".join(header),
        f"# {about.title}: grounds phrases in images",
        f"From `{Path(about.source).name}`, with the configuration of {about.config};"
        f" {CONFIG} has it whole.",
        "\n".join(use),
        "## Training\n\n" + (_training(manifest) or f"No {_MANIFEST} lay beside the checkpoint."),
        "## Results\n\n"
        + (_table(rows) or f"No {_RESULTS} beside the checkpoint has its numbers."),
        f"{_LICENCE_TITLE}\n{_LICENCE}",
    ]
    return "\n\n".join(parts) + "\n"


def _manifest(folder: Path) -> dict[str, Any]:
    file = folder / _MANIFEST
    if not file.is_file():
        return {}
    read = parse_json(read_text(file), str(file), "delete it, or copy it again")
    return read if isinstance(read, dict) else {}


def _training(manifest: dict[str, Any]) -> str:
    if not manifest:
        return ""
    files = manifest.get("data") or {}
    lines = [f"- command: `{' '.join(manifest.get('command', []))}`, seed {manifest.get('seed')}"]
    lines += [
        f"- data: `{Path(name).parent.name}/{Path(name).name}`, {file['bytes']:,} bytes"
        for name, file in files.items()
    ]
    first = ((manifest.get("config") or {}).get("model") or {}).get("init") or {}
    lines += [f"- first weights ({part}): `{file}`" for part, file in first.items() if file]
    lines += [f"- code: commit {manifest['git']['commit']}"] if "git" in manifest else []
    packages = manifest.get("versions") or {}
    named = ", ".join(
        f"{name} {packages[name]}" for name in ("python", "torch") if name in packages
    )
    return "\n".join([*lines, f"- versions: {named}"] if named else lines)


def _rows(checkpoint: Path) -> Iterator[Row]:
    folder = checkpoint.parent
    for file in (folder / _RESULTS, *sorted(folder.glob(f"*/{_RESULTS}"))):
        if file.is_file():
            yield from (row for row in read_rows(file) if row["checkpoint"] == checkpoint.name)


def _table(rows: list[Row]) -> str:
    if not rows:
        return ""
    lines = [
        "With 95 % intervals over images; n: expressions. *derived*: not what the system itself"
        " gives.",
        "",
        "| benchmark | split | metric | value | interval | n | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = (_number(row.get(name)) for name in ("low", "high"))
        interval = f"{low} to {high}" if low and high else ""
        notes = ("derived" if row.get("derived") else "", row.get("note"))
        note = "; ".join(str(one) for one in notes if one)
        lines.append(
            f"| {row['benchmark']} | {row['split']} | {row['metric']} | {_number(row['value'])} |"
            f" {interval} | {row.get('n', '')} | {note} |"
        )
    return "\n".join(lines)


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.2f}"

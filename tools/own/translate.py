"""Lists of every form that tools/prepare_own.py takes, as lines of `dataset.formats.phrases`."""

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from groundwork.dataset.formats import coco_json, entries, notes, phrases
from groundwork.files.foreign import read_text

Lines = Iterator[tuple[str, phrases.Entry]]
_TEXTS = ("phrase", "caption", "expression", "text")
_IMAGES = ("image", "file_name", "filename")
_CORNERS = (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"))
_SIDES = (("x", "y", "w", "h"), ("x", "y", "width", "height"))
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")


class Listed(NamedTuple):
    """form: for messages. lines: (place, entry) of every phrase. xywh: how their boxes are stated;
    None: the form does not say."""

    form: str
    lines: Lines
    xywh: bool | None


def open_list(path: Path, faults: list[str], *, whole_captions: bool = False) -> Listed:
    """The phrases of a file, whose form its name and keys say.

    Args:
        faults: receives what is said of lines that cannot be read, as the others are.
        whole_captions: of MDETR's JSON: a phrase is the caption, not the words that
            tokens_positive names.

    Raises:
        FileNotFoundError: no such file. ValueError: none of the forms.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: give a file {', '.join(f'*{one}' for one in SUFFIXES)}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; write a line per phrase, {{image, phrase}}")
    if path.suffix == ".jsonl":
        return Listed("JSON lines", phrases.load(path, faults), None)
    if path.suffix != ".json":
        rows, xywh = table(path, faults)
        return Listed("table", rows, xywh)
    content = entries.load_json(path, "phrases")
    if not isinstance(content, Mapping) or not content.keys() >= {"images", "annotations"}:
        raise ValueError(
            f"{path}: expected the keys images and annotations of COCO or MDETR; a list of objects"
            " is written one a line, *.jsonl"
        )
    listed = entries.listed(content["annotations"], f"{path} annotations")
    if any("tokens_positive" in row for row in listed if isinstance(row, Mapping)):
        return Listed("MDETR", mdetr(path, content, whole_captions=whole_captions), True)
    return Listed("COCO", coco(path, content), True)


def coco(path: Path, content: Any) -> Lines:
    """Annotations with a phrase each, and captions, which have no box."""
    for source, row, image in coco_json.annotations(path, content):
        key = next((key for key in _TEXTS if key in row), None)
        if key is None:
            raise ValueError(f"{source}: has no text; give it one as {' or '.join(_TEXTS[:2])}")
        outline = {"mask": row["segmentation"]} if row.get("segmentation") else {}
        where = {"box": row["bbox"]} if "bbox" in row else {}
        yield source, _of_image(image) | {"phrase": row[key]} | where | outline


def _of_image(image: Mapping[str, Any]) -> dict[str, Any]:
    size = {key: image[key] for key in ("width", "height") if key in image}
    return {"image": image["file_name"], **size}


def mdetr(path: Path, content: Any, *, whole_captions: bool) -> Lines:
    """Captions with the boxes of the words that tokens_positive names; a caption without any is a
    phrase of an unknown place."""
    seen = set()
    for source, row, image in coco_json.annotations(path, content):
        seen.add(image["id"])
        caption = entries.text(image, "caption", f"{path} image {image['id']}")
        spans = _spans(row, caption, source)
        text, start = " ".join(caption[a:b] for a, b in spans), spans[0][0]
        # Words from several places of the caption are not a part of it.
        part = {"sentence": caption, "start": start} if len(spans) == 1 else {}
        found = {"phrase": caption} if whole_captions else {"phrase": text, **part}
        outline = {"mask": row["segmentation"]} if row.get("segmentation") else {}
        where = {"box": entries.need(row, "bbox", source)} | outline
        yield source, _of_image(image) | found | where
    for index, image in enumerate(content["images"]):
        if image["id"] not in seen and "caption" in image:
            yield f"{path} images[{index}]", _of_image(image) | {"phrase": image["caption"]}


def _spans(row: Mapping[str, Any], caption: str, source: str) -> list[tuple[int, int]]:
    spans = entries.listed(entries.need(row, "tokens_positive", source), source)
    if not spans:
        return [(0, len(caption))]
    found = []
    for span in spans:
        whole = isinstance(span, list) and len(span) == 2 and all(isinstance(x, int) for x in span)
        if not whole or not 0 <= span[0] < span[1] <= len(caption):
            raise ValueError(
                f"{source}: tokens_positive holds {span!r}; each is the first character of a part"
                f" of the caption {caption!r} and the one behind its last"
            )
        found.append((span[0], span[1]))
    return sorted(found)


def table(path: Path, faults: list[str]) -> tuple[Lines, bool | None]:
    """The rows of a table with named columns, and how their boxes are stated.

    Columns are parted by tabs in a *.tsv, in a *.csv by what its first line has most of. A row
    without a box, where others may have one, refers to nothing. `faults`: as of `open_list`.

    Raises:
        ValueError: the columns of image or phrase are missing, or a part of a box's, or there are
            two of one name.
    """
    text = read_text(path, "phrases")
    head = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text), delimiter=max("\t,;", key=head.count))
    rows = _whole(reader, path)
    names = [name.strip().lower() for name in next(rows, [])]
    image, phrase = (_column(names, known, path) for known in (_IMAGES, _TEXTS))
    box = next((box for box in (*_CORNERS, *_SIDES) if set(box) <= set(names)), ())
    stated = {name for one in (*_CORNERS, *_SIDES) for name in one} & set(names)
    if stated - set(box) - {"width", "height"}:
        raise ValueError(
            f"{path}: a box has the columns {', '.join(sorted(stated))}; give all of"
            f" {' or all of '.join(', '.join(one) for one in (*_CORNERS, *_SIDES))}"
        )

    read = (image, phrase, *box)
    if twice := [name for name in read if names.count(name) > 1]:
        raise ValueError(
            f"{path}: several columns are called {', '.join(twice)}; leave one of each"
        )

    def lines() -> Lines:
        unread = [name for name in names if name and name not in read]
        notes.say(path, f"columns that are not read (those that are: {', '.join(read)})", unread)
        line = reader.line_num + 1
        for row in rows:
            # A cell may have several lines.
            source, line = f"{path}:{line}", reader.line_num + 1
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(names):
                faults.append(f"{source}: {len(row)} cells in {len(names)} columns")
                continue
            cells = dict(zip(names, row, strict=True))
            found = {"image": cells[image].strip(), "phrase": cells[phrase]}
            try:
                where = {"box": _box(cells, box, source)} if box else {}
            except ValueError as error:
                faults.append(str(error))
                continue
            yield source, found | where

    return lines(), (box in _SIDES) if box else None


def _whole(rows: Iterator[list[str]], path: Path) -> Iterator[list[str]]:
    """Raises ValueError where a cell never ends."""
    try:
        yield from rows
    except csv.Error as error:
        raise ValueError(f"{path}: is no table ({error}); save it again as UTF-8") from error


def _column(names: list[str], known: tuple[str, ...], path: Path) -> str:
    found = next((name for name in known if name in names), None)
    if found is None:
        raise ValueError(
            f"{path}: no column is called {' or '.join(known)}; its first line must name the"
            f" columns, and has {', '.join(names) or 'nothing'}"
        )
    return found


def _box(cells: Mapping[str, str], box: tuple[str, ...], source: str) -> list[float] | None:
    values = [cells[name].strip() for name in box]
    if not any(values):
        return None
    try:
        return [float(value) for value in values]
    except ValueError:
        raise ValueError(
            f"{source}: box {', '.join(values)} is not four numbers; leave all four empty where a"
            " phrase refers to nothing"
        ) from None

"""Phrases of your own, one JSON object a line: what `tools/prepare_own.py` takes and writes.

{"image": path, "phrase": str, "box": [x1, y1, x2, y2]}

In the place of "box": "boxes": [[x1, y1, x2, y2], ...]; "mask" or "masks": COCO segmentations, with
or without boxes; null or no box in any of them: the phrase refers to nothing in the image. Without
all four: nobody has said where it is.
Besides: "width", "height" of the image, "object": what the phrase refers to, the same for all
phrases of it in an image; "sentence" that the phrase is part of, from its character "start" on;
"relation": {group, synonym} as in SelfEQ's lists.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from groundwork.dataset.formats import entries, notes
from groundwork.dataset.formats.grouping import in_a_row
from groundwork.dataset.record import Phrase, Record
from groundwork.dataset.words import require_text
from groundwork.files.foreign import open_text, parse_json
from groundwork.files.safe import atomic_write

WHERE = ("box", "boxes", "mask", "masks")
KEYS = ("image", "phrase", *WHERE, "width", "height", "object", "sentence", "start", "relation")
Entry = Mapping[str, Any]


def read(path: str | os.PathLike[str], split: str | None = None) -> Iterator[Record]:
    """One record per object or sentence: phrases in a row that are of one are its phrases.

    Args:
        split: that of all records; None: they have none.
    """
    records = (record_of(entry, source, split or "") for source, entry in load(path))
    return in_a_row(records)


def load(
    path: str | os.PathLike[str], faults: list[str] | None = None
) -> Iterator[tuple[str, Entry]]:
    """The objects of a file, each with its place for messages; empty lines are none.

    Args:
        faults: receives what is said of lines that are no JSON object; None: the first is an error.

    Raises:
        FileNotFoundError: no such file. ValueError: not UTF-8, or a line that is no JSON object.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"phrases {path} do not exist; tools/prepare_own.py writes them, and"
            " tools/make_paraphrases.py relation.jsonl (docs/own_data.md)"
        )
    unread = []
    with open_text(path, "phrases") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            source = f"{path}:{number}"
            try:
                entry = _object(line, source)
            except ValueError as error:
                if faults is None:
                    raise
                faults.append(str(error))
                continue
            unread += [f"{source}: {key}" for key in entry if key not in KEYS]
            yield source, entry
    notes.say(path, f"keys that are not read (those that are: {', '.join(KEYS)})", unread)


def _object(line: str, source: str) -> Entry:
    entry = parse_json(line, source, "write it again")
    if not isinstance(entry, Mapping):
        raise ValueError(f"{source}: expected an object, got {type(entry).__name__}")
    return entry


def record_of(entry: Entry, source: str, split: str = "") -> Record:
    """The record of one phrase.

    Raises:
        ValueError: what is missing or of another kind than it must be, by `source` and key.
    """
    image, text = (_text(entry, key, source) for key in ("image", "phrase"))
    boxes = entries.boxes(_several(entry, "box", "boxes", source), "box", source)
    masks = tuple(_mask(mask, source) for mask in _several(entry, "mask", "masks", source))
    if boxes and masks and len(boxes) != len(masks):
        raise ValueError(f"{source}: {len(boxes)} boxes and {len(masks)} masks; each has the other")
    group, synonyms = entries.relation(entry.get("relation"), source)
    phrase = Phrase(
        text,
        "" if entry.get("object") is None else str(entry["object"]),
        boxes,
        synonyms,
        group,
        masks,
        entries.number(entry, "start", source) if "start" in entry else -1,
        matches_nothing=not boxes and not masks and any(key in entry for key in WHERE),
    )
    sentence = _text(entry, "sentence", source) if "sentence" in entry else ""
    width, height = entries.size(entry, source)
    return Record(image, width, height, (phrase,), split, image, source, sentence)


def _text(entry: Entry, key: str, source: str) -> str:
    value = entries.need(entry, key, source)
    if not isinstance(value, str):
        raise ValueError(f"{source}: {key} must be a text, got {value!r}")
    return require_text(value, f"{source}: {key}")


def _several(entry: Entry, one: str, many: str, source: str) -> list[Any]:
    """What a phrase has under either key; none where that is null or missing."""
    if one in entry and many in entry:
        raise ValueError(f"{source}: has {one} and {many}; give one of them")
    if entry.get(one):
        return [entry[one]]
    found = entry.get(one, entry.get(many))
    return entries.listed([] if found is None else found, f"{source}: {many}")


def _mask(value: Any, source: str) -> str:
    """As `Phrase.masks` has it; a text is the path of a file."""
    if not isinstance(value, str | list | Mapping):
        raise ValueError(f"{source}: a mask is a COCO segmentation or a file, got {value!r}")
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def write(records: Iterable[Record], path: str | os.PathLike[str]) -> int:
    """Write a line per phrase; `read` gives the same again. Returns how many.

    Raises:
        ValueError: a mask that is a file.
    """
    count = 0
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8") as file:
        for record in records:
            for phrase in record.phrases:
                file.write(json.dumps(_entry(record, phrase), ensure_ascii=False) + "\n")
                count += 1
    return count


def _entry(record: Record, phrase: Phrase) -> dict[str, Any]:
    if any(mask.endswith(".npy") for mask in phrase.masks):
        raise ValueError(f"{record.source}: masks are files; write their segmentations")
    size = {"width": record.width, "height": record.height}
    optional = {
        "object": phrase.phrase_id,
        "sentence": record.sentence,
        "start": phrase.start if phrase.start >= 0 else None,
    }
    return {
        "image": record.image,
        "phrase": phrase.text,
        **_where(phrase),
        **{key: value for key, value in size.items() if value},
        **{key: value for key, value in optional.items() if value not in (None, "")},
        **entries.relation_entry((phrase,), record.source),
    }


def _where(phrase: Phrase) -> dict[str, Any]:
    boxes: list[list[float]] = entries.plain(phrase.boxes)
    if phrase.matches_nothing:
        return {"box": None}
    masks = {"masks": [json.loads(mask) for mask in phrase.masks]} if phrase.masks else {}
    if not boxes:
        return masks
    return ({"box": boxes[0]} if len(boxes) == 1 else {"boxes": boxes}) | masks

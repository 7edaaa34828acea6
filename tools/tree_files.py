"""Records as the JSON files of the trees that RefCLIP and ALVG print want them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from dataset.formats import instances_json, simrec
from dataset.record import Phrase, Record
from geometry import enclosing_box
from tools.preparation import Outputs


def plain(values: Iterable[float]) -> list[float]:
    """Numbers as Python's own, whole ones as int; fractions to a thousandth."""
    rounded = (round(float(value), 3) for value in values)
    return [int(value) if value.is_integer() else value for value in rounded]


def write_objects(
    splits: Mapping[str, list[Record]],
    names: tuple[str, str],
    out: Outputs,
    categories: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Write anns/NAME.json (SimREC) and annotations/NAME/instances.json (ALVG, SimVG, SeqTR).

    Args:
        splits: the first identity of their images names the collection.
        names: of the two files, below `out`.
        categories: name of a class -> SimREC's number of it.

    Returns:
        {name: phrases in the file, read back (in a dry run: that it would hold)}
    """
    found = [record for split in splits for record in objects(splits[split], categories or {})]
    out.write(names[0], lambda path: simrec.write(found, path))
    out.write(names[1], lambda path: instances_json.write(found, path))
    if out.dry_run:
        return dict.fromkeys(names, sum(len(record.phrases) for record in found))
    readers = (simrec.read, instances_json.read)
    return {
        name: sum(len(record.phrases) for record in read(out.folder / name))
        for name, read in zip(names, readers, strict=True)
    }


def objects(records: Iterable[Record], categories: Mapping[str, int]) -> Iterator[Record]:
    """In "train" a record per object with all its phrases (of an image with one phrase id, in the
    order of the first), in other splits a record per phrase; one box around all boxes."""
    groups: dict[tuple[str, str], tuple[Record, list[Phrase]]] = {}
    for record in records:
        for phrase in record.phrases:
            box = enclosing_box(phrase.boxes)
            category = str(categories.get(phrase.category, ""))
            phrase = replace(phrase, boxes=(box,), category=category)
            if record.split != "train":
                yield _numbered(record, [phrase])
            else:
                key = (record.image, phrase.phrase_id)
                groups.setdefault(key, (record, []))[1].append(phrase)
    for record, phrases in groups.values():
        yield _numbered(record, phrases)


def _numbered(record: Record, phrases: list[Phrase]) -> Record:
    """The record id is the image's number in its collection, or else in its file name."""
    number = record.image_ids[0].rpartition(":")[2] if record.image_ids else Path(record.image).stem
    return replace(record, record_id=number, phrases=tuple(phrases))

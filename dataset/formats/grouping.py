"""Records regrouped as lists want them: by object, by image, by what comes in a row."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, groupby
from pathlib import Path

from groundwork.dataset.record import Phrase, Record
from groundwork.geometry import enclosing_box


def by_object(
    records: Iterable[Record], categories: Mapping[str, int] | None = None
) -> Iterator[Record]:
    """As SimREC, SimVG and SeqTR list them. In "train" a record per object with all its phrases (of
    an image with one phrase id, in the order of the first), in other splits a record per phrase;
    one box around all boxes.

    The record id is the image's number in its collection, or else in its file name.

    Args:
        categories: name of a class -> SimREC's number of it.
    """
    groups: dict[tuple[str, str], tuple[Record, list[Phrase]]] = {}
    for record in records:
        for phrase in record.phrases:
            box = enclosing_box(phrase.boxes)
            category = str((categories or {}).get(phrase.category, ""))
            phrase = replace(phrase, boxes=(box,), category=category)
            if record.split != "train":
                yield numbered(record, [phrase])
            else:
                key = (record.image, phrase.phrase_id)
                groups.setdefault(key, (record, []))[1].append(phrase)
    for record, phrases in groups.values():
        yield numbered(record, phrases)


def numbered(record: Record, phrases: Sequence[Phrase]) -> Record:
    """The record with these phrases and the image's number in its collection as id."""
    number = record.image_ids[0].rpartition(":")[2] if record.image_ids else Path(record.image).stem
    return replace(record, record_id=number, phrases=tuple(phrases))


def by_image(records: Iterable[Record]) -> Iterator[Record]:
    """As SimVG's second converter lists gRefCOCO: the training records of an image as one record,
    every other phrase as one; the id is the image's."""
    training: dict[str, tuple[Record, list[Phrase]]] = {}
    for record in records:
        identified = replace(record, image_ids=(f"coco:{record.record_id}",))
        if record.split == "train":
            training.setdefault(record.record_id, (identified, []))[1].extend(record.phrases)
            continue
        for phrase in record.phrases:
            yield replace(identified, phrases=(phrase,))
    for record, phrases in training.values():
        yield replace(record, phrases=tuple(phrases))


def in_a_row(records: Iterable[Record]) -> Iterator[Record]:
    """Records of one phrase each -> those in a row that are of one object or sentence of an image
    and split as one record."""
    for _, group in groupby(records, _shared):
        first, *others = group
        phrases = chain(first.phrases, *(other.phrases for other in others))
        yield replace(first, phrases=tuple(phrases))


def _shared(record: Record) -> tuple[str, ...]:
    # An expression without an id is an object by itself.
    same = record.sentence or record.phrases[0].phrase_id or record.source
    return (record.image, record.record_id, record.split, same)

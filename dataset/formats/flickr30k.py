"""Flickr30k Entities as info-ground writes it (https://github.com/BigRedT/info-ground).

{split}.txt                  one image id per line
bounding_boxes_{split}.json  {id: {boxes: {phrase_id: [[x1, y1, x2, y2], ...]}, width, height}}
sentences_{split}.json       {id: [{sentence, phrases: [{phrase, phrase_id, phrase_type, start}]}]};
                             `sentence`, `start` (a character of it) and `phrase_type`, a list, may
                             be missing
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from groundwork.dataset.formats import entries
from groundwork.dataset.record import Phrase, Record
from groundwork.files import foreign
from groundwork.files.safe import write_text
from groundwork.geometry import Box


def read_ids(path: str | os.PathLike[str]) -> list[str]:
    """The image ids of a split file; blank lines and a `.jpg` ending do not matter.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an id that occurs twice.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"split file {path} does not exist; see tools/prepare_flickr30k.py")
    lines = foreign.read_text(path, "split file").split()
    ids = [line.removesuffix(".jpg") for line in lines]
    if len(set(ids)) < len(ids):
        (repeated, _), *_ = Counter(ids).most_common(1)
        raise ValueError(f"split file {path} has the id {repeated} twice; leave it there once")
    return ids


def files(
    folder: str | os.PathLike[str],
    splits: Iterable[str],
    lists: str | os.PathLike[str] | None = None,
) -> list[Path]:
    """The files of some splits, three each: ids, boxes, sentences.

    Args:
        lists: folder of the ids, if it is another one.
    """
    names = ("{}.txt", "bounding_boxes_{}.json", "sentences_{}.json")
    folders = (lists or folder, folder, folder)
    return [
        Path(where, name.format(split))
        for split in splits
        for where, name in zip(folders, names, strict=True)
    ]


def read(
    folder: str | os.PathLike[str],
    split: str,
    lists: str | os.PathLike[str] | None = None,
    *,
    empty: bool = False,
) -> Iterator[Record]:
    """One record per sentence with at least one boxed phrase; phrases without boxes are left out.

    The image is `<id>.jpg`, the record id `<id>#<sentence>`, the phrase id that of the annotation,
    its category the types ("people", or "people/clothing").
    The split is the one asked for, whatever the folder is called.

    Args:
        lists: see `files`.
        empty: keep phrases that the boxes file lists with no box at all, which the published
            evaluation of heat maps counts as misses.
    """
    ids_file, boxes_file, sentences_file = files(folder, [split], lists)
    ids = read_ids(ids_file)
    annotations = entries.load_json(boxes_file)
    sentences = entries.load_json(sentences_file)
    for image_id in ids:
        annotation = entries.need(annotations, image_id, os.fspath(boxes_file))
        here = f"{boxes_file}[{image_id}]"
        width, height = entries.size(annotation, here)
        boxes = _boxes(annotation, here)
        boxes = {name: rows for name, rows in boxes.items() if rows or empty}
        rows = entries.need(sentences, image_id, os.fspath(sentences_file))
        there = f"{sentences_file}[{image_id}]"
        for index, sentence in enumerate(entries.listed(rows, there)):
            source = f"{there}[{index}]"
            phrases = _phrases(sentence, boxes, source)
            if phrases:
                yield Record(
                    image=f"{image_id}.jpg",
                    width=width,
                    height=height,
                    phrases=phrases,
                    split=split,
                    record_id=f"{image_id}#{index}",
                    source=source,
                    sentence=str(sentence.get("sentence") or ""),
                    image_ids=(f"flickr:{image_id}",),
                )


def _boxes(annotation: Mapping[str, Any], source: str) -> dict[str, tuple[Box, ...]]:
    by_phrase = entries.need(annotation, "boxes", source)
    if not isinstance(by_phrase, Mapping):
        raise ValueError(f"{source}: boxes must be {{phrase id: [box, ...]}}, got {by_phrase!r}")
    return {
        str(phrase_id): entries.boxes(value, f"boxes.{phrase_id}", source)
        for phrase_id, value in by_phrase.items()
    }


def _phrases(
    sentence: Mapping[str, Any], boxes: Mapping[str, tuple[Box, ...]], source: str
) -> tuple[Phrase, ...]:
    phrases = []
    rows = entries.need(sentence, "phrases", source)
    for entry in entries.listed(rows, f"{source}: phrases"):
        phrase_id = str(entries.need(entry, "phrase_id", source))
        if phrase_id in boxes:
            text = entries.text(entry, "phrase", source)
            start = entries.number({"start": -1, **entry}, "start", source)
            typed = entry.get("phrase_type")
            category = "/".join(entries.texts(entry, "phrase_type", source)) if typed else ""
            phrases.append(
                Phrase(text, phrase_id, boxes[phrase_id], start=start, category=category)
            )
    return tuple(phrases)


def write(records: Iterable[Record], folder: str | os.PathLike[str], split: str) -> None:
    """Write the three files of one split; `read` gives the records with their boxed phrases again.

    Args:
        records: of `<id>.jpg` with the record id `<id>#<sentence>`; a sentence without a record is
            written empty.

    Raises:
        ValueError: another record id, or one phrase id with different boxes in one image.
    """
    boxes, sentences = contents(records)
    ids_file, boxes_file, sentences_file = files(folder, [split])
    write_text(ids_file, "".join(f"{image_id}\n" for image_id in sentences))
    entries.save_json(boxes_file, boxes)
    entries.save_json(sentences_file, sentences)


def contents(records: Iterable[Record]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What bounding_boxes_{split}.json and sentences_{split}.json hold of records as of `write`."""
    boxes: dict[str, dict[str, Any]] = {}
    sentences: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        image_id, index = sentence_number(record)
        written = sentences.setdefault(image_id, [])
        written += [{"sentence": "", "phrases": []} for _ in range(index + 1 - len(written))]
        phrases = [_phrase(phrase) for phrase in record.phrases]
        written[index] = {"sentence": record.sentence, "phrases": phrases}
        entry = boxes.setdefault(image_id, boxes_entry({}, record.width, record.height))
        known = entry["boxes"]
        for phrase in record.phrases:
            rows = entries.plain(phrase.boxes)
            if rows and known.setdefault(phrase.phrase_id, rows) != rows:
                raise ValueError(
                    f"{record.source or record.record_id}: phrase id {phrase.phrase_id} has other"
                    " boxes in another sentence of the image"
                )
    return boxes, sentences


def sentence_number(record: Record) -> tuple[str, int]:
    """(image id, place of the sentence) of the record id `<id>#<sentence>`.

    Raises:
        ValueError: another record id.
    """
    image_id, _, index = record.record_id.partition("#")
    if not image_id or not index.isdecimal() or record.image != f"{image_id}.jpg":
        raise ValueError(
            f"{record.source or record.image}: record id {record.record_id!r} is not"
            " <id>#<sentence> of the image <id>.jpg"
        )
    return image_id, int(index)


def boxes_entry(
    boxes: Mapping[str, Sequence[Box]], width: int | None, height: int | None
) -> dict[str, Any]:
    """The entry of one image in bounding_boxes_{split}.json."""
    size = {"width": width, "height": height} if width and height else {}
    return {"boxes": {name: entries.plain(rows) for name, rows in boxes.items()}, **size}


def _phrase(phrase: Phrase) -> dict[str, Any]:
    types = {"phrase_type": phrase.category.split("/")} if phrase.category else {}
    start = {"start": phrase.start} if phrase.start >= 0 else {}
    return {"phrase": phrase.text, "phrase_id": phrase.phrase_id, **types, **start}

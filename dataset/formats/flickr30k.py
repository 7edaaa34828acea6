"""Flickr30k Entities as info-ground writes it (https://github.com/BigRedT/info-ground).

{split}.txt                  one image id per line
bounding_boxes_{split}.json  {id: {boxes: {phrase_id: [[x1, y1, x2, y2], ...]}, width, height}}
sentences_{split}.json       {id: [{sentence, phrases: [{phrase, phrase_id, start}]}]}; `sentence`
                             and `start` (a character of it) may be missing
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dataset.formats import entries
from dataset.record import Phrase, Record
from geometry import Box


def read_ids(path: str | os.PathLike[str]) -> list[str]:
    """The image ids of a split file; blank lines and a `.jpg` ending do not matter."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"split file {path} does not exist; see tools/prepare_flickr30k.py")
    lines = Path(path).read_text(encoding="utf-8").split()
    return [line.removesuffix(".jpg") for line in lines]


def files(folder: str | os.PathLike[str], splits: Iterable[str]) -> list[Path]:
    """The files of some splits, three each: ids, boxes, sentences."""
    names = ("{}.txt", "bounding_boxes_{}.json", "sentences_{}.json")
    return [Path(folder, name.format(split)) for split in splits for name in names]


def read(folder: str | os.PathLike[str], split: str) -> Iterator[Record]:
    """One record per sentence with at least one boxed phrase; phrases without boxes are left out.

    The image is `<id>.jpg`, the record id `<id>#<sentence>`, the phrase id that of the annotation.
    The split is the one asked for, whatever the folder is called.

    Raises:
        FileNotFoundError, ValueError: naming file, image and key.
    """
    ids_file, boxes_file, sentences_file = files(folder, [split])
    ids = read_ids(ids_file)
    annotations = entries.load_json(boxes_file)
    sentences = entries.load_json(sentences_file)
    for image_id in ids:
        annotation = entries.need(annotations, image_id, os.fspath(boxes_file))
        boxes = _boxes(annotation, f"{boxes_file}[{image_id}]")
        for index, sentence in enumerate(
            entries.need(sentences, image_id, os.fspath(sentences_file))
        ):
            source = f"{sentences_file}[{image_id}][{index}]"
            phrases = _phrases(sentence, boxes, source)
            if phrases:
                yield Record(
                    image=f"{image_id}.jpg",
                    width=annotation.get("width"),
                    height=annotation.get("height"),
                    phrases=phrases,
                    split=split,
                    record_id=f"{image_id}#{index}",
                    source=source,
                    sentence=str(sentence.get("sentence") or ""),
                    image_ids=(f"flickr:{image_id}",),
                )


def _boxes(annotation: Mapping[str, Any], source: str) -> dict[str, tuple[Box, ...]]:
    by_phrase = entries.need(annotation, "boxes", source)
    return {
        str(phrase_id): entries.boxes(value, f"boxes.{phrase_id}", source)
        for phrase_id, value in by_phrase.items()
    }


def _phrases(
    sentence: Mapping[str, Any], boxes: Mapping[str, tuple[Box, ...]], source: str
) -> tuple[Phrase, ...]:
    phrases = []
    for entry in entries.need(sentence, "phrases", source):
        phrase_id = str(entries.need(entry, "phrase_id", source))
        if boxes.get(phrase_id):
            text = entries.need(entry, "phrase", source)
            start = int(entry.get("start", -1))
            phrases.append(Phrase(text, phrase_id, boxes[phrase_id], start=start))
    return tuple(phrases)

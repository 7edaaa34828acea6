"""Flickr30k Entities as its authors publish it (Plummer et al. 2015): Annotations/ and Sentences/.

Annotations/<id>.xml   boxes of chains; an object names one or more chains. Coordinates are 1-based
                       and inclusive; they are passed on as they are, as info-ground does.
Sentences/<id>.txt     five sentences, "[/EN#<chain>/<type>[/<type>] words] other words"
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from dataset.record import Phrase, Record
from geometry import Box

_CHUNK = re.compile(r"\[/EN#(\d+)((?:/[^\s\]]+)+)\s([^\]]*)\]")


@dataclass(frozen=True, slots=True)
class Annotation:
    """Size of an image in pixels and the boxes (xyxy, as annotated) of its chains."""

    width: int
    height: int
    boxes: dict[str, tuple[Box, ...]]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A marked phrase of a sentence; chain "0" means that it is not visible.

    start: character of the sentence without marks at which it starts; two chunks are equal
    wherever they stand.
    """

    text: str
    chain: str
    types: tuple[str, ...]
    start: int = field(default=-1, compare=False)


class Caption(list[Chunk]):
    """The marked phrases of a sentence; `sentence` is all of its words, without marks."""

    sentence: str = ""


class _PlainTree(ElementTree.TreeBuilder):
    def doctype(self, name: str, _public: str | None, _system: str | None) -> None:
        # Entities are declared in a DOCTYPE; without one the parser has nothing to expand.
        raise ValueError(f"it declares a DOCTYPE {name!r}, which annotations have no need of")


def parse_annotation(content: bytes, source: str) -> Annotation:
    """Boxes of one XML file.

    Args:
        content: the file.
        source: its name, for messages.

    Raises:
        ValueError: not XML, a DOCTYPE, or a missing or non-numeric field.
    """
    try:
        parser = ElementTree.XMLParser(target=_PlainTree())
        root = ElementTree.fromstring(content, parser=parser)
        boxes: dict[str, list[Box]] = {}
        for entry in root.iter("object"):
            box = entry.find("bndbox")
            if box is None:
                continue
            x1, y1, x2, y2 = (_number(box, key) for key in ("xmin", "ymin", "xmax", "ymax"))
            for name in entry.findall("name"):
                boxes.setdefault((name.text or "").strip(), []).append((x1, y1, x2, y2))
        size = root.find("size")
        if size is None:
            raise ValueError("<size> is missing")
        width, height = int(_number(size, "width")), int(_number(size, "height"))
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{source}: {error}; extract the annotation archive again") from error
    return Annotation(width, height, {chain: tuple(rows) for chain, rows in boxes.items()})


def _number(element: ElementTree.Element, key: str) -> float:
    text = element.findtext(key)
    if text is None:
        raise ValueError(f"<{element.tag}> has no <{key}>")
    return float(text)


def parse_sentences(content: str, source: str) -> list[Caption]:
    """The marked phrases of each line.

    Raises:
        ValueError: an opening mark that does not belong to a complete phrase.
    """
    sentences = []
    for index, line in enumerate(content.rstrip("\n").split("\n")):
        caption = _parse_line(line)
        if len(caption) != line.count("[/EN#"):
            raise ValueError(f"{source}, line {index + 1}: a phrase mark is damaged: {line!r}")
        sentences.append(caption)
    return sentences


def _parse_line(line: str) -> Caption:
    caption, done = Caption(), 0
    for match in _CHUNK.finditer(line):
        chain, types, words = match.groups()
        caption.sentence += line[done : match.start()]
        caption.append(Chunk(words, chain, tuple(types[1:].split("/")), len(caption.sentence)))
        caption.sentence += words
        done = match.end()
    caption.sentence += line[done:]
    return caption


def read_image(folder: str | os.PathLike[str], image_id: str) -> tuple[Annotation, list[Caption]]:
    """Annotation and sentences of one image from a folder with Annotations/ and Sentences/.

    Raises:
        FileNotFoundError, ValueError: naming the file.
    """
    annotation = Path(folder, "Annotations", f"{image_id}.xml")
    sentences = Path(folder, "Sentences", f"{image_id}.txt")
    for path in (annotation, sentences):
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; is {image_id} an image of Flickr30k?")
    return (
        parse_annotation(annotation.read_bytes(), os.fspath(annotation)),
        parse_sentences(sentences.read_text(encoding="utf-8"), os.fspath(sentences)),
    )


def read(folder: str | os.PathLike[str], ids: Iterable[str], split: str) -> Iterator[Record]:
    """One record per sentence with a boxed phrase; record id `<id>#<sentence>`, phrase id = chain.

    Phrases without boxes are left out, as in `flickr30k.read`, which yields the same records.

    Raises:
        FileNotFoundError, ValueError: naming the file.
    """
    for image_id in ids:
        source = os.fspath(Path(folder, "Sentences", f"{image_id}.txt"))
        yield from records(image_id, *read_image(folder, image_id), split, source)


def records(
    image_id: str, annotation: Annotation, captions: Iterable[Caption], split: str, source: str
) -> Iterator[Record]:
    """The records of one image; `source` names its file of sentences."""
    for index, caption in enumerate(captions):
        phrases = tuple(
            Phrase(
                text=chunk.text,
                phrase_id=chunk.chain,
                boxes=annotation.boxes[chunk.chain],
                start=chunk.start,
            )
            for chunk in caption
            if chunk.chain in annotation.boxes
        )
        if phrases:
            yield Record(
                image=f"{image_id}.jpg",
                width=annotation.width,
                height=annotation.height,
                phrases=phrases,
                split=split,
                record_id=f"{image_id}#{index}",
                source=f"{source}, line {index + 1}",
                sentence=caption.sentence,
                image_ids=(f"flickr:{image_id}",),
            )

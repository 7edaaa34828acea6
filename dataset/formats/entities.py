"""Flickr30k Entities as its authors publish it (Plummer et al. 2015): Annotations/ and Sentences/.

Annotations/<id>.xml   boxes of chains; an object names one or more chains. Coordinates are 1-based
                       and inclusive; they are passed on as they are, as info-ground does.
Sentences/<id>.txt     five sentences, "[/EN#<chain>/<type>[/<type>] words] other words"
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
    """A marked phrase of a sentence; chain "0" means that it is not visible."""

    text: str
    chain: str
    types: tuple[str, ...]


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


def parse_sentences(content: str, source: str) -> list[list[Chunk]]:
    """The marked phrases of each line.

    Raises:
        ValueError: an opening mark that does not belong to a complete phrase.
    """
    sentences = []
    for index, line in enumerate(content.rstrip("\n").split("\n")):
        chunks = [
            Chunk(text=words, chain=chain, types=tuple(types[1:].split("/")))
            for chain, types, words in _CHUNK.findall(line)
        ]
        if len(chunks) != line.count("[/EN#"):
            raise ValueError(f"{source}, line {index + 1}: a phrase mark is damaged: {line!r}")
        sentences.append(chunks)
    return sentences


def read_image(
    folder: str | os.PathLike[str], image_id: str
) -> tuple[Annotation, list[list[Chunk]]]:
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
        annotation, sentences = read_image(folder, image_id)
        for index, chunks in enumerate(sentences):
            phrases = tuple(
                Phrase(text=chunk.text, phrase_id=chunk.chain, boxes=annotation.boxes[chunk.chain])
                for chunk in chunks
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
                    source=f"{Path(folder, 'Sentences', f'{image_id}.txt')}, line {index + 1}",
                )

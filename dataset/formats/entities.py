"""Flickr30k Entities as its authors publish it (Plummer et al. 2015): Annotations/ and Sentences/.

Annotations/<id>.xml   boxes of chains; an object names one or more chains. Coordinates are 1-based
                       and inclusive; they are passed on as they are, as info-ground does, but for
                       boxes of one column or row, which become one pixel wide or high.
Sentences/<id>.txt     five sentences, "[/EN#<chain>/<type>[/<type>] words] other words"
"""

import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree

from groundwork.dataset.formats import notes
from groundwork.dataset.formats.entries import plain
from groundwork.dataset.formats.flickr30k import sentence_number
from groundwork.dataset.record import Phrase, Record
from groundwork.files import foreign
from groundwork.files.safe import inside
from groundwork.geometry import Box

_ONE_PIXEL = "boxes whose corners share a column or a row are one pixel wide or high"
# The chain of phrases that are not visible.
_INVISIBLE = "0"
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
        ValueError: not XML, a DOCTYPE, a missing or non-numeric field, or exchanged corners.
    """
    try:
        parser = ElementTree.XMLParser(target=_PlainTree())
        root = ElementTree.fromstring(content, parser=parser)
        size = root.find("size")
        if size is None:
            raise ValueError("<size> is missing")
        width, height = int(_number(size, "width")), int(_number(size, "height"))
        boxes: dict[str, list[Box]] = {}
        narrow = []
        for entry in root.iter("object"):
            box = entry.find("bndbox")
            if box is None:
                continue
            corners = [_number(box, key) for key in ("xmin", "ymin", "xmax", "ymax")]
            for name in entry.findall("name"):
                chain = (name.text or "").strip()
                whole = _with_extent(corners, (width, height), f"chain {chain}")
                boxes.setdefault(chain, []).append(whole)
                narrow += [] if list(whole) == corners else [f"chain {chain}"]
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{source}: {error}; extract the annotation archive again") from error
    notes.say(source, _ONE_PIXEL, narrow)
    return Annotation(width, height, {chain: tuple(rows) for chain, rows in boxes.items()})


def _with_extent(corners: Sequence[float], size: tuple[int, int], source: str) -> Box:
    """A box of inclusive corners: one whose corners share a column or a row is one pixel wide or
    high there, within the image. Others stay as they are.

    Args:
        size: (width, height) of the image.

    Raises:
        ValueError: exchanged corners.
    """
    x1, y1, x2, y2 = corners
    if x2 < x1 or y2 < y1:
        raise ValueError(f"{source}: the corners of the box {list(corners)} are exchanged")
    if x1 == x2:
        x1, x2 = _pixel(x1, size[0])
    if y1 == y2:
        y1, y2 = _pixel(y1, size[1])
    return (x1, y1, x2, y2)


def _pixel(place: float, side: int) -> tuple[float, float]:
    start = place if place < side else place - 1
    return start, start + 1


def _number(element: ElementTree.Element, key: str) -> float:
    text = element.findtext(key)
    if text is None:
        raise ValueError(f"<{element.tag}> has no <{key}>")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"<{key}> of <{element.tag}> is no number: {text!r}")
    return number


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
    """Annotation and sentences of one image from a folder with Annotations/ and Sentences/."""
    image_id = str(inside(image_id, f"{os.fspath(folder)}: image id"))
    annotation = Path(folder, "Annotations", f"{image_id}.xml")
    sentences = Path(folder, "Sentences", f"{image_id}.txt")
    for path in (annotation, sentences):
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; is {image_id} an image of Flickr30k?")
    return (
        parse_annotation(annotation.read_bytes(), os.fspath(annotation)),
        parse_sentences(foreign.read_text(sentences), os.fspath(sentences)),
    )


def read(folder: str | os.PathLike[str], ids: Iterable[str], split: str) -> Iterator[Record]:
    """One record per sentence with a boxed phrase; record id `<id>#<sentence>`, phrase id = chain,
    category = types ("people", or "people/clothing").

    Phrases without boxes are left out, as in `flickr30k.read`, which yields the same records.
    """
    for image_id in ids:
        source = os.fspath(Path(folder, "Sentences", f"{image_id}.txt"))
        yield from boxed(records(image_id, *read_image(folder, image_id), split, source))


def records(
    image_id: str, annotation: Annotation, captions: Iterable[Caption], split: str, source: str
) -> Iterator[Record]:
    """The records of one image, of all sentences and phrases; `source` names its file of
    sentences."""
    for index, caption in enumerate(captions):
        phrases = tuple(
            Phrase(
                text=chunk.text,
                phrase_id=chunk.chain,
                boxes=annotation.boxes.get(chunk.chain, ()),
                start=chunk.start,
                category="/".join(chunk.types),
            )
            for chunk in caption
        )
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


def boxed(records: Iterable[Record]) -> Iterator[Record]:
    """The records with their boxed phrases only, less those that have none."""
    for record in records:
        phrases = tuple(phrase for phrase in record.phrases if phrase.boxes)
        if phrases:
            yield replace(record, phrases=phrases)


def write(records: Iterable[Record], folder: str | os.PathLike[str]) -> None:
    """Write Annotations/<id>.xml and Sentences/<id>.txt of every image of `records`; `read` gives
    the records with their boxed phrases again.

    Args:
        records: of `<id>.jpg` with the record id `<id>#<sentence>`; the types of a phrase without
            category are written as "other". A sentence without a record is written empty.

    Raises:
        ValueError: another record id, no size, a phrase that is not at its place in the sentence,
            or one chain with different boxes in one image.
    """
    images: dict[str, dict[int, Record]] = {}
    for record in records:
        image_id, index = sentence_number(record)
        inside(image_id, "image id")
        images.setdefault(image_id, {})[index] = record
    for image_id, captions in images.items():
        xml = _xml(image_id, list(captions.values()))
        _put(Path(folder, "Annotations", f"{image_id}.xml"), xml)
        lines = [
            _marked(captions[index]) if index in captions else ""
            for index in range(max(captions) + 1)
        ]
        text = "".join(f"{line}\n" for line in lines)
        _put(Path(folder, "Sentences", f"{image_id}.txt"), text)


def _put(path: Path, text: str) -> None:
    # Complete or not at all, but not synced to the disk one by one: there are tens of thousands.
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _xml(image_id: str, records: list[Record]) -> str:
    first = records[0]
    if not first.width or not first.height:
        raise ValueError(f"{first.source or first.image}: width and height are not known")
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = f"{image_id}.jpg"
    _children(ElementTree.SubElement(root, "size"), width=first.width, height=first.height, depth=3)
    boxes: dict[str, tuple[Box, ...]] = {}
    for record in records:
        for phrase in record.phrases:
            if boxes.setdefault(phrase.phrase_id, phrase.boxes) != phrase.boxes:
                raise ValueError(
                    f"{record.source or record.record_id}: chain {phrase.phrase_id} has other"
                    " boxes in another sentence of the image"
                )
    boxes.pop(_INVISIBLE, None)
    for chain, rows in boxes.items():
        for x1, y1, x2, y2 in plain(rows):
            entry = _named(root, chain)
            corners = {"xmin": x1, "ymin": y1, "xmax": x2, "ymax": y2}
            _children(ElementTree.SubElement(entry, "bndbox"), **corners)
        if not rows:
            _children(_named(root, chain), scene=0, nobndbox=1)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _named(root: ElementTree.Element, chain: str) -> ElementTree.Element:
    entry = ElementTree.SubElement(root, "object")
    ElementTree.SubElement(entry, "name").text = chain
    return entry


def _children(element: ElementTree.Element, **numbers: float) -> None:
    for name, number in numbers.items():
        ElementTree.SubElement(element, name).text = str(number)


def _marked(record: Record) -> str:
    """The sentence with its phrases in marks."""
    line, done = "", 0
    for phrase in sorted(record.phrases, key=lambda phrase: phrase.start):
        end = phrase.start + len(phrase.text)
        if phrase.start < done or record.sentence[phrase.start : end] != phrase.text:
            raise ValueError(
                f"{record.source or record.record_id}: {phrase.text!r} is not at character"
                f" {phrase.start} of {record.sentence!r}, or overlaps another phrase"
            )
        mark = f"[/EN#{phrase.phrase_id}/{phrase.category or 'other'} {phrase.text}]"
        line += record.sentence[done : phrase.start] + mark
        done = end
    return line + record.sentence[done:]

"""Visual Genome as its project publishes it.

region_descriptions.json  [{id, regions: [{region_id, image_id, phrase, x, y, width, height}]}]
image_data.json           [{image_id, url, width, height, coco_id, flickr_id}]
attributes.json           [{image_id, attributes: [{object_id, names, attributes, x, y, w, h}]}]
https://visualgenome.org
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from groundwork.dataset.formats import entries, image_names
from groundwork.dataset.record import Phrase, Record
from groundwork.geometry import xyxy_to_xywh


def read(folder: str | os.PathLike[str]) -> Iterator[Record]:
    """One record per image with regions, one phrase per region; the file is read image by image.

    The image is `<folder of its url>/<id>.jpg` (VG_100K or VG_100K_2), the phrase id the region_id.
    """
    for image_id, image, source, entry in _images(folder, "region_descriptions.json", "id"):
        phrases = tuple(
            _phrase(region, "region_id", ("width", "height"), source)
            for region in _things(entry, "regions", source)
        )
        if phrases:
            yield _record(folder, image_id, image, phrases, source)


def read_attributes(folder: str | os.PathLike[str]) -> Iterator[Record]:
    """One record per image: the phrase of an object is its attributes and its first name ("tall
    brick building"), its category that name, its id the object_id."""
    for image_id, image, source, entry in _images(folder, "attributes.json", "image_id"):
        phrases = []
        for thing in _things(entry, "attributes", source):
            name = entries.texts(thing, "names", source)[0]
            said = thing.get("attributes")
            words = entries.texts(thing, "attributes", source) if said else ()
            whole = {**thing, "phrase": " ".join([*words, name])}
            phrases.append(_phrase(whole, "object_id", ("w", "h"), source, name))
        if phrases:
            yield _record(folder, image_id, image, tuple(phrases), source)


def _things(entry: Mapping[str, Any], key: str, source: str) -> list[Any]:
    return entries.listed(entries.need(entry, key, source), f"{source}: {key}")


def _images(
    folder: str | os.PathLike[str], name: str, key: str
) -> Iterator[tuple[int, Mapping[str, Any], str, Mapping[str, Any]]]:
    data = Path(folder, "image_data.json")
    rows = [entry for _, entry in entries.load_entries(data)]
    images = entries.by_number(rows, "image_id", os.fspath(data))
    for source, entry in entries.load_entries(Path(folder, name)):
        image_id = entries.number(entry, key, source)
        yield image_id, entries.need(images, image_id, f"{source}: {data}"), source, entry


def _phrase(
    region: Mapping[str, Any], key: str, sides: tuple[str, str], source: str, category: str = ""
) -> Phrase:
    numbers = [entries.need(region, side, source) for side in ("x", "y", *sides)]
    boxes = entries.corners(entries.boxes([numbers], "region", source))
    phrase_id = str(entries.need(region, key, source))
    return Phrase(entries.text(region, "phrase", source), phrase_id, boxes, category=category)


def _record(
    folder: str | os.PathLike[str],
    image_id: int,
    image: Mapping[str, Any],
    phrases: tuple[Phrase, ...],
    source: str,
) -> Record:
    here = f"{Path(folder, 'image_data.json')} image {image_id}"
    name = image_names.of_url(entries.need(image, "url", here), image_id, here)
    return Record(
        name, *entries.size(image, here), phrases, "train", str(image_id), source,
        image_ids=identities(image, image_id, here),
    )  # fmt: skip


def identities(image: Mapping[str, Any], image_id: int, source: str) -> tuple[str, ...]:
    """`Record.image_ids` of an entry of image_data.json."""
    others = [kind for kind in ("coco", "flickr") if image.get(f"{kind}_id") is not None]
    numbers = (f"{kind}:{entries.number(image, f'{kind}_id', source)}" for kind in others)
    return (f"vg:{image_id}", *numbers)


def write(
    regions: Iterable[Record], objects: Iterable[Record], folder: str | os.PathLike[str]
) -> None:
    """Write region_descriptions.json, attributes.json and the image_data.json of both; `read` gives
    `regions` again, `read_attributes` gives `objects`.

    Args:
        regions, objects: one record per image `<folder>/<number>.jpg`; the text of an object ends
            in its category.

    Raises:
        ValueError: a record without a number as id or with another image name, a phrase without
            exactly one box or a number as id, or an object whose text does not end in its category.
    """
    images: dict[str, dict[str, Any]] = {}
    described: list[dict[str, Any]] = []
    attributed: list[dict[str, Any]] = []
    for record in regions:
        images.setdefault(record.record_id, _image_row(record))
        rows = [_region(record, phrase) for phrase in record.phrases]
        described.append({"id": int(record.record_id), "regions": rows})
    for record in objects:
        images.setdefault(record.record_id, _image_row(record))
        rows = [_object(record, phrase) for phrase in record.phrases]
        attributed.append({"image_id": int(record.record_id), "attributes": rows})
    entries.save_json(Path(folder, "region_descriptions.json"), described)
    entries.save_json(Path(folder, "attributes.json"), attributed)
    entries.save_json(Path(folder, "image_data.json"), list(images.values()))


def _image_row(record: Record) -> dict[str, Any]:
    here = record.source or record.image
    if not record.record_id.isdecimal() or record.image.count("/") != 1:
        raise ValueError(f"{here}: an image of Visual Genome is <folder>/<number>.jpg")
    other = dict(identity.split(":", 1) for identity in record.image_ids)
    numbers = {
        f"{kind}_id": int(other[kind]) if kind in other else None for kind in ("coco", "flickr")
    }
    size = {"width": record.width, "height": record.height}
    return {"image_id": int(record.record_id), "url": record.image, **size, **numbers}


def _region(record: Record, phrase: Phrase) -> dict[str, Any]:
    x, y, width, height = _rectangle(record, phrase)
    place = {"x": x, "y": y, "width": width, "height": height}
    ids = {"region_id": int(phrase.phrase_id), "image_id": int(record.record_id)}
    return {**ids, "phrase": phrase.text, **place}


def _object(record: Record, phrase: Phrase) -> dict[str, Any]:
    name = phrase.category
    if not name or phrase.text.split()[-len(name.split()) :] != name.split():
        raise ValueError(f"{record.source or record.image}: {phrase.text!r} must end in {name!r}")
    x, y, width, height = _rectangle(record, phrase)
    words = phrase.text.removesuffix(name).split()
    place = {"x": x, "y": y, "w": width, "h": height}
    return {"object_id": int(phrase.phrase_id), "names": [name], "attributes": words, **place}


def _rectangle(record: Record, phrase: Phrase) -> list[float]:
    if len(phrase.boxes) != 1 or not phrase.phrase_id.isdecimal():
        raise ValueError(
            f"{record.source or record.image}: {phrase.text!r} needs one box and a number as id"
        )
    return entries.plain(xyxy_to_xywh(phrase.boxes))[0]

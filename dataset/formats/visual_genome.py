"""Visual Genome as its project publishes it.

region_descriptions.json  [{id, regions: [{region_id, image_id, phrase, x, y, width, height}]}]
image_data.json           [{image_id, url, width, height, coco_id, flickr_id}]
attributes.json           [{image_id, attributes: [{object_id, names, attributes, x, y, w, h}]}]
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dataset.formats import entries
from dataset.record import Phrase, Record
from geometry import xywh_to_xyxy


def read(folder: str | os.PathLike[str]) -> Iterator[Record]:
    """One record per image with regions, one phrase per region; the file is read image by image.

    The image is `<folder of its url>/<id>.jpg` (VG_100K or VG_100K_2), the phrase id the region_id.

    Raises:
        FileNotFoundError, ValueError: naming file, image and key.
    """
    for image_id, image, source, entry in _images(folder, "region_descriptions.json", "id"):
        phrases = tuple(
            _phrase(region, "region_id", ("width", "height"), source)
            for region in entries.need(entry, "regions", source)
        )
        if phrases:
            yield _record(image_id, image, phrases, source)


def read_attributes(folder: str | os.PathLike[str]) -> Iterator[Record]:
    """One record per image: the phrase of an object is its attributes and its first name ("tall
    brick building"), its category that name, its id the object_id.

    Raises:
        FileNotFoundError, ValueError: naming file, image and key.
    """
    for image_id, image, source, entry in _images(folder, "attributes.json", "image_id"):
        phrases = []
        for thing in entries.need(entry, "attributes", source):
            name = entries.texts(entries.need(thing, "names", source), "names", source)[0]
            text = " ".join([*(thing.get("attributes") or []), name])
            whole = {**thing, "phrase": text}
            phrases.append(_phrase(whole, "object_id", ("w", "h"), source, name))
        if phrases:
            yield _record(image_id, image, tuple(phrases), source)


def _images(
    folder: str | os.PathLike[str], name: str, key: str
) -> Iterator[tuple[int, Mapping[str, Any], str, Mapping[str, Any]]]:
    data = Path(folder, "image_data.json")
    images = {
        int(entries.need(entry, "image_id", source)): entry
        for source, entry in entries.load_entries(data)
    }
    for source, entry in entries.load_entries(Path(folder, name)):
        image_id = int(entries.need(entry, key, source))
        yield image_id, entries.need(images, image_id, f"{source}: {data}"), source, entry


def _phrase(
    region: Mapping[str, Any], key: str, sides: tuple[str, str], source: str, category: str = ""
) -> Phrase:
    numbers = [entries.need(region, side, source) for side in ("x", "y", *sides)]
    boxes = xywh_to_xyxy(entries.boxes([numbers], "region", source)).tolist()
    (words,) = entries.texts(entries.need(region, "phrase", source), "phrase", source)
    phrase_id = str(entries.need(region, key, source))
    return Phrase(words, phrase_id, tuple(tuple(box) for box in boxes), category=category)


def _record(
    image_id: int, image: Mapping[str, Any], phrases: tuple[Phrase, ...], source: str
) -> Record:
    parts = str(entries.need(image, "url", source)).split("/")
    if len(parts) < 2 or parts[-2] in ("", ".", ".."):
        raise ValueError(f"{source}: url of image {image_id} names no folder: {image['url']!r}")
    identities = [f"vg:{image_id}"]
    for kind in ("coco", "flickr"):
        if image.get(f"{kind}_id") is not None:
            identities.append(f"{kind}:{image[f'{kind}_id']}")
    return Record(
        f"{parts[-2]}/{image_id}.jpg", image.get("width"), image.get("height"), phrases, "train",
        str(image_id), source, image_ids=tuple(identities),
    )  # fmt: skip

"""What the images of each collection are called in lists that hold only their numbers."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from groundwork.dataset.formats import entries
from groundwork.dataset.record import Record
from groundwork.files.foreign import forward_slashes

# Published names of one source differ between annotation files and image roots.
_SOURCES = {
    "coco": ("COCO_train2014_{:012d}.jpg", "coco:{}"),
    "vg": ("{}.jpg", "vg:{}"),
    "visual-genome": ("{}.jpg", "vg:{}"),
    "saiaprtc12": ("{}.jpg", "saiapr:{}"),
    "flickr": ("{}.jpg", "flickr:{}"),
}
COCO_STEM = re.compile(r"COCO_(?:train|val|test)20\d\d_0*(\d+)(?:_\d+)?")
"""COCO's names of 2014, without ending; REFER's end in the number of the object."""
_WRITTEN = ("coco", "visual-genome", "saiaprtc12", "flickr")


def named(data_source: str, number: int, source: str) -> tuple[str, str]:
    """(file name, identity for `Record.image_ids`) of an image of "coco", "visual-genome", "vg",
    "saiaprtc12" or "flickr"; `source` asks for it, for messages."""
    name, identity = entries.need(_SOURCES, data_source, f"{source}: data_source")
    return name.format(number), identity.format(number)


def source_in(entry: Mapping[str, Any], usual: str, source: str) -> str:
    """The `data_source` of an entry; `usual` where it names none.

    Raises:
        ValueError: it is no text.
    """
    kind = entry.get("data_source")
    if not isinstance(kind, str | None):
        raise ValueError(
            f"{source}: data_source must be one of {', '.join(_SOURCES)}, got {kind!r}"
        )
    return usual if kind is None else kind


def source_of(record: Record) -> str:
    """The collection of which the record's id is the image's number, by its first identity.

    Raises:
        ValueError: the record has no such identity.
    """
    for kind in _WRITTEN:
        if record.image_ids[:1] == (_SOURCES[kind][1].format(record.record_id),):
            return kind
    raise ValueError(
        f"{record.source or record.image}: its first image id must be that of image"
        f" {record.record_id!r} in a known collection, not {record.image_ids[:1]}"
    )


def of_url(url: object, number: int, source: str) -> str:
    """Visual Genome's image as `<folder of its url>/<number>.jpg` (VG_100K or VG_100K_2).

    Raises:
        ValueError: the url names no folder.
    """
    folder = PurePosixPath(forward_slashes(str(url))).parent.name
    if folder in ("", ".", ".."):
        raise ValueError(f"{source}: url of image {number} names no folder: {url!r}")
    return f"{folder}/{number}.jpg"

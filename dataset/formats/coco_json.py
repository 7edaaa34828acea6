"""COCO's own JSON: images, and annotations of them.

{images: [{id, file_name, width?, height?}], annotations: [{image_id, caption?, bbox?, ...}]}
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from groundwork.dataset.formats import entries


class Annotation(NamedTuple):
    """source: its place, for messages. entry, image: the annotation and the image it is of."""

    source: str
    entry: Mapping[str, Any]
    image: Mapping[str, Any]


def annotations(path: str | os.PathLike[str], content: Any = None) -> Iterator[Annotation]:
    """The annotations of a file in its order; `content`: of the file, if it has been read.

    Raises:
        FileNotFoundError, ValueError: naming file, annotation and key.
    """
    where = os.fspath(path)
    content = entries.load_json(path) if content is None else content
    images = entries.by_number(entries.need(content, "images", where), "id", f"{where} images")
    rows = entries.listed(entries.need(content, "annotations", where), f"{where} annotations")
    for index, row in enumerate(rows):
        source = f"{where} annotations[{index}]"
        image_id = entries.number(row, "image_id", source)
        image = entries.need(images, image_id, source)
        entries.need(image, "file_name", f"{where} image {image_id}")
        yield Annotation(source, row, image)

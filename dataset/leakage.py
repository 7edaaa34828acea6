"""Which images two lists of annotations share, whatever collections they name them by.

An image has one identity per collection that it is part of: "coco:391895", "vg:2337",
"flickr:1000092795", "saiapr:19579". Visual Genome says in image_data.json which of its images are
COCO's and which photo of Flickr each is; COCO's files hold Flickr's address of each photo. `Links`
joins them, so that a Visual Genome list is compared with RefCOCO's images, and either with
Flickr30k.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from groundwork.dataset.formats import entries, refer, visual_genome
from groundwork.dataset.formats.image_names import COCO_STEM
from groundwork.dataset.record import Record
from groundwork.files.foreign import forward_slashes

COLLECTIONS = ("coco", "vg", "flickr", "saiapr")
_FLICKR_ADDRESS = re.compile(r"/(\d+)_[0-9a-f]+(?:_[a-z])?\.jpg$")


def identity_of_name(image: str, collection: str | None) -> str | None:
    """The identity that the file name of an image states, or None.

    COCO's 2014 names speak for themselves; a bare number does only if its collection is known.
    """
    stem = PurePath(forward_slashes(image)).stem
    match = COCO_STEM.fullmatch(stem)
    if match:
        return f"coco:{int(match[1])}"
    if collection is not None and stem.isdecimal():
        return f"{collection}:{int(stem)}"
    return None


@dataclass
class Links:
    """Identities of the same image in several collections."""

    _same: dict[str, frozenset[str]] = field(default_factory=dict)

    def add(self, identities: Iterable[str]) -> None:
        """Say that these identities are one image's."""
        joined = frozenset(identities)
        joined = joined.union(*(self._same.get(identity, ()) for identity in joined))
        for identity in joined:
            self._same[identity] = joined

    def of(self, identities: Iterable[str]) -> frozenset[str]:
        """All identities of the image that has these."""
        given = frozenset(identities)
        return given.union(*(self._same.get(identity, ()) for identity in given))

    def __len__(self) -> int:
        return len(self._same)

    def read_image_data(self, path: str | os.PathLike[str]) -> Links:
        """Add Visual Genome's image_data.json: [{image_id | id, coco_id, flickr_id}]."""
        for source, entry in entries.load_entries(path):
            number = entries.number(entry, "image_id" if "image_id" in entry else "id", source)
            self.add(visual_genome.identities(entry, number, source))
        return self

    def read_coco_images(self, path: str | os.PathLike[str]) -> Links:
        """Add the `images` of a COCO file (captions_*, instances_*): {id, flickr_url}."""
        content = entries.load_json(path)
        rows = entries.need(content, "images", os.fspath(path))
        for number, image in entries.by_number(rows, "id", f"{os.fspath(path)} images").items():
            match = _FLICKR_ADDRESS.search(str(image.get("flickr_url") or ""))
            if match:
                self.add([f"coco:{number}", f"flickr:{int(match[1])}"])
        return self


def identities(
    record: Record, links: Links | None = None, collection: str | None = None
) -> frozenset[str]:
    """All known identities of a record's image.

    Args:
        links: joins collections. collection: of images whose name is a bare number.

    Raises:
        ValueError: nothing says which image of which collection it is.
    """
    known = list(record.image_ids)
    named = identity_of_name(record.image, collection)
    if named and named.partition(":")[0] not in {one.partition(":")[0] for one in known}:
        known.append(named)
    if not known:
        raise ValueError(
            f"{record.source}: nothing says which image {record.image!r} is; name the collection of"
            f" this list ({', '.join(COLLECTIONS)})"
        )
    return links.of(known) if links is not None else frozenset(known)


@dataclass
class Overlap:
    """What a training list shares with evaluation splits.

    Attributes:
        images: split -> identities (as the evaluation list names them) that are trained on.
        records: split -> records of the training list on these images.
        trained: records and images of the training list. evaluated: split -> images.
    """

    images: dict[str, set[str]]
    records: Counter[str]
    trained: tuple[int, int]
    evaluated: dict[str, int]

    def __bool__(self) -> bool:
        return any(self.images.values())


@dataclass(frozen=True)
class ImageSet:
    """The images of an evaluation split: all their identities, and how many images these are."""

    identities: frozenset[str]
    count: int


def refer_images(
    refs_file: str | os.PathLike[str], collection: str, splits: Iterable[str] | None = None
) -> dict[str, ImageSet]:
    """split -> the images of REFER's `refs(...).p`, without reading any object.

    Args:
        collection: what its image ids count: "coco", or "saiapr" for RefCLEF.
        splits: None: every one but "train".

    Raises:
        FileNotFoundError, ValueError: naming file, reference and key, or a split that is not there.
    """
    found: dict[str, set[str]] = {}
    for index, ref in enumerate(refer.load_refs(refs_file)):
        source = f"{os.fspath(refs_file)}[{index}]"
        split = str(entries.need(ref, "split", source))
        image = entries.number(ref, "image_id", source)
        found.setdefault(split, set()).add(f"{collection}:{image}")
    wanted = [split for split in found if split != "train"] if splits is None else list(splits)
    missing = [split for split in wanted if split not in found]
    if missing:
        raise ValueError(f"{refs_file} has no split {missing[0]!r} (it has: {', '.join(found)})")
    return {split: ImageSet(frozenset(found[split]), len(found[split])) for split in wanted}


def find_overlap(
    training: Iterable[Record],
    evaluation: Mapping[str, ImageSet],
    links: Links | None = None,
    collection: str | None = None,
) -> Overlap:
    """Which images of `evaluation` the training records show."""
    images: dict[str, set[str]] = {split: set() for split in evaluation}
    records: Counter[str] = Counter()
    seen: set[frozenset[str]] = set()
    count = 0
    for record in training:
        count += 1
        known = identities(record, links, collection)
        seen.add(known)
        for split, wanted in evaluation.items():
            if shared := known & wanted.identities:
                images[split].add(min(shared))
                records[split] += 1
    sizes = {split: wanted.count for split, wanted in evaluation.items()}
    return Overlap(images, records, (count, len(seen)), sizes)


@dataclass
class Exclusion:
    """Leaves the records of forbidden images out, and counts what it left out.

    Args:
        forbidden: identities, for example of all evaluation images.
    """

    forbidden: frozenset[str]
    links: Links | None = None
    collection: str | None = None
    records: int = 0
    images: set[str] = field(default_factory=set)

    def keep(self, records: Iterable[Record]) -> Iterator[Record]:
        """The records on other images."""
        for record in records:
            shared = identities(record, self.links, self.collection) & self.forbidden
            if shared:
                self.records += 1
                self.images.add(record.image)
            else:
                yield record

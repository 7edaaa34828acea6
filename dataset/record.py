"""Records: one image with its phrases and boxes, held outside Python objects.

A training list has up to five million regions. As Python objects they would be copied into every
worker process by reference counting; an Arrow file is one read-only map that all workers share.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundwork.files.safe import atomic_write
from groundwork.geometry import Box

_PHRASE = pa.struct(
    [
        ("text", pa.string()),
        ("phrase_id", pa.string()),
        ("boxes", pa.list_(pa.float64())),
        ("synonyms", pa.list_(pa.string())),
        ("group", pa.string()),
        ("masks", pa.list_(pa.string())),
        ("start", pa.int32()),
        ("category", pa.string()),
        ("matches_nothing", pa.bool_()),
    ]
)
_SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("phrases", pa.list_(_PHRASE)),
        ("split", pa.string()),
        ("record_id", pa.string()),
        ("source", pa.string()),
        ("sentence", pa.string()),
        ("image_ids", pa.list_(pa.string())),
    ]
)
_FIELDS, _PHRASE_FIELDS = _SCHEMA.names, [field.name for field in _PHRASE]
_ROWS_PER_BATCH = 256
_READS_PER_RELEASE = 256


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words that refer to something in an image.

    Attributes:
        text: as annotated, not cleaned.
        phrase_id: the annotation's own id of the phrase (RefCOCO+: ref_id, Flickr30k: chain id).
        boxes: every annotated box of the phrase, xyxy pixels of the original image.
        synonyms: words that may stand in for `group`.
        group: the words of `text` that a synonym may replace.
        masks: as many as `boxes`, or none: each the JSON text of a COCO segmentation (polygons or
            RLE), or a path ending in ".npy" relative to the mask root (`geometry.decode_mask`).
        start: character of the record's `sentence` at which `text` starts; -1: not known.
        category: name of the object's class where the annotation has one.
        matches_nothing: annotated to refer to nothing in the image (gRefCOCO). `boxes` is then
            empty but for entries that contradict themselves: their evaluation expects nothing,
            their training all other targets.
    """

    text: str
    phrase_id: str = ""
    boxes: tuple[Box, ...] = ()
    synonyms: tuple[str, ...] = ()
    group: str = ""
    masks: tuple[str, ...] = ()
    start: int = -1
    category: str = ""
    matches_nothing: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """One annotated image (an image may have several records).

    Attributes:
        image: path relative to the image root.
        width, height: original size in pixels where the annotation states it.
        phrases: at least one for a record that is used.
        split: "train", "val", "testA", ...
        record_id: the annotation's own id (RefCOCO+, RefCLEF: image_id; Flickr30k: image#sentence).
        source: where it was read, for messages: "train.json[17]".
        sentence: the whole sentence that all phrases are part of (Flickr30k multi-phrase lists).
        image_ids: the image's identity in the collections it belongs to ("coco:391895", "vg:2337",
            "flickr:1000092795", "saiapr:19579"), by which lists of data sets are compared.
    """

    image: str
    width: int | None
    height: int | None
    phrases: tuple[Phrase, ...]
    split: str = ""
    record_id: str = ""
    source: str = ""
    sentence: str = ""
    image_ids: tuple[str, ...] = ()


class Records(Protocol):
    """What a data set takes them from: a list, a `RecordTable`, or what stands before one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...

    def __iter__(self) -> Iterator[Record]: ...


def _to_row(record: Record) -> dict[str, Any]:
    row = {name: getattr(record, name) for name in _FIELDS}
    row["phrases"] = [_phrase_row(phrase) for phrase in record.phrases]
    return row


def _phrase_row(phrase: Phrase) -> dict[str, Any]:
    row = {name: getattr(phrase, name) for name in _PHRASE_FIELDS}
    row["boxes"] = np.asarray(phrase.boxes, dtype=np.float64).ravel()
    return row


def _to_record(row: dict[str, Any]) -> Record:
    phrases = tuple(map(_to_phrase, row.pop("phrases")))
    return Record(phrases=phrases, image_ids=tuple(row.pop("image_ids")), **row)


def _to_phrase(row: dict[str, Any]) -> Phrase:
    row["boxes"] = tuple(zip(*[iter(row["boxes"])] * 4, strict=True))
    row["synonyms"], row["masks"] = tuple(row["synonyms"]), tuple(row["masks"])
    return Phrase(**row)


class RecordTable:
    """A read-only sequence of records in one Arrow IPC file; a `Record` is made when asked for.

    The file is mapped, so that opening takes no longer for five million records than for one, and
    processes share its pages, whether forked or spawned. Its batches are small: a record is read
    from a few neighbouring pages, not from one page per column.
    """

    def __init__(self, content: pa.Buffer | mmap.mmap, path: str | None = None) -> None:
        self._content = content
        self._path = path
        self._reads = 0
        self._reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(content)))
        self._batches = self._reader.num_record_batches
        self._rows_per_batch = self._reader.get_batch(0).num_rows if self._batches else 0
        self._length = 0
        if self._batches:
            last = self._reader.get_batch(self._batches - 1).num_rows
            self._length = (self._batches - 1) * self._rows_per_batch + last

    @classmethod
    def from_records(cls, records: Iterable[Record]) -> RecordTable:
        """Pack `records` in memory; the iterable is consumed in blocks, never held as a whole.

        Raises:
            ValueError: naming the record: a size of more than 31 bits, half a pair of surrogates.
        """
        sink = pa.BufferOutputStream()
        _write(records, sink)
        return cls(sink.getvalue())

    @classmethod
    def convert(cls, records: Iterable[Record], path: str | os.PathLike[str]) -> RecordTable:
        """Write `records` to a file block by block, and open it.

        Neither the records nor the table are ever in memory as a whole; the file appears complete
        or not at all.
        """
        with atomic_write(path) as partial, partial.open("wb") as sink:
            _write(records, sink)
        return cls.open(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RecordTable:
        """Map a table that `convert` wrote into memory.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file is not a table of records (written by another version, or damaged).
        """
        if not os.path.exists(path):
            raise FileNotFoundError(
                f"record table {path} does not exist; read the annotations again"
            )
        try:
            with open(path, "rb") as file:
                table = cls(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), os.fspath(path))
        except (pa.ArrowInvalid, ValueError) as error:  # ValueError: an empty file has no map
            raise ValueError(
                f"{path} is not a record table ({error}); delete it to have it rebuilt"
            ) from error
        if table._reader.schema != _SCHEMA:
            raise ValueError(
                f"{path} holds other columns than this version; delete it to have it rebuilt"
            )
        return table

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        number, row = divmod(index, self._rows_per_batch)
        record = _to_record(self._reader.get_batch(number).slice(row, 1).to_pylist()[0])
        self._reads += 1
        if self._reads % _READS_PER_RELEASE == 0:
            self._release()
        return record

    def __iter__(self) -> Iterator[Record]:
        for number in range(self._batches):
            yield from map(_to_record, self._reader.get_batch(number).to_pylist())
            self._reads += 1
            if self._reads % _READS_PER_RELEASE == 0:
                self._release()

    def phrases_with(self, name: str) -> tuple[int, int]:
        """How many phrases have something in the list `name`, such as "boxes", and how many there
        are; no record is made for it."""
        having = total = 0
        for number in range(self._batches):
            phrases = self._reader.get_batch(number).column("phrases").flatten()
            having += pc.sum(pc.greater(pc.list_value_length(phrases.field(name)), 0)).as_py() or 0
            total += len(phrases)
        return having, total

    def _release(self) -> None:
        # Pages that this process has touched count as its own resident memory, and after enough
        # random reads that is the whole file. Let go, they stay in the system's page cache.
        if isinstance(self._content, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self._content.madvise(mmap.MADV_DONTNEED)

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapped table travels to a spawned worker as its path, not as a copy of its content.
        if self._path is not None:
            return RecordTable.open, (self._path,)
        return RecordTable, (self._content,)


def _write(records: Iterable[Record], sink: Any) -> None:
    rest = iter(records)
    with pa.ipc.new_file(sink, _SCHEMA) as writer:
        while block := list(islice(rest, _ROWS_PER_BATCH)):
            writer.write_batch(_packed(block))


def _packed(records: list[Record]) -> pa.RecordBatch:
    """Raises ValueError for a record with a number or letters that no table holds, and names it."""
    try:
        return pa.RecordBatch.from_pylist([_to_row(one) for one in records], schema=_SCHEMA)
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        if len(records) == 1:
            here = records[0].source or records[0].image
            raise ValueError(f"{here}: it cannot be kept ({error}); correct the entry") from error
        for record in records:
            _packed([record])
        raise

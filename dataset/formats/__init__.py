"""One reader per published annotation format; each yields `Record`s and raises FileNotFoundError or
ValueError, which name file, entry and key, when it cannot.

`read_table` puts the records of several files into one `RecordTable`, from a cache where one is
given.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from groundwork.dataset.formats import coco, notes, vg
from groundwork.dataset.record import Record, RecordTable

Reader = Callable[[str], Iterable[Record]]

TRAIN_FORMATS: dict[str, Reader] = {"vg": vg.read, "coco": coco.read}
# Part of every cache file's name: raise it when a reader yields other records from the same file.
_CACHE_VERSION = 4


def read_table(
    paths: Sequence[str | os.PathLike[str]], format_name: str, cache_dir: str | None = None
) -> RecordTable:
    """The records of `paths`, one after the other.

    Args:
        paths: annotation files of one format.
        format_name: a key of `TRAIN_FORMATS`.
        cache_dir: where the table is kept and found again as long as no file changed; it is made
            record by record, never held as a whole. None: no cache, the table is in memory.

    Raises:
        ValueError: unknown format, or a malformed entry.
        FileNotFoundError: a file does not exist.
    """
    if format_name not in TRAIN_FORMATS:
        raise ValueError(
            f"data format {format_name!r} is unknown; legal are {', '.join(TRAIN_FORMATS)}"
        )
    records = _read_all(paths, TRAIN_FORMATS[format_name])
    return table_of(records, paths, format_name, cache_dir)


def table_of(
    records: Iterable[Record],
    paths: Sequence[str | os.PathLike[str]],
    name: str,
    cache_dir: str | None,
) -> RecordTable:
    """A table of records that are read from `paths`, or the cached one of the same `name`.

    Raises:
        FileNotFoundError: a file does not exist and there is a cache to look into.
    """
    if cache_dir is None:
        return RecordTable.from_records(records)
    cached = Path(cache_dir, f"records-{_fingerprint(paths, name)}.arrow")
    kept = cached.with_suffix(".notes.json")
    if not cached.exists():
        with notes.collected() as found:
            table = RecordTable.convert(records, cached)
        if found:
            notes.save(found, kept)
        return table
    notes.repeat(kept)
    return RecordTable.open(cached)


def _read_all(paths: Sequence[str | os.PathLike[str]], read: Reader) -> Iterator[Record]:
    return chain.from_iterable(read(os.fspath(path)) for path in paths)


def _fingerprint(paths: Sequence[str | os.PathLike[str]], format_name: str) -> str:
    facts = [f"{_CACHE_VERSION} {format_name}"]
    for path in paths:
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"annotation file {path} does not exist; check train_file / relation_file"
            )
        status = os.stat(path)
        facts.append(f"{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]

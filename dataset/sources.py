"""Records of any published format, split by split."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from groundwork.dataset.formats import (
    coco,
    flickr30k,
    instances_json,
    labels,
    notes,
    phrases,
    simrec,
    tuples,
    vg,
)
from groundwork.dataset.formats import refer as refer_format
from groundwork.dataset.record import Record, RecordTable

# Part of every cache file's name: raise it when a reader yields other records from the same file.
_CACHE_VERSION = 4


class Source(NamedTuple):
    """read: (path, split) -> records; files: (path, split) -> every file that is read for them;
    read_integers: `read` with boxes that are cut to integers as the format states them, where that
    is not the same as to cut their corners."""

    read: Callable[[str, str], Iterable[Record]]
    files: Callable[[str, str], Sequence[str | Path]] = lambda path, _: [path]
    read_integers: Callable[[str, str], Iterable[Record]] | None = None


def _instances_of(refs: str) -> Path:
    return Path(refs).parent / "instances.json"


def _collection(path: str) -> str:
    """Of an instances.json whose entries name no `data_source`: its folder says."""
    folder = Path(path).parent.name
    known = {"flickr": "flickr", "referit": "saiaprtc12"}
    return next((name for part, name in known.items() if part in folder), "coco")


def read_tuples(path: str, split: str | None = None, *, integers: bool = False) -> Iterator[Record]:
    """As `tuples.read`."""
    bare = tuples.layout_of(path) == "vg"
    for record in tuples.read(path, split=split, integers=integers):
        # The authors' list of Visual Genome names images of the folder VG_100K without it.
        inside = bare and "/" not in record.image
        yield replace(record, image=f"VG_100K/{record.image}") if inside else record


SOURCES: dict[str, Source] = {
    "tuples": Source(read_tuples, read_integers=partial(read_tuples, integers=True)),
    "refer": Source(
        lambda path, split: refer_format.read(path, _instances_of(path), [split]),
        lambda path, _: [path, _instances_of(path)],
    ),
    "simrec": Source(lambda path, split: simrec.read(path, [split])),
    "instances": Source(lambda path, split: instances_json.read(path, [split], _collection(path))),
    "flickr30k": Source(flickr30k.read, lambda path, split: flickr30k.files(path, [split])),
    "vg": Source(lambda path, _: vg.read(path)),
    "coco": Source(lambda path, _: coco.read(path)),
    "labels": Source(labels.read),
    "phrases": Source(phrases.read),
}


def read_splits(
    splits: Mapping[str, Sequence[str]],
    format_name: str,
    cache_dir: str | None = None,
    *,
    integer_boxes: bool = False,
) -> RecordTable:
    """The records of all splits, one after the other, each with the split it was asked for.

    Args:
        splits: split -> annotation files.
        format_name: a key of `SOURCES`.
        cache_dir: where the table is kept and found again as long as no file changed; it is made
            record by record, never held as a whole. None: no cache, the table is in memory.
        integer_boxes: lists of x, y, width and height are read cut to integers; what is stated by
            corners is left for the data set to cut (`ReferringRules.integer_boxes`).

    Raises:
        FileNotFoundError, ValueError: of the reader, an unknown format, or a split without any
            expression.
    """
    if format_name not in SOURCES:
        raise ValueError(f"data format {format_name!r} is unknown; legal are {', '.join(SOURCES)}")
    source = SOURCES[format_name]
    integers = source.read_integers if integer_boxes else None
    names = ",".join(f"{split}:{len(files)}" for split, files in splits.items())
    name = f"{format_name} {names}" + (" integers" if integers else "")
    records = _read(splits, integers or source.read)
    if cache_dir is None:
        return RecordTable.from_records(records)
    fingerprint = _fingerprint(source_files(splits, format_name), name)
    cached = Path(cache_dir, f"records-{fingerprint}.arrow")
    kept = cached.with_suffix(".notes.json")
    # The notes are written last: a table without them is of a run that was killed in between.
    if cached.exists() and kept.exists():
        notes.repeat(kept)
        return RecordTable.open(cached)
    with notes.collected() as found:
        table = RecordTable.convert(records, cached)
    notes.save(found, kept)
    return table


def _fingerprint(paths: Sequence[str | os.PathLike[str]], name: str) -> str:
    facts = [f"{_CACHE_VERSION} {name}"]
    for path in paths:
        if not os.path.isfile(path):
            raise FileNotFoundError(f"annotation file {path} does not exist; check its path")
        status = os.stat(path)
        facts.append(f"{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def source_files(splits: Mapping[str, Sequence[str]], format_name: str) -> list[str | Path]:
    """Every annotation file that `read_splits` reads."""
    source = SOURCES[format_name]
    found = [
        f for split, files in splits.items() for path in files for f in source.files(path, split)
    ]
    return list(dict.fromkeys(found))


def _read(
    splits: Mapping[str, Sequence[str]], read: Callable[[str, str], Iterable[Record]]
) -> Iterator[Record]:
    for split, files in splits.items():
        found = False
        for path in files:
            for record in read(path, split):
                found = True
                yield record if record.split == split else replace(record, split=split)
        if not found:
            raise ValueError(
                f"{', '.join(map(str, files))}: no expression of split {split!r}; check the files "
                "of data.train and data.evaluate"
            )

"""Files in tar shards, as WebDataset has them, read one at a time and in any order.

Shards are named like a file or, with a pattern, like several: `data/coco/*.tar`, `s3://bucket/*.tar`;
any URL that fsspec reads. Where a file lies in them is read from their headers once, or from an
index beside them (`INDEX`, written by tools/shards.py), which shards of another machine must have:
their headers lie between the files, and to read all of them is to read everything.
"""

import json
import os
import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import has_magic

from groundwork.files.places import content_of, is_local, located, opened, reaching
from groundwork.files.safe import atomic_write

INDEX = "index.parquet"
_ENDING, _COMPRESSED = ".tar", (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_SIZES = b"groundwork.shards"
_MAKE = "python -m tools.shards index"


class Place(NamedTuple):
    """Where a file lies: bytes [start, start + size) of a shard."""

    name: str
    shard: str
    start: int
    size: int


@dataclass(frozen=True)
class Member:
    """A file in one of the shards `root`. As text ROOT/NAME, as if these were a folder."""

    root: str
    place: Place

    def __str__(self) -> str:
        return f"{self.root}/{self.place.name}"

    def read(self) -> bytes:
        """Its content.

        Raises:
            FileNotFoundError, PermissionError, Unreachable: as of `content_of`.
            ValueError: the shard is shorter than it was, or its server gives no parts of files.
        """
        _, shard, start, size = self.place
        content = content_of(located(self.root)[0], shard, start, start + size)
        if len(content) != size:
            raise ValueError(
                f"{self}: {len(content)} bytes came where {size} were asked for; either {shard} was"
                f" replaced, then make its index again ({_MAKE} '{self.root}'), or its server does"
                " not give parts of files (HTTP: Range)"
            )
        return content


class Shards:
    """The files in the shards `root`, by name.

    Some 150 bytes of memory a file: the names, and where in three arrays they are found.
    """

    def __init__(self, root: str, places: Iterator[Place]) -> None:
        """Raises ValueError if two shards have a file of the same name."""
        self.root = root
        self._shards: list[str] = []
        self._rows: dict[str, int] = {}
        numbers: dict[str, int] = {}
        shards, starts, sizes = [], [], []
        for name, shard, start, size in places:
            shards.append(numbers.setdefault(shard, len(numbers)))
            starts.append(start)
            sizes.append(size)
            row = self._rows.setdefault(name, len(self._rows))
            if row != len(starts) - 1:
                other = list(numbers)[shards[row]]
                raise ValueError(
                    f"{root}: {name} is in {shard} and in {other}, or twice in one; a name stands"
                    " for one file"
                )
        self._shards = list(numbers)
        self._shard, self._start, self._size = map(np.array, (shards, starts, sizes))

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, name: str) -> Member | None:
        """The file of that name, if there is one."""
        row = self._rows.get(name)
        if row is None:
            return None
        shard, start, size = self._shards[self._shard[row]], self._start[row], self._size[row]
        return Member(self.root, Place(name, shard, int(start), int(size)))


def is_shards(root: str) -> bool:
    """Does `root` name shards, and no folder?"""
    return root.lower().endswith((_ENDING, *_COMPRESSED)) and not os.path.isdir(root)


@cache
def shards_at(root: str) -> Shards:
    """The shards `root`, whose index is read once in every process (a forked one has it).

    Raises:
        FileNotFoundError: there are none. PermissionError, Unreachable: as of `reaching`.
        ValueError: they are compressed, are cut or no tar files, hold a name twice, lie on another
            machine without an index, or are not those of their index.
    """
    if root.lower().endswith(_COMPRESSED):
        raise ValueError(f"{root}: compressed shards can only be read from their beginning; unpack"
                         " them to .tar files")  # fmt: skip
    system, pattern = located(root)
    index = _index_of(pattern)
    with reaching(root):
        sizes = _sizes(system, pattern, root)
        if system.exists(index):
            return Shards(root, _indexed(system, index, sizes, root))
    if not is_local(system):
        raise ValueError(f"{root} has no {INDEX} beside it; make it, once, by {_MAKE} '{root}'")
    return Shards(root, scan(root))


def scan(root: str) -> Iterator[Place]:
    """Every file of the shards, by their headers.

    Raises:
        FileNotFoundError: there are none. ValueError: one is cut, or no tar file.
    """
    system, pattern = located(root)
    for shard in _sizes(system, pattern, root):
        try:
            with opened(system, shard) as raw, tar_file(raw, "r:") as tar:
                for member in tar:
                    if member.isreg() and not member.issparse():
                        name = posixpath.normpath(member.name)
                        yield Place(name, shard, member.offset_data, member.size)
                    tar.members = []  # type: ignore[attr-defined]  # it keeps every header
        except (tarfile.TarError, EOFError) as error:
            raise ValueError(f"{shard} is cut or no tar file ({error}); fetch it again") from error


def write_index(root: str, places: Iterator[Place]) -> str:
    """Writes the index of shards beside them, and gives its place.

    Raises:
        ValueError: two shards have a file of the same name.
    """
    system, pattern = located(root)
    sizes, rows = _sizes(system, pattern, root), list(places)
    Shards(root, iter(rows))
    table = pa.table(
        {
            "name": [place.name for place in rows],
            "shard": pa.array([PurePosixPath(place.shard).name for place in rows]),
            "start": pa.array([place.start for place in rows], pa.int64()),
            "size": pa.array([place.size for place in rows], pa.int64()),
        }
    )
    named = {PurePosixPath(shard).name: size for shard, size in sizes.items()}
    table = table.replace_schema_metadata({_SIZES: json.dumps(named)})
    index = _index_of(pattern)
    if is_local(system):
        with atomic_write(index) as partial:
            pq.write_table(table, partial)
    else:
        with system.open(index, "wb") as file:
            pq.write_table(table, file)
    return str(index)


def tar_file(raw: BinaryIO, mode: Any) -> tarfile.TarFile:
    """A tar file that says so if it was cut, even between two of its files."""
    return tarfile.open(fileobj=raw, mode=mode, tarinfo=_Header)


class _Header(tarfile.TarInfo):
    """The header of a file in a shard, of which there is one more, of zeros, at the end: tarfile
    takes one that is cut between two files for whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        if len(buf) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("unexpected end of data")
        return super().frombuf(buf, encoding, errors)


def _sizes(system: fsspec.AbstractFileSystem, pattern: str, root: str) -> dict[str, int]:
    """Path -> bytes of the shards, in the order of their names. A web server lists them without.

    Raises:
        FileNotFoundError: there are none.
    """
    found = system.glob(pattern, detail=True) if has_magic(pattern) else {}
    if not found and system.isfile(pattern):
        found = {pattern: system.info(pattern)}
    if not found:
        raise FileNotFoundError(
            f"{root}: there is no such shard; a pattern such as *.tar names several"
        )
    return {
        path: system.info(path)["size"] if found[path]["size"] is None else found[path]["size"]
        for path in sorted(found)
    }


def _index_of(pattern: str) -> str:
    return posixpath.join(posixpath.dirname(pattern), INDEX)


def _indexed(
    system: fsspec.AbstractFileSystem, index: str, sizes: Mapping[str, int], root: str
) -> Iterator[Place]:
    """What the index says of the shards that have these sizes."""
    again = f"make it again: {_MAKE} '{root}'"
    try:
        with opened(system, index) as file:
            table = pq.read_table(file)
        known = json.loads((table.schema.metadata or {})[_SIZES])
        rows = [table.column(name).to_pylist() for name in Place._fields]
    except (pa.ArrowInvalid, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{index} is damaged, or no index of shards; {again}") from error
    paths = {PurePosixPath(path).name: path for path in sizes}
    others = [name for name, path in paths.items() if known.get(name) != sizes[path]]
    if others:
        raise ValueError(f"{index} is not of these files, {others[0]} is another one; {again}")
    for name, shard, start, size in zip(*rows, strict=True):
        if shard in paths:
            yield Place(name, paths[shard], start, size)

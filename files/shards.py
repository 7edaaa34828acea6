"""Files in tar shards, as WebDataset has them, read one at a time and in any order.

Shards are named like a file or, with a pattern (`places.listed`), like several: `data/coco/*.tar`,
`https://host/{000..146}.tar`; any URL that fsspec reads. Where a file lies in them is read from
their headers once, or from an index (`INDEX`, written by tools/shards.py) in their folder, of a
pattern with folders in the first one that is named. Shards of another machine must have one: their
headers lie between the files, and to read all of them is to read everything.
"""

import json
import os
import posixpath
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, BinaryIO, NamedTuple

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from groundwork.files import foreign
from groundwork.files.places import (
    content_of,
    folder_of,
    is_local,
    listed,
    located,
    opened,
    reaching,
)
from groundwork.files.safe import atomic_write

INDEX = "index.parquet"
_ENDING, _COMPRESSED = ".tar", (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_SIZES = b"groundwork.shards"
_MAKE = "python -m tools.shards index"
_HEADER = tarfile.BLOCKSIZE
_COLUMNS = pa.schema(
    {
        "name": pa.string(),
        "shard": pa.string(),
        "start": pa.int64(),
        "size": pa.int64(),
        "header": pa.int64(),
    }
)


class Place(NamedTuple):
    """Where a file lies: bytes [start, start + size) of a shard. header: CRC-32 of its header."""

    name: str
    shard: str
    start: int
    size: int
    header: int


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
            ValueError: another file lies there now, or the server gives no parts of files.
        """
        _, shard, start, size, header = self.place
        content = content_of(located(self.root)[0], shard, start - _HEADER, start + size)
        if len(content) != _HEADER + size or zlib.crc32(content[:_HEADER]) != header:
            raise ValueError(
                f"{self} is not where its index says; either {shard} was replaced, then make the"
                f" index again ({_MAKE} '{self.root}'), or its server does not give parts of files"
                " (HTTP: Range)"
            )
        return content[_HEADER:]


class Shards:
    """The files in the shards `root`, by name.

    Some 350 bytes of memory a file, most of it its name; twice that while they are read.
    """

    def __init__(self, root: str, places: Iterator[Place]) -> None:
        """Raises ValueError if two shards have a file of the same name."""
        self.root = root
        self._rows: dict[str, int] = {}
        numbers: dict[str, int] = {}
        places_of = []
        for name, shard, *where in places:
            places_of.append((numbers.setdefault(shard, len(numbers)), *where))
            row = self._rows.setdefault(name, len(self._rows))
            if row != len(places_of) - 1:
                other = list(numbers)[places_of[row][0]]
                raise ValueError(
                    f"{root}: {name} is in {shard} and in {other}; a name stands for one file"
                )
        self._shards = list(numbers)
        self._places = np.array(places_of, dtype=np.int64).reshape(-1, 4)

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, name: str) -> Member | None:
        """The file of that name, if there is one."""
        row = self._rows.get(name)
        if row is None:
            return None
        shard, start, size, header = self._places[row].tolist()
        return Member(self.root, Place(name, self._shards[shard], start, size, header))


def is_shards(root: str) -> bool:
    """Does `root` name shards, and no folder?"""
    ends = root.lower().rstrip("}").endswith((_ENDING, *_COMPRESSED))  # {000.tar,001.tar}, too
    return ends and not os.path.isdir(root)


@cache
def shards_at(root: str) -> Shards:
    """The shards `root`, whose index is read once in every process (a forked one has it). Shards of
    this machine that it does not know are read as without one.

    Raises:
        FileNotFoundError: there are none. PermissionError, Unreachable: as of `reaching`.
        ValueError: they are compressed, are cut or no tar files, hold a name twice, lie on another
            machine without an index, or are not those of their index.
    """
    system, pattern = located(root)
    index = _index_of(system, pattern)
    with reaching(system, root):
        sizes = _sizes(system, pattern, root)
        if system.exists(index):
            return Shards(root, _indexed(system, pattern, sizes, root))
    if not is_local(system):
        raise ValueError(f"{root} has no {INDEX} beside it; make it, once, by {_MAKE} '{root}'")
    return Shards(root, scan(root))


def scan(root: str) -> Iterator[Place]:
    """Every file of the shards, by their headers.

    Raises:
        FileNotFoundError: there are none.
        ValueError: one is compressed, cut, damaged or no tar file, or holds a sparse file.
    """
    system, pattern = located(root)
    for shard in _sizes(system, pattern, root):
        yield from _scan(system, shard)


def write_index(root: str, places: Iterator[Place]) -> str:
    """Writes the index of shards, and gives its place.

    Raises:
        ValueError: two shards have a file of the same name.
    """
    system, pattern = located(root)
    folder, rows = folder_of(system, pattern), list(places)
    Shards(root, iter(rows))
    columns = dict(zip(Place._fields, zip(*rows, strict=True), strict=True)) if rows else {}
    columns["shard"] = tuple(posixpath.relpath(shard, folder) for shard in columns.get("shard", ()))
    named = {
        posixpath.relpath(shard, folder): size
        for shard, size in _sizes(system, pattern, root).items()
    }
    table = pa.table({name: pa.array(columns.get(name, ()), _COLUMNS.field(name).type)
                      for name in Place._fields})  # fmt: skip
    table = table.replace_schema_metadata({_SIZES: json.dumps(named)})
    index = _index_of(system, pattern)
    if is_local(system):
        with atomic_write(index) as partial:
            pq.write_table(table, partial)
    else:
        with system.open(index, "wb") as file:
            pq.write_table(table, file)
    return index


def tar_file(raw: BinaryIO, mode: Any) -> tarfile.TarFile:
    """A tar file that says so if it was cut, even between two of its files."""
    return tarfile.open(fileobj=raw, mode=mode, tarinfo=_Header)


class _Header(tarfile.TarInfo):
    """The header of a file in a shard, of which there is one more, of zeros, at the end: tarfile
    takes one that is cut between two files for whole."""

    crc = 0

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        if len(buf) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("unexpected end of data")
        header = super().frombuf(buf, encoding, errors)
        header.crc = zlib.crc32(buf)
        return header


def _scan(system: fsspec.AbstractFileSystem, shard: str) -> Iterator[Place]:
    """The files of one shard: of several of one name the last, as tar unpacks them; links stand for
    the files that they lead to."""
    found: dict[str, Place] = {}
    links: dict[str, str] = {}
    end = 0
    try:
        with opened(system, shard) as raw:
            with tar_file(raw, "r:") as tar:
                for member in tar:
                    tar.members = []  # type: ignore[attr-defined]  # it keeps every header
                    name, end = posixpath.normpath(member.name), member.offset_data
                    if member.issparse():
                        raise ValueError(f"{shard}: {name} is sparse; make the shard without -S")
                    if member.isreg():
                        assert isinstance(member, _Header)
                        found[name] = Place(name, shard, end, member.size, member.crc)
                        end += member.size
                    elif member.islnk() or member.issym():
                        above = posixpath.dirname(name) if member.issym() else ""
                        links[name] = posixpath.normpath(posixpath.join(above, member.linkname))
            _require_end(raw, -(-end // _HEADER) * _HEADER, shard)
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{shard} is cut or no tar file ({error}); fetch it again") from error
    yield from found.values()
    for name in links:
        target = _followed(name, links)
        if target in found:
            yield found[target]._replace(name=name)


def _followed(name: str, links: Mapping[str, str]) -> str:
    """What a link leads to in the end; for one that leads round in a circle some link in it."""
    passed = set[str]()
    while name in links and name not in passed:
        passed.add(name)
        name = links[name]
    return name


def _require_end(raw: BinaryIO, end: int, shard: str) -> None:
    """Raises ValueError unless only zeros follow: tarfile takes a header that is damaged, and
    another tar file behind the first, for the end."""
    raw.seek(end)
    while piece := raw.read(1 << 20):
        if piece.strip(b"\0"):
            raise ValueError(
                f"{shard} is damaged, or several tar files in one, at byte {end}; make it again"
            )


def _sizes(system: fsspec.AbstractFileSystem, pattern: str, root: str) -> dict[str, int]:
    """Path -> bytes of the shards, in the order of their names. A web server lists them without.

    Raises:
        FileNotFoundError: there are none. ValueError: they are compressed.
    """
    if pattern.lower().endswith(_COMPRESSED):
        raise ValueError(
            f"{root}: compressed shards can only be read from their beginning; unpack them to .tar"
        )
    found = listed(system, pattern)
    if not found:
        raise FileNotFoundError(
            f"{root}: there is no such shard; *.tar or {{000..146}}.tar names several"
        )
    return {
        path: system.info(path)["size"] if about["size"] is None else about["size"]
        for path, about in found.items()
    }


def _index_of(system: fsspec.AbstractFileSystem, pattern: str) -> str:
    return posixpath.join(folder_of(system, pattern), INDEX)


def _indexed(
    system: fsspec.AbstractFileSystem, pattern: str, sizes: Mapping[str, int], root: str
) -> Iterator[Place]:
    """What the index says of the shards that have these sizes."""
    folder, again = folder_of(system, pattern), f"make it again: {_MAKE} '{root}'"
    index = posixpath.join(folder, INDEX)
    try:
        with opened(system, index) as file:
            known, rows = _content_of(pq.read_table(file))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        if isinstance(error, OSError) and type(error) is not OSError:
            raise  # of the file system; pyarrow's own of damage are plain ones
        raise ValueError(f"{index} is damaged, or no index of shards; {again}") from error
    paths = {posixpath.relpath(path, folder): path for path in sizes}
    for name, path in paths.items():
        new = name not in known and is_local(system)
        if not new and known.get(name) != sizes[path]:
            raise ValueError(f"{index} is not of these files, {name} is another one; {again}")
        if new:
            yield from _scan(system, path)
    for name, shard, start, size, header in zip(*rows, strict=True):
        if shard in paths:
            if not 0 <= start - _HEADER <= start <= start + size <= known[shard]:
                raise ValueError(f"{index} is damaged: {name} is outside of {shard}; {again}")
            yield Place(name, paths[shard], start, size, header)


def _content_of(table: pa.Table) -> tuple[dict[str, int], list[list[Any]]]:
    """Bytes by shard, and the columns of an index.

    Raises:
        KeyError, ValueError: it is none.
    """
    known = foreign.parse_json((table.schema.metadata or {})[_SIZES].decode(), "sizes")
    columns = [table.column(field.name) for field in _COLUMNS]
    for column, field in zip(columns, _COLUMNS, strict=True):
        if column.type != field.type or column.null_count:
            raise ValueError(f"{field.name} is not what it should be")
    if not isinstance(known, dict):
        raise ValueError("no sizes")
    return known, [column.to_pylist() for column in columns]

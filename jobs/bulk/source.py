"""What is asked about millions of images: sources of four kinds, cut into blocks and read.

A block is small enough to be done again if it is lost, and says by itself what has to be read.
"""

import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from groundwork.dataset.words import is_blank, require_text
from groundwork.files import foreign
from groundwork.files.places import content_of, folder_of, listed, located, opened, reaching
from groundwork.files.safe import inside
from groundwork.files.shards import INDEX, tar_file
from groundwork.jobs.predict_input import parse_line, phrases_of

LIST, TABLE, SHARD, FOLDER = "list", "table", "shard", "folder"
_ENDINGS = {".jsonl": LIST, ".parquet": TABLE, ".tar": SHARD, ".tgz": SHARD, ".tar.gz": SHARD}
_TABLE_COLUMNS = ("image", "phrase", "phrases")


@dataclass(frozen=True)
class Block:
    """A part of a source: `files` of a folder; of one file of another kind `start` to `stop`, bytes
    of a list and rows of a table; `first`: number of its first line or row."""

    number: int
    files: tuple[str, ...]
    start: int = 0
    stop: int = 0
    first: int = 0


@dataclass(frozen=True)
class Source:
    """place: as it was given; kind: of LIST, TABLE, SHARD, FOLDER; phrases: asked about images that
    bring none; block: how many images are in a block, but for shards, each of which is one."""

    place: str
    kind: str
    phrases: tuple[str, ...]
    block: int


@dataclass(frozen=True)
class Asked:
    """An image and what is asked about it.

    name: of the image in what is written; source: its place, for messages; image: its content, or a
    path in the file system of the source.
    """

    name: str
    source: str
    phrases: tuple[str, ...]
    image: bytes | str


def source_of(place: str, phrases: tuple[str, ...], block: int) -> Source:
    """The source at a path or URL: a folder of images (with its sub-folders) or of files of another
    kind, a file, or several by a pattern with *.

    Raises:
        FileNotFoundError: there is nothing. PermissionError, Unreachable: as of `reaching`.
        ValueError: no kind that is known, or several, or a path that is not UTF-8.
    """
    if block < 1:
        raise ValueError(f"--block {block}: give how many images are done at a time, 1 or more")
    system, root = located(require_text(place, "the path"))
    with reaching(system, place):
        names = _names(system, root, place)
    kinds = {kind for name in names if (kind := _kind(name))}
    if FOLDER in kinds:  # what lies beside images, as predict.py's other sources
        kinds = {FOLDER}
    if not kinds:
        raise ValueError(f"{place} holds no image, list (.jsonl), table (.parquet) or shard (.tar)")
    if len(kinds) > 1:
        raise ValueError(f"{place} holds files of several kinds; name those of one, by *.tar or so")
    (kind,) = kinds
    if kind == FOLDER and not phrases:
        raise ValueError(
            f"{place}: there is no phrase; predict.py takes them after the source, a list, table or"
            " shard holds its own"
        )
    return Source(place, kind, phrases, block)


def blocks_of(source: Source) -> Iterator[Block]:
    """All blocks of a source, in an order that is always the same.

    Raises:
        ValueError: a file whose name is not UTF-8, or a table that is damaged.
    """
    system, root = located(source.place)
    with reaching(system, source.place):
        files = [
            require_text(name, "the name")
            for name in _names(system, root, source.place)
            if _kind(name) == source.kind
        ]
        for number, block in enumerate(_CUT[source.kind](system, files, source.block)):
            yield Block(number, *block)


def read_block(source: Source, block: Block) -> Iterator[Asked | str]:
    """What is asked in a block, in its order; a text says what cannot be asked."""
    system, root = located(source.place)
    with reaching(system, source.place):
        for one in _READ[source.kind](system, _folder(system, root), source, block):
            try:
                if isinstance(one, Asked):
                    require_text(one.name, "the name")
                yield one
            except ValueError as error:
                yield str(error)


def _names(system: fsspec.AbstractFileSystem, root: str, place: str) -> list[str]:
    if system.isdir(root):
        found = system.find(root)
    else:
        found = list(listed(system, root))
    if not found:
        raise FileNotFoundError(f"{place}: there is no such file, folder or pattern")
    return sorted(found)


def _kind(name: str) -> str | None:
    lower = PurePosixPath(name).name.lower()
    if lower == INDEX:  # of shards, for those who read them one by one
        return None
    for ending, kind in _ENDINGS.items():
        if lower.endswith(ending):
            return kind
    return FOLDER if _is_image(lower) else None


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in Image.registered_extensions()


def _folder(system: fsspec.AbstractFileSystem, root: str) -> str:
    """The folder that names of images are told from."""
    return root if system.isdir(root) else folder_of(system, root)


def _below(folder: str, path: str) -> str:
    return path.removeprefix(folder).lstrip("/")


# --- images that lie in a folder -----------------------------------------------------------------


def _cut_folder(
    _: fsspec.AbstractFileSystem, files: list[str], size: int
) -> Iterator[tuple[Any, ...]]:
    for start in range(0, len(files), size):
        yield (tuple(files[start : start + size]), 0, 0, start)


def _read_folder(
    _: fsspec.AbstractFileSystem, folder: str, source: Source, block: Block
) -> Iterator[Asked | str]:
    for path in block.files:
        yield Asked(_below(folder, path), path, source.phrases, path)


# --- lists: a JSON object a line -----------------------------------------------------------------


def _cut_lists(
    system: fsspec.AbstractFileSystem, files: list[str], size: int
) -> Iterator[tuple[Any, ...]]:
    for path in files:
        with opened(system, path) as file:
            start = first = 0
            while lines := list(islice(file, size)):
                stop = start + sum(map(len, lines))
                yield ((path,), start, stop, first + 1)
                start, first = stop, first + len(lines)


def _read_list(
    system: fsspec.AbstractFileSystem, _: str, source: Source, block: Block
) -> Iterator[Asked | str]:
    (path,) = block.files
    folder = str(PurePosixPath(path).parent)
    content = content_of(system, path, block.start, block.stop)
    for number, line in enumerate(content.split(b"\n"), block.first):
        place = f"{path}:{number}"
        if line.strip():
            try:
                image, own = parse_line(foreign.decode(line, place), place)
                if "://" not in image:
                    inside(image, f"{place}: image", "put the list above its images")
                    image_path = f"{folder}/{image}"
                else:
                    image_path = image
                yield Asked(image, place, _some(own or source.phrases, place), image_path)
            except ValueError as error:
                yield str(error)


# --- tables: Parquet with images or their paths --------------------------------------------------


def _cut_tables(
    system: fsspec.AbstractFileSystem, files: list[str], size: int
) -> Iterator[tuple[Any, ...]]:
    for path in files:
        with opened(system, path) as file:
            rows = _table_of(file, path).metadata.num_rows
        for start in range(0, rows, size):
            yield ((path,), start, min(start + size, rows), start)


def _table_of(file: BinaryIO, path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is cut or no Parquet file ({error}); fetch it again") from error


def _read_table(
    system: fsspec.AbstractFileSystem, folder: str, source: Source, block: Block
) -> Iterator[Asked | str]:
    (path,) = block.files
    with opened(system, path) as file:
        table = _table_of(file, path)
        columns = [name for name in _TABLE_COLUMNS if name in table.schema_arrow.names]
        try:
            for number, row in _rows(table, columns, block.start, block.stop):
                place, name = f"{path}: row {number}", f"{_below(folder, path)}:{number}"
                try:
                    yield _of_row(row, place, name, path, source.phrases)
                except ValueError as error:
                    yield str(error)
        except (pa.ArrowInvalid, OSError) as error:
            rows = f"rows {block.start} to {block.stop - 1}"
            yield f"{path} is damaged, what follows of {rows} is left out ({error}); fetch it again"


def _rows(
    table: pq.ParquetFile, columns: list[str], start: int, stop: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, row) of the rows from start to stop; only their row groups are read."""
    first = 0
    for group in range(table.metadata.num_row_groups):
        after = first + table.metadata.row_group(group).num_rows
        if first < stop and start < after:
            number = first
            for batch in table.iter_batches(64, row_groups=[group], columns=columns):
                if number + len(batch) > start and number < stop:
                    kept = batch.slice(max(0, start - number), min(stop - number, len(batch)))
                    yield from enumerate(kept.to_pylist(), max(start, number))
                number += len(batch)
        first = after


def _of_row(
    row: dict[str, Any], place: str, name: str, path: str, phrases: tuple[str, ...]
) -> Asked:
    """An image as its content, as a path or URL, or as the two in a struct {bytes, path}."""
    image, own = row.get("image"), phrases_of(row, place)
    if isinstance(image, dict):
        name = image.get("path") or name
        image = image.get("bytes") or image.get("path")
    elif isinstance(image, str):
        name = image
    if not isinstance(image, bytes | str):
        raise ValueError(f"{place}: column image holds no image and no path")
    if isinstance(image, str) and "://" not in image:
        inside(image, f"{place}: image", "put the table above its images")
        image = f"{PurePosixPath(path).parent}/{image}"
    return Asked(name, place, _some(own or phrases, place), image)


# --- shards: tar files as WebDataset has them ----------------------------------------------------


def _cut_shards(
    _: fsspec.AbstractFileSystem, files: list[str], size: int
) -> Iterator[tuple[Any, ...]]:
    del size  # a shard is read from its beginning, or not at all
    for path in files:
        yield ((path,),)


def _read_shard(
    system: fsspec.AbstractFileSystem, folder: str, source: Source, block: Block
) -> Iterator[Asked | str]:
    (path,) = block.files
    try:
        with opened(system, path) as raw, tar_file(raw, "r|*") as shard:
            for key, parts in _samples(shard):
                place = f"{path}/{key}"
                try:
                    yield _of_sample(parts, place, _below(folder, path), source.phrases)
                except ValueError as error:
                    yield str(error)
    except (tarfile.TarError, EOFError) as error:
        yield f"{path} is cut or no tar file, what follows is left out ({error}); fetch it again"


def _samples(shard: tarfile.TarFile) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, name -> content) of the files in a row that have a name up to the first dot."""
    key, parts = "", dict[str, bytes]()
    for member in shard:
        file = shard.extractfile(member) if member.isfile() else None
        if file is None:
            continue
        folder, _, name = member.name.rpartition("/")
        own = f"{folder}/{name.partition('.')[0]}".lstrip("/")
        if own != key and parts:
            yield key, parts
            parts = {}
        key, parts[member.name] = own, file.read()
    if parts:
        yield key, parts


def _of_sample(parts: dict[str, bytes], place: str, shard: str, phrases: tuple[str, ...]) -> Asked:
    """The image with the phrases of NAME.json, {"phrase": text} or {"phrases": [text, ...]}, and of
    NAME.txt, one a line."""
    images = [name for name in parts if _is_image(name)]
    if len(images) != 1:
        raise ValueError(f"{place}: {len(images)} images under one name; a sample has one")
    own: list[str] = []
    for name, content in parts.items():
        if name.lower().endswith(".json"):
            row = foreign.parse_json(foreign.decode(content, place), place)
            own += phrases_of(row if isinstance(row, dict) else {}, place)
        elif name.lower().endswith(".txt"):
            lines = foreign.decode(content, place).split("\n")
            own += [line.strip() for line in lines if not is_blank(line)]
    (image,) = images
    asked = tuple(dict.fromkeys(own)) or phrases
    return Asked(f"{shard}/{image}", place, _some(asked, place), parts[image])


def _some(phrases: Sequence[str], place: str) -> tuple[str, ...]:
    if not phrases:
        raise ValueError(f"{place}: there is no phrase; name one there")
    return tuple(phrases)


_Cut = Callable[[fsspec.AbstractFileSystem, list[str], int], Iterable[tuple[Any, ...]]]
_Read = Callable[[fsspec.AbstractFileSystem, str, Source, Block], Iterator[Asked | str]]
_CUT: dict[str, _Cut] = {
    FOLDER: _cut_folder, LIST: _cut_lists, TABLE: _cut_tables, SHARD: _cut_shards
}  # fmt: skip
_READ: dict[str, _Read] = {
    FOLDER: _read_folder, LIST: _read_list, TABLE: _read_table, SHARD: _read_shard
}  # fmt: skip

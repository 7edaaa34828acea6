"""Where the rows of blocks are kept: a folder of Parquet files on any file system.

Names that readers of Parquet folders pass over begin with `_`: what was asked (_begun.json), the
blocks of the source (_plan.parquet), and when all is done what cannot be used (_faults.txt) and the
manifest. Each block is a file of its own, whole or not there: one that was cut has no footer, and
is made again.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from groundwork.files import foreign
from groundwork.files.places import is_local, located, opened
from groundwork.files.safe import atomic_write
from groundwork.jobs.bulk.source import Block

BEGUN, PLAN, MANIFEST, FAULTS = "_begun.json", "_plan.parquet", "_manifest.json", "_faults.txt"
_PARTS = "part-*.parquet"
_TOLD = b"groundwork"
_AT_ONCE = 16


@dataclass(frozen=True)
class Done:
    """What became of a block: `images` that were asked about, `rows` that were written, `faults`:
    what is said of the images that could not be."""

    number: int
    images: int
    rows: int
    faults: tuple[str, ...]


class Store:
    """The folder at `place`, a path or URL. May be sent to other processes."""

    def __init__(self, place: str) -> None:
        self.place = place

    def begin(self, asked: Mapping[str, Any], blocks: Iterator[Block]) -> list[Block]:
        """The blocks of the call: those it began with, if it was begun before.

        Args:
            asked: what the rows depend on, as JSON. blocks: asked for if it is new.

        Raises:
            FileExistsError: the folder holds something else, or what another call left.
            ValueError: the source has no image at all.
        """
        text = json.dumps(asked, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        self._require_ours(json.loads(text))
        plan = self._path(PLAN)
        if self.fs.exists(plan):
            with opened(self.fs, plan) as file:
                return [
                    Block(**{**row, "files": tuple(row["files"])})
                    for row in pq.read_table(file).to_pylist()
                ]
        found = list(blocks)
        if not found:
            raise ValueError(f"{asked['source']} holds nothing that can be asked about")
        self.write_text(BEGUN, text)
        # Last: a plan is of the call that was begun here.
        self._write_table(PLAN, pa.Table.from_pylist([asdict(one) for one in found]))
        return found

    @property
    def fs(self) -> Any:
        """Its file system, of no type in fsspec."""
        return located(self.place)[0]

    @property
    def local(self) -> Path | None:
        """The folder, where it is one of this machine."""
        fs, root = located(self.place)
        return Path(root) if is_local(fs) else None

    def done(self, blocks: Sequence[Block], *, of: int | None = None) -> list[Done]:
        """Which of the blocks are there whole; `of`: how many there are in all."""
        known = {self._name(block, of or len(blocks)): block.number for block in blocks}
        names = [name for name in self._names() if name in known]
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            told = threads.map(self._told, names)
            found = zip(names, told, strict=True)
            return [Done(known[name], **one) for name, one in found if one is not None]

    def write(self, block: Block, of: int, table: pa.Table, done: Done) -> None:
        """A block, one `of` so many, under its name."""
        told = {"images": done.images, "rows": done.rows, "faults": done.faults}
        kept = table.replace_schema_metadata({_TOLD: json.dumps(told, ensure_ascii=False)})
        self._write_table(self._name(block, of), kept)

    def tables(self) -> Iterator[pa.Table]:
        """The rows of all blocks that are there, one block after the other."""
        for path in sorted(self.fs.glob(self._path(_PARTS))):
            with opened(self.fs, path) as file:
                yield pq.read_table(file)

    def write_text(self, name: str, text: str) -> None:
        """A text file of the folder."""
        with self.writing(name) as partial:
            partial.write_bytes(text.encode())

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A path to write a file of the folder to, which appears there whole."""
        if self.local is not None:
            with atomic_write(self.local / name) as partial:
                yield partial
        else:
            with tempfile.TemporaryDirectory(prefix="groundwork") as folder:
                yield Path(folder, name)
                self.fs.put_file(str(Path(folder, name)), self._path(name))

    def _require_ours(self, asked: Mapping[str, Any]) -> None:
        if not self.fs.exists(self._path("")):
            self.fs.makedirs(self._path(""), exist_ok=True)
            return
        left = [name for name in self._names() if not name.startswith(".")]
        if not left:
            return
        if BEGUN not in left:
            raise FileExistsError(f"{self.place} is not empty; choose another folder")
        text = foreign.decode(self.fs.cat_file(self._path(BEGUN)), BEGUN)
        begun = foreign.parse_json(text, f"{self.place}/{BEGUN}", "choose another folder")
        other = [key for key in {**begun, **asked} if begun.get(key) != asked.get(key)]
        if other and not any(PurePath(name).match(_PARTS) for name in left):
            # Nothing came of it, such as for want of a configuration.
            self.fs.rm(self._path(BEGUN))
            if PLAN in left:
                self.fs.rm(self._path(PLAN))
        elif other:
            raise FileExistsError(
                f"{self.place} was begun with other {', '.join(sorted(other))} (see {BEGUN});"
                " start that command again, or choose another folder"
            )

    def _names(self) -> list[str]:
        """Of the files of the folder."""
        root = self._path("")
        self.fs.invalidate_cache(root)  # others write there, too
        return [Path(path).name for path in self.fs.ls(root, detail=False)]

    def _told(self, name: str) -> dict[str, Any] | None:
        """What a block's footer says; None if it was cut."""
        try:
            with opened(self.fs, self._path(name)) as file:
                metadata = pq.read_schema(file).metadata or {}
        except (pa.ArrowInvalid, FileNotFoundError):
            return None
        told = json.loads(metadata[_TOLD])
        return {**told, "faults": tuple(told["faults"])}

    def _write_table(self, name: str, table: pa.Table) -> None:
        with self.writing(name) as partial:
            pq.write_table(table, partial, compression="zstd")

    def _path(self, name: str) -> str:
        return f"{located(self.place)[1].rstrip('/')}/{name}".rstrip("/")

    @staticmethod
    def _name(block: Block, of: int) -> str:
        return _PARTS.replace("*", f"{block.number:06d}-of-{of:06d}")

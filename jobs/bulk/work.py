"""The rows of a block: read, asked, answered. The same function on one machine and on a cluster."""

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import pyarrow as pa

from groundwork.dataset.images import CorruptImageError
from groundwork.files.places import content_of, is_local, located
from groundwork.jobs.bulk.source import Asked, Block, Source, read_block
from groundwork.jobs.bulk.store import Done, Store
from groundwork.jobs.grounder import Grounder
from groundwork.jobs.session import Session

In = TypeVar("In")
Out = TypeVar("Out")
_READERS, _AHEAD = 8, 32


Seen = tuple[Asked, Sequence[Session]]
"""What is asked about an image, and the image as each of the systems takes it."""


class Answerer(Protocol):
    """Systems that are loaded, and the rows that are made of what they find."""

    schema: ClassVar[pa.Schema]
    grounders: Sequence[Grounder]

    def rows(self, seen: Sequence[Seen]) -> list[dict[str, Any]]:
        """The rows about some images, by the schema.

        Raises:
            ValueError: a phrase without a word.
        """


class Job(Protocol):
    """What a worker loads its systems from, once; it is sent to other machines."""

    def load(self) -> Answerer:
        """The systems on the device of this process."""

    def identity(self) -> dict[str, Any]:
        """What its rows depend on, as JSON."""


@dataclass(frozen=True)
class Rows:
    """A block that is answered, and what is to be told of it."""

    table: pa.Table
    done: Done


@dataclass(frozen=True)
class Work:
    """What makes blocks, anywhere. blocks: how many there are in all; strict, at_once: see
    `rows_of_block`; folder: that relative paths are told from."""

    job: Job
    source: Source
    store: Store
    blocks: int
    strict: bool
    at_once: int
    folder: str = field(default_factory=os.getcwd)

    def do(self, answerer: Answerer, block: Block) -> Done:
        """Make a block and keep it; `answerer`: of the job."""
        made = rows_of_block(answerer, self.source, block, strict=self.strict, at_once=self.at_once)
        self.store.write(block, self.blocks, made.table, made.done)
        return made.done


def rows_of_block(
    answerer: Answerer, source: Source, block: Block, *, strict: bool, at_once: int = 1
) -> Rows:
    """Ask everything of a block.

    Args:
        strict: the first image that cannot be used is an error.
        at_once: how many images are asked about together, see `session.ground_together`.

    Raises:
        ValueError, FileNotFoundError: that one.
    """
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    images = 0
    with tempfile.TemporaryDirectory(prefix="groundwork") as folder:
        look = _Look(answerer.grounders, source, Path(folder))
        futures = _ahead(look, read_block(source, block))
        while some := list(islice(futures, at_once)):
            seen = []
            for future in some:
                try:
                    seen.append(future.result())
                except (ValueError, FileNotFoundError) as error:
                    if strict:
                        raise
                    faults.append(str(error))
            before = len(faults)
            rows += _answered(answerer, seen, faults, strict)
            images += len(seen) - (len(faults) - before)
    table = pa.Table.from_pylist(rows, answerer.schema)
    return Rows(table, Done(block.number, images, len(rows), tuple(faults)))


def _answered(
    answerer: Answerer, seen: Sequence[Seen], faults: list[str], strict: bool
) -> list[dict[str, Any]]:
    """The rows about images; those with a phrase that cannot be asked are left out."""
    try:
        return answerer.rows(seen)
    except ValueError as error:
        if len(seen) > 1:  # which of them it is shows when each is asked by itself
            return [row for one in seen for row in _answered(answerer, [one], faults, strict)]
        message = f"{seen[0][0].source}: {error}"
        if strict:
            raise ValueError(message) from error
        faults.append(message)
        return []


class _Look:
    """Images as the systems take them, of files anywhere."""

    def __init__(self, grounders: Sequence[Grounder], source: Source, folder: Path) -> None:
        self.grounders, self.folder = grounders, folder
        self.system = located(source.place)[0]

    def __call__(self, asked: Asked | str) -> Seen:
        """With one session per system.

        Raises:
            ValueError: it cannot be asked or decoded. FileNotFoundError: it does not exist.
        """
        if isinstance(asked, str):
            raise ValueError(asked)
        with self._file(asked) as path:
            try:
                return asked, [grounder.look(path) for grounder in self.grounders]
            except (CorruptImageError, FileNotFoundError) as error:
                # By its own name, not that of a copy.
                said = str(error).replace(str(path), asked.name)
                raise type(error)(f"{asked.source}: {said}") from error

    @contextmanager
    def _file(self, asked: Asked) -> Iterator[Path]:
        """The image as a file, which openers need: its own, or a copy that goes away."""
        content = asked.image
        if isinstance(content, str):
            place = content
            try:
                system, path = located(place) if "://" in place else (self.system, place)
                content = path if is_local(system) else content_of(system, path)
            except FileNotFoundError:
                raise FileNotFoundError(f"{asked.source}: image {path} does not exist") from None
            except (ValueError, PermissionError) as error:
                raise ValueError(f"{asked.source}: image {place}: {error}") from error
            if isinstance(content, str):
                yield Path(content)
                return
        with tempfile.NamedTemporaryFile(dir=self.folder) as file:
            file.write(content)
            file.flush()
            yield Path(file.name)


def _ahead(function: Callable[[In], Out], values: Iterable[In]) -> Iterator[Future[Out]]:
    """Of each value in its order; those that follow are under way meanwhile."""
    with ThreadPoolExecutor(_READERS) as threads:
        waiting: deque[Future[Out]] = deque()
        for value in values:
            waiting.append(threads.submit(function, value))
            if len(waiting) >= _AHEAD:
                yield waiting.popleft()
        yield from waiting

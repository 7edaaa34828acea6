"""Files anywhere: a path of this machine, or a URL of any file system that fsspec knows."""

import contextlib
import os
import posixpath
from collections.abc import Iterator
from typing import Any, BinaryIO

import fsspec
from braceexpand import braceexpand
from fsspec.core import has_magic, url_to_fs
from fsspec.implementations.local import LocalFileSystem

# Of HTTP, those that are about the file, not about the server's day.
_REFUSED = (400, 401, 402, 403, 410, 414, 451)


class Unreachable(Exception):
    """A server that does not give a file now, and may later."""


def located(place: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a path or URL, and what it calls the place; absolute on this machine.

    Raises:
        ValueError: no such kind of URL, or its package is not installed.
    """
    try:
        return url_to_fs(place)
    except ImportError as error:
        raise ValueError(f"{place}: {error}; it is the package that reads such URLs") from error
    except ValueError as error:
        raise ValueError(f"{place} is no path and no URL that fsspec knows ({error})") from error


def is_local(system: fsspec.AbstractFileSystem) -> bool:
    """Are its files those of this machine?"""
    return isinstance(system, LocalFileSystem)


def listed(system: fsspec.AbstractFileSystem, pattern: str) -> dict[str, dict[str, Any]]:
    """Every file that a pattern means, in the order of their names, and what the file system says
    of it; none if there is none.

    `*`, `?` and `[...]` mean those that are there, as in a shell; `{a,b}` and `{000..146}` each of
    them, which a web server that lists no folder can be asked for, too. A file whose own name is
    the pattern is that file.

    Raises:
        FileNotFoundError: one that braces name is not there.
        ValueError: braces that are not closed.
    """
    found: dict[str, dict[str, Any]] = {}
    for one in _alternatives(system, pattern):
        hits = system.glob(one, detail=True) if has_magic(one) else {}
        if not hits and (about := _file(system, one)):
            hits = {one: about}
        if not hits and one != pattern:
            raise FileNotFoundError(f"{one}, which {pattern} names, does not exist")
        found |= hits
    return dict(sorted(found.items()))


def folder_of(system: fsspec.AbstractFileSystem, pattern: str) -> str:
    """The folder above all files that a pattern can mean."""
    folders = []
    for one in _alternatives(system, pattern):
        parts = posixpath.dirname(one).split("/")
        fixed = next((n for n, part in enumerate(parts) if has_magic(part)), len(parts))
        folders.append(parts[:fixed])
    return "/".join(os.path.commonprefix(folders))


def _file(system: fsspec.AbstractFileSystem, path: str) -> dict[str, Any] | None:
    """What is known of a file, None without one; a server's other errors stay errors."""
    try:
        about: dict[str, Any] = system.info(path)
    except FileNotFoundError:
        return None
    return about if about["type"] == "file" else None


def _alternatives(system: fsspec.AbstractFileSystem, pattern: str) -> list[str]:
    """The patterns without braces that one with braces stands for; names on this machine that
    have the braces themselves go first."""
    if "{" not in pattern or (
        is_local(system) and (system.glob(pattern) or _file(system, pattern))
    ):
        return [pattern]
    try:
        return list(braceexpand(pattern, escape=False))
    except ValueError as error:
        raise ValueError(f"{pattern}: {error}; close the braces, or use *") from error


def opened(system: fsspec.AbstractFileSystem, path: str) -> BinaryIO:
    """A file to be read, with seeking."""
    file: Any = system.open(path, "rb")  # of no type in fsspec
    return file


def content_of(
    system: fsspec.AbstractFileSystem, path: str, start: int | None = None, stop: int | None = None
) -> bytes:
    """The bytes of a file, of a part of it.

    Raises:
        FileNotFoundError: there is none. PermissionError: the server refuses it.
        Unreachable: another error of the server, or none answers.
    """
    with reaching(system, path):
        content: bytes = system.cat_file(path, start, stop)
    return content


@contextlib.contextmanager
def reaching(system: fsspec.AbstractFileSystem, place: str) -> Iterator[None]:
    """Around what asks a server, whose errors are those of the package that asks it; nothing for
    files of this machine.

    Raises:
        PermissionError: the server refuses it. Unreachable: another error of the package, or of the
            network. Errors of files, and Python's own, which no package means a server by, as they
            are.
    """
    try:
        yield
    except (FileNotFoundError, PermissionError, Unreachable):
        raise
    except Exception as error:
        own = type(error).__module__ == "builtins" and not isinstance(error, OSError)
        if is_local(system) or own or isinstance(error, ValueError):
            raise
        status = getattr(error, "status", None)
        if status in _REFUSED:
            raise PermissionError(f"{place} is refused by its server ({status})") from error
        raise Unreachable(
            f"{place} cannot be read now ({error}); start the same command again later, it goes on"
        ) from error

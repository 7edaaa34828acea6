"""Files anywhere: a path of this machine, or a URL of any file system that fsspec knows."""

from typing import Any, BinaryIO

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from groundwork.jobs import Unreachable

# Of HTTP, those that are about the file, not about the server's day.
_REFUSED = (400, 401, 402, 403, 410, 414, 451)


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
    try:
        content: bytes = system.cat_file(path, start, stop)
    except (FileNotFoundError, PermissionError, ValueError):
        raise
    except Exception as error:  # every package behind fsspec has errors of its own
        status = getattr(error, "status", None)
        if status in _REFUSED:
            raise PermissionError(f"{path} is refused by its server ({status})") from error
        raise Unreachable(
            f"{path} cannot be read now ({error}); start the same command again later, it goes on"
        ) from error
    return content

"""Files anywhere: a path of this machine, or a URL of any file system that fsspec knows."""

from typing import Any, BinaryIO

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem


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

"""Objectives, systems and benchmarks from outside, which put themselves into the registries:
`models.SYSTEMS`, `models.albef.config.OBJECTIVES`, `benchmarks.BENCHMARKS`,
`dataset.sources.SOURCES`.
"""

import hashlib
import importlib
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

from groundwork.benchmarks import BENCHMARKS
from groundwork.dataset.sources import SOURCES
from groundwork.models import SYSTEMS
from groundwork.models.albef.config import OBJECTIVES

GROUP = "groundwork.plugins"
"""The entry points that are loaded whenever a job starts."""
REGISTRIES: dict[str, dict[str, Any]] = {
    "SYSTEMS": SYSTEMS,
    "OBJECTIVES": OBJECTIVES,
    "BENCHMARKS": BENCHMARKS,
    "SOURCES": SOURCES,
}


def load(names: Iterable[str] = ()) -> None:
    """Import what installed packages offer as entry points, then the named folders and modules.

    Args:
        names: a folder, of which every Python file is imported, as parts of one package; or a
            module that can be imported.

    Raises:
        ValueError: neither a folder with Python files nor a module; one that cannot be imported, or
            that takes a name which is taken.
    """
    for point in entry_points(group=GROUP):
        with _adding(f"entry point {point.value}"):
            point.load()
    for name in names:
        _load(name)


def _load(name: str) -> None:
    path = Path(name)
    if path.is_dir():
        _load_folder(path.resolve(), f"--plugin {name}")
        return
    if path.is_file():
        raise ValueError(f"--plugin {name}: is a file; give its folder, {path.parent}")
    with _adding(f"--plugin {name}"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if f"{name}.".startswith(f"{error.name}."):
                raise _NoPluginError(
                    f"no folder, and no module that can be imported ({error})"
                ) from error
            raise


def _load_folder(folder: Path, what: str) -> None:
    files = sorted(folder.glob("*.py"))
    if not files:
        raise ValueError(f"{what}: there is no Python file in the folder; give the one that has it")
    # Two folders of one name are two packages.
    place = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    package = f"groundwork_plugin_{re.sub(r'[^0-9A-Za-z_]', '_', folder.name)}_{place}"
    if package not in sys.modules:
        spec = ModuleSpec(package, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        sys.modules[package] = module_from_spec(spec)
    for file in files:
        with _adding(f"{what}: {file.name}"):
            importlib.import_module(f"{package}.{file.stem}")


class _NoPluginError(Exception):
    """There is nothing to be loaded; the message says what was looked for."""


@contextmanager
def _adding(what: str) -> Iterator[None]:
    """Whatever goes wrong in foreign code is said in a sentence, and it only adds to registries."""
    before = {name: dict(registry) for name, registry in REGISTRIES.items()}
    try:
        yield
    except _NoPluginError as error:
        raise ValueError(f"{what}: {error}") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"{what} cannot be loaded: {_said(error)}; mend it there") from error
    for name, entries in before.items():
        registry = REGISTRIES[name]
        for key in [key for key, entry in entries.items() if registry.get(key) is not entry]:
            registry.update(entries)
            raise ValueError(f"{what}: {name}[{key!r}] is taken already; choose another name")


def _said(error: BaseException) -> str:
    """Kind and message of an error, with the line where it came up, in one line."""
    if isinstance(error, SyntaxError):
        return f"{error.msg} (line {error.lineno})"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({Path(frame.filename).name}, line {frame.lineno})"

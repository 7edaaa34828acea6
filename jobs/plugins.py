"""Objectives, systems and benchmarks from outside, which put themselves into the registries:
`models.SYSTEMS`, `models.albef.config.OBJECTIVES`, `benchmarks.BENCHMARKS`,
`dataset.sources.SOURCES`.
"""

import importlib
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from importlib.util import module_from_spec
from pathlib import Path

GROUP = "groundwork.plugins"
"""The entry points that are loaded whenever a job starts."""


def load(names: Iterable[str] = ()) -> None:
    """Import what installed packages offer as entry points, then the named folders and modules.

    Args:
        names: a folder, of which every Python file is imported, as parts of one package; or a
            module that can be imported.

    Raises:
        ValueError: neither a folder nor a module.
    """
    for point in entry_points(group=GROUP):
        point.load()
    for name in names:
        if Path(name).is_dir():
            _load_folder(Path(name).resolve())
            continue
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"--plugin {name}: no folder, and no module that can be imported ({error})"
            ) from error


def _load_folder(folder: Path) -> None:
    package = f"groundwork_plugin_{folder.name}"
    if package not in sys.modules:
        spec = ModuleSpec(package, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        sys.modules[package] = module_from_spec(spec)
    for file in sorted(folder.glob("*.py")):
        importlib.import_module(f"{package}.{file.stem}")

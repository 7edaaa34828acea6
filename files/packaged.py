"""Files by path, or inside an installed package."""

import importlib.util
from pathlib import Path

PREFIX = "package:"


def packaged_file(name: str) -> Path:
    """The path of a file or folder; "package:NAME/FILE" is FILE in the installed package NAME,
    which is not imported.

    Raises:
        FileNotFoundError: the package is not installed, or has no such file.
    """
    if not name.startswith(PREFIX):
        return Path(name)
    package, _, inside = name.removeprefix(PREFIX).partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None:
        raise FileNotFoundError(f"{name}: no package {package!r} is installed; see README, Photos")
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, inside)
        if path.exists():
            return path
    raise FileNotFoundError(f"{name}: the package {package} has no {inside}")

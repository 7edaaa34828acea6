"""The manifest of a run: command, configuration, code, versions and data."""

import contextlib
import hashlib
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from groundwork.files.safe import write_text
from groundwork.utils import is_main, world_size

_MEBIBYTE = 1 << 20
_PACKAGES = (
    "torch", "torchvision", "timm", "transformers", "numpy", "pillow", "opencv-python-headless",
    "pyarrow",
)  # fmt: skip


def write_manifest(
    folder: str | Path,
    config: Any,
    *,
    seed: int,
    data: Mapping[str, Mapping[str, Any]],
    name: str = "manifest.json",
    **rules: str,
) -> Path:
    """Writes what is needed to repeat a run to `folder`/`name` (process 0 only): the same text for
    the same code, data and command on any machine, apart from versions.

    Args:
        config: the merged configuration as plain dicts (`settings.to_dict`).
        seed: before the rank is added.
        data: fingerprints of the files that were read (`reading`, `fingerprints`), which tell a
            changed data set from the same one.
        name: of the file, another one for every job in a folder.
        rules: what the numbers depend on and no configuration can change, by name.
    """
    path = Path(folder) / name
    if is_main():
        state = run_state()
        manifest = {
            "command": state.pop("command"),
            "config": config,
            "seed": seed,
            "rules": rules,
            "world_size": world_size(),
            **state,
            "data": data,
        }
        write_text(path, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    return path


def run_state() -> dict[str, Any]:
    """What every manifest has: the command and the code that carries it out."""
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return {"command": command, "git": git_state(), "versions": versions()}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_state() -> dict[str, Any]:
    """Commit of this code and whether files differ from it; "unknown" outside a git checkout."""
    root = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return {"commit": "unknown", "dirty": None}
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "unknown", "dirty": None}


@contextlib.contextmanager
def reading(files: Iterable[str | Path]) -> Iterator[dict[str, dict[str, Any]]]:
    """Around the reading of annotation files: gives their fingerprints.

    Raises:
        ValueError: one was changed within the block; who knows which half was read.
    """
    files = list(files)
    before = fingerprints(file for file in files if Path(file).is_file())  # readers name the others
    yield before
    after = fingerprints(files)
    changed = [file for file, found in after.items() if found != before.get(file)]
    if changed:
        raise ValueError(
            f"{', '.join(changed)} changed while it was read; when it is complete, start the same"
            " command again"
        )


def fingerprints(files: Iterable[str | Path]) -> dict[str, dict[str, Any]]:
    """The `fingerprint` of each file, by its path."""
    return {str(file): fingerprint(file) for file in files}


def fingerprint(path: str | Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of the first and last MiB of a file, which must exist: cheap."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such annotation file; check the paths in the config")
    size, digest = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(_MEBIBYTE))
        file.seek(max(0, size - _MEBIBYTE))
        digest.update(file.read(_MEBIBYTE))
    return {"bytes": size, "sha256_of_ends": digest.hexdigest()}

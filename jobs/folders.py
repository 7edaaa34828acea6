"""Where a script writes if it is not told: a folder per configuration, so that runs do not meet."""

import os
from collections.abc import Collection
from pathlib import Path

from groundwork.settings.load import shipped

RUNS = Path("runs")
RESULTS = "results"
OUTPUT_HELP = "receives checkpoints and logs (runs/CONFIGURATION)"
RESULTS_HELP = f"receives the results (runs/CONFIGURATION/{RESULTS})"
_CONFIGS = "configs"


def run_folder(config: str | Path) -> Path:
    """The folder of the run of a configuration: configs/reftr/refcoco.yaml, also as reftr/refcoco,
    -> runs/reftr/refcoco; of a configuration that is not below a folder `configs` its bare name."""
    file = Path(config) if Path(config).is_file() else shipped(config) or Path(config)
    parts = file.with_suffix("").parts
    if _CONFIGS in parts[:-1]:
        below = parts[::-1].index(_CONFIGS)
        return RUNS.joinpath(*parts[-below:])
    return RUNS / parts[-1]


def results_folder(config: str | Path) -> Path:
    """The folder of the evaluations of a configuration, in that of its run."""
    return run_folder(config) / RESULTS


def require_writable(folder: Path) -> None:
    """Raises ValueError where a job cannot write, which is said before it computes."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise ValueError(f"{folder} cannot be a folder: {there} is a file; name another one")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{folder}: {there} may not be written to; name another folder")


def names_apart(files: Collection[Path]) -> dict[Path, str]:
    """By which name results speak of each file: its own, and of those that share it with others
    after the folder that tells them apart (a/run/x.pth, b/run/x.pth -> a/x.pth, b/x.pth), or where
    that is not enough after all of the path from there on."""
    parts = {file: file.absolute().parts for file in files}
    tails = {own: _tail(own, set(parts.values()) - {own}) for own in parts.values()}
    short = {own: "/".join(dict.fromkeys((tail[0], tail[-1]))) for own, tail in tails.items()}
    enough = len(set(short.values())) == len(short)
    return {file: short[own] if enough else "/".join(tails[own]) for file, own in parts.items()}


def _tail(own: tuple[str, ...], others: Collection[tuple[str, ...]]) -> tuple[str, ...]:
    """The shortest end of a path that no other path has."""
    lengths = (n for n in range(1, len(own)) if all(one[-n:] != own[-n:] for one in others))
    return own[-next(lengths, len(own)) :]

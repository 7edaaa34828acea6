"""The systems that predict.py and demo.py ask: any checkpoints, under names of their own."""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from groundwork.jobs.folders import RUNS
from groundwork.jobs.grounder import Grounder

QUICKSTART = RUNS / "quickstart" / "b_amc" / "b_amc.pth"
SHIPPED = Path(__file__).resolve().parents[1] / "checkpoints" / "quickstart_amc"
UNASKED = "This is the small model of the quick start, which knows drawn shapes only."
"""What is said where no checkpoint is given, see `checkpoints_of`."""


@dataclass(frozen=True)
class System:
    """A checkpoint that is asked. key: its name in file names; name: for people."""

    key: str
    name: str
    grounder: Grounder


def add_system_arguments(parser: argparse.ArgumentParser) -> None:
    """What says which systems are asked: of `checkpoints_of` and `load_systems`."""
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        help=f"files or saved folders of any system ({QUICKSTART}, or else {SHIPPED.name})",
    )
    parser.add_argument(
        "--config", nargs="+", help="of files without one: one for all, or one per checkpoint"
    )
    parser.add_argument("--tokenizer", help="hub name, folder, or vocab.txt")
    parser.add_argument("--data", help="root of the data, for configurations that need it")
    parser.add_argument("--device", help="cuda, cuda:1, cpu; default: cuda if there is one")
    parser.add_argument("--plugin", nargs="+", default=[], metavar="FOLDER", help="own systems")


def load_systems(checkpoints: Sequence[Path], args: argparse.Namespace) -> list[System]:
    """The checkpoints, each under a name of its own.

    Raises:
        FileNotFoundError, ValueError: see `Grounder.load`; or another number of configurations.
    """
    configs = args.config or [None]
    if len(configs) not in (1, len(checkpoints)):
        raise ValueError(
            f"--config: {len(configs)} for {len(checkpoints)} checkpoints; give one, or one of each"
        )
    configs = configs * (1 if len(configs) > 1 else len(checkpoints))
    systems = []
    for key, file, config in zip(_keys(checkpoints), checkpoints, configs, strict=True):
        grounder = Grounder.load(
            file, device=args.device, config=config, tokenizer=args.tokenizer, data=args.data
        )
        systems.append(System(key, f"{grounder.about.title} ({key})", grounder))
    return systems


def checkpoints_of(given: Sequence[str] | None) -> list[Path]:
    """The files that are named, each once; without one the quick start's, or that which ships."""
    own = QUICKSTART if QUICKSTART.is_file() else SHIPPED
    files = [own] if given is None else list(map(Path, given))
    return list({file.resolve(): file for file in files}.values())


def _keys(checkpoints: Sequence[Path]) -> list[str]:
    """Names that tell the files apart: theirs, with that of the folder where they have the same,
    with a number where that is not enough, either."""
    # A link has a name of its own; of "." and ".." it is that of the folder.
    files = [file if file.name not in ("", "..") else file.resolve() for file in checkpoints]
    for names in (
        [file.stem for file in files],
        [f"{file.absolute().parent.name}_{file.stem}" for file in files],
    ):
        if max(Counter(names).values()) == 1:
            return names
    return [f"{file.stem}_{number}" for number, file in enumerate(files, 1)]

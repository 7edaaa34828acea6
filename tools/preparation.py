"""What the tools/prepare_*.py share: arguments, files written once, counts beside published ones.

A preparation reads the owners' files below --raw and writes ours below --out. It is idempotent: a
file that an earlier run wrote from the same input is kept, and a run in which every file is there
reads nothing but sizes and dates. It is resumable: a file appears whole or not at all, and is noted
in `.prepared-<name>.json` as soon as it is there. With --dry-run everything is read and counted and
nothing is written.
"""

import argparse
import hashlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from groundwork.dataset.trees import TreeList
from groundwork.files.safe import atomic_write, remove_partial, write_text

# Part of every note: raise it when a tool writes other files from the same input.
_VERSION = 1


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with --raw, --out, --dry-run and --again."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--raw", type=Path, required=True, help="folder of the owners' files")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--dry-run", action="store_true", help="read and count, write nothing")
    parser.add_argument("--again", action="store_true", help="write what is there already, too")
    return parser


def progress(items: Iterable[Any], *, unit: str, what: str, total: int | None = None) -> tqdm:
    """A progress bar over `items` on standard error."""
    return tqdm(items, unit=f" {unit}", desc=what, total=total, mininterval=0.5)


def stamp(paths: Iterable[Path], options: Mapping[str, Any]) -> str:
    """A digest of names, sizes and dates of the input files, and of what was asked for.

    A folder stands for the files in it.
    """
    digest = hashlib.sha256(f"{_VERSION} {sorted(options.items())}".encode())
    for path in paths:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in files:
            status = file.stat()
            digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


class Outputs:
    """The files of one preparation, below --out or at their places in another tree.

    Args:
        args: of `make_parser`; a dry run writes nothing, one with --again keeps nothing.
        name: of the preparation; its note is `.prepared-<name>.json` in --out. title: of the data.
        sources, options: what the files follow from, see `stamp`; if that has changed since they
            were noted, they are written anew.
        folder: what --out is called below the root of the data; "": it is the root.
        commands: what comes next, see `print_next`.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        name: str,
        title: str,
        sources: Iterable[Path],
        options: Mapping[str, Any] | None = None,
        *,
        folder: str = "",
        commands: Sequence[str] = (),
    ) -> None:
        self.folder, self.dry_run = args.out, args.dry_run
        self._args, self._title, self._next = args, title, (folder, commands)
        self._note = self.folder / f".prepared-{name}.json"
        self._key = stamp(sources, options or {})
        self._noted: dict[str, int] = {}
        self._summary = ""
        self._report: list[str] = []
        if self._note.is_file() and not args.again:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            if note.get("key") == self._key:
                self._noted, self._summary = dict(note["files"]), note["summary"]

    def finished(self) -> bool:
        """Whether an earlier run wrote every file from this input; its summary is then printed."""
        if self.dry_run or not self._summary or not all(map(self._is_there, self._noted)):
            return False
        print(f"{self.folder}: nothing to do for {self._title}, every file is there")
        print(self._summary)
        print_next(self._args, *self._next)
        return True

    def _is_there(self, name: str) -> bool:
        """Whether an earlier run wrote this file from the same input, and nobody changed its
        size."""
        path = self.folder / name
        if name.endswith("/") and path.is_dir():
            files = [file for file in path.iterdir() if file.name[0] != "."]
            return len(files) == self._noted[name]
        return name in self._noted and path.is_file() and path.stat().st_size == self._noted[name]

    def write_folder(self, name: str, files: Mapping[str, Callable[[Path], object]]) -> None:
        """Have each of `files` (name -> what writes it) in the folder `name`; those that an earlier
        run wrote there from the same input are kept."""
        if self.dry_run:
            self._report.append(f"  (would write) {name}/: {len(files):,} files")
            return
        begun = f"{name}/" in self._noted
        if not begun:
            # Those of another input, or the run that goes on after this one would keep them.
            for file in files:
                (self.folder / name / file).unlink(missing_ok=True)
        self._noted[f"{name}/"] = len(files)
        self._save("")
        for file, write in progress(files.items(), unit="files", what=name):
            path = self.folder / name / file
            if not (begun and path.is_file()):
                path.parent.mkdir(parents=True, exist_ok=True)
                # Not synced to the disk one by one: there are tens of thousands.
                partial = path.with_name(f".{file}.partial")
                write(partial)
                partial.replace(path)
        self._report.append(f"  complete {name}/: {len(files):,} files")

    def write(self, name: str, write: Callable[[Path], object]) -> None:
        """Have `write(path)` write a file, unless it is there or this is a dry run."""
        if self._is_there(name):
            self._report.append(f"  kept     {name}")
            return
        if self.dry_run:
            self._report.append(f"  (would write) {name}")
            return
        path = self.folder / name
        remove_partial(path.parent, path.name)
        with atomic_write(path) as partial:
            write(partial)
        self._noted[name] = path.stat().st_size
        self._save("")
        self._report.append(f"  written  {name}")

    def write_list(self, one: TreeList, tree: Path | None = None) -> int:
        """Write a list, below another root if `tree` names one.

        Returns:
            How many phrases the file holds, read back (in a dry run: would hold).
        """
        name = one.name if tree is None else os.path.relpath(tree / one.name, self.folder)
        self.write(name, lambda path: one.write(one.records, path))
        found = one.records if self.dry_run else one.read(self.folder / name)
        return sum(len(record.phrases) for record in found)

    def close(self, *summary: str) -> None:
        """Print what was written, the lines of the summary and the commands that come next."""
        if not self.dry_run:
            self._save("\n".join(summary))
        sys.stdout.write("\n".join([f"{self.folder}:", *self._report, *summary, ""]))
        print_next(self._args, *self._next)

    def _save(self, summary: str) -> None:
        note = {"key": self._key, "files": self._noted, "summary": summary}
        write_text(self._note, json.dumps(note, indent=1, ensure_ascii=False))


def need_files(folder: Path, names: Sequence[str], source: str) -> list[Path]:
    """The files of these names below `folder`.

    Raises:
        FileNotFoundError: naming all that are missing and where they come from.
    """
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}; {source} publishes them (--raw is the folder"
            " that holds them)"
        )
    return [folder / name for name in names]


def print_next(args: argparse.Namespace, folder: str, commands: Sequence[str]) -> None:
    """Print the commands that come next, but for a dry run.

    Args:
        folder: as for `Outputs`.
        commands: with {data} where `--data ROOT` stands and {out} for --out.
    """
    if args.dry_run or not commands:
        return
    data = f"--data {shlex.quote(str(args.out.parent if folder else args.out))}"
    lines = [command.format(data=data, out=shlex.quote(str(args.out))) for command in commands]
    print("\n".join(["next:", *(f"  python -m tools.{line}" for line in lines)]))
    if folder and args.out.absolute().name != folder:
        print(f"  (--data finds these files where they are in a folder {folder!r})")


def counts_table(
    title: str, counted: Mapping[str, int], published: Mapping[str, int | None]
) -> str:
    """Counts beside the published ones, and a loud line for each that differs.

    Args:
        counted: what -> how many. published: the same keys where a number was published.
    """
    width = max([len(key) for key in counted] + [len(title)])
    lines = [f"{title:{width}}  {'counted':>10}  {'published':>10}"]
    for key, number in counted.items():
        known = published.get(key)
        lines.append(f"{key:{width}}  {number:>10,}  {'-' if known is None else f'{known:,}':>10}")
    return "\n".join([*lines, *differences(title, counted, published)])


def differences(
    title: str, counted: Mapping[str, int], published: Mapping[str, int | None]
) -> Iterator[str]:
    """A loud line for each count that is not the published one, in the order of `published`."""
    for key, known in published.items():
        number = counted.get(key, 0)
        if known is not None and number != known:
            yield (
                f"!!! DIFFERS: {title} has {number:,} {key}, published are {known:,}"
                f" ({number - known:+,})"
            )


def holds(name: str, number: int, wanted: int, what: str = "phrases") -> Iterator[str]:
    """How many phrases a file holds, and a loud line if these are not all of them."""
    yield f"{name}: {number:,} {what}"
    if number != wanted:
        yield f"!!! DIFFERS: {name} should hold {wanted:,}"

"""What the tools/prepare_*.py share: arguments, files written once, counts beside published ones.

A preparation reads the owners' files below --raw and writes ours below --out. It is idempotent: a
file that an earlier run wrote from the same input is kept, and a run in which every file is there
reads nothing but sizes and dates. It is resumable: a file appears whole or not at all, and is noted
in `.prepared-<name>.json` as soon as it is there. With --dry-run everything is read and counted and
nothing is written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from groundwork.dataset.formats import tuples
from groundwork.dataset.record import Record
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
    """The files of one preparation below a folder.

    Args:
        folder: --out.
        name: of the preparation; its note is `.prepared-<name>.json` in `folder`.
        key: `stamp` of the input; files noted under another key are written anew.
        dry_run: write nothing. again: keep nothing.
    """

    def __init__(
        self, folder: Path, name: str, key: str, *, dry_run: bool = False, again: bool = False
    ) -> None:
        self.folder = folder
        self.dry_run = dry_run
        self._note = folder / f".prepared-{name}.json"
        self._key = key
        self._noted: dict[str, int] = {}
        self._summary = ""
        self._report: list[str] = []
        if self._note.is_file() and not again:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            if note.get("key") == key:
                self._noted = dict(note["files"])
                self._summary = note["summary"]

    def finished(self) -> str:
        """The summary of an earlier run that wrote every file from this input, or ""."""
        complete = self._summary and all(self.is_there(name) for name in self._noted)
        return self._summary if complete and not self.dry_run else ""

    def is_there(self, name: str) -> bool:
        """Whether an earlier run wrote this file from the same input, and nobody changed its
        size."""
        path = self.folder / name
        if name.endswith("/") and path.is_dir():
            return (
                len([file for file in path.iterdir() if file.name[0] != "."]) == self._noted[name]
            )
        return name in self._noted and path.is_file() and path.stat().st_size == self._noted[name]

    def write_folder(self, name: str, files: Mapping[str, Callable[[Path], object]]) -> None:
        """Have each of `files` (name -> what writes it) in the folder `name`; those that an earlier
        run wrote there from the same input are kept."""
        if self.dry_run:
            self._report.append(f"  (would write) {name}/: {len(files):,} files")
            return
        begun = f"{name}/" in self._noted
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
        if self.is_there(name):
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

    def write_tuples(self, name: str, records: Iterable[Record], layout: str) -> int:
        """Write a list of tuples of `dataset.formats.tuples`, one box per phrase.

        Returns:
            How many phrases the file holds, read back (in a dry run: would hold).
        """
        unite = {"layout": layout, "unite_boxes": True}
        self.write(name, lambda path: tuples.write(records, path, **unite))
        if self.dry_run:
            return sum(len(record.phrases) for record in records)
        return sum(len(record.phrases) for record in tuples.read(self.folder / name, layout))

    def write_json(self, name: str, content: Any) -> None:
        """Write compact JSON."""
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
        self.write_text(name, text)

    def write_text(self, name: str, text: str) -> None:
        """Write text in UTF-8."""
        self.write(name, lambda path: path.write_text(text, encoding="utf-8"))

    def write_list(self, name: str, entries: Iterable[Any]) -> None:
        """Write a JSON list entry by entry, one a line; it is never held as a whole."""
        self.write(name, lambda path: write_json_list(path, entries))

    def close(self, summary: str) -> None:
        """Print what was written and the summary, and note that nothing is missing."""
        if not self.dry_run:
            self._save(summary)
        sys.stdout.write("\n".join([f"{self.folder}:", *self._report, summary, ""]))

    def _save(self, summary: str) -> None:
        note = {"key": self._key, "files": self._noted, "summary": summary}
        write_text(self._note, json.dumps(note, indent=1, ensure_ascii=False))


def write_json_list(path: Path, entries: Iterable[Any]) -> int:
    """Write entries as a JSON list, one a line; returns how many."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for count, entry in enumerate(entries, 1):
            file.write("[\n" if count == 1 else ",\n")
            file.write(json.dumps(entry, separators=(",", ":"), ensure_ascii=False))
        file.write("\n]\n" if count else "[]\n")
    return count


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


def print_next(out: Path, folder: str, *commands: str) -> None:
    """Print the commands that come next.

    Args:
        out: --out. folder: its name below the root of the data; "": it is the root.
        commands: with {data} where `--data ROOT` stands and {out} for `out`.
    """
    data = f"--data {shlex.quote(str(out.parent if folder else out))}"
    lines = [command.format(data=data, out=shlex.quote(str(out))) for command in commands]
    print("\n".join(["next:", *(f"  python -m tools.{line}" for line in lines)]))
    if folder and out.absolute().name != folder:
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

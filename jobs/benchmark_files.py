"""Which published files are a benchmark's, so that rows are called by what was evaluated."""

from collections.abc import Callable
from pathlib import Path

from groundwork.benchmarks import BENCHMARKS
from groundwork.settings import RunConfig

Names = tuple[str | None, str, tuple[str, str] | None]
# benchmark -> (SimREC's file, folder of the lists of ReSC and TransVG, REFER's folder and split);
# None: those students have no reader for it.
NAMES: dict[str, Names] = {
    "refcoco": ("refcoco", "unc", ("refcoco", "unc")),
    "refcoco+": ("refcoco+", "unc+", ("refcoco+", "unc")),
    "refcocog_umd": ("refcocog", "gref_umd", ("refcocog", "umd")),
    "refcocog_google": ("refcocog", "gref", ("refcocog", "google")),
    "refclef": ("refclef", "referit", ("refclef", "berkeley")),
    "flickr30k": (None, "flickr", None),
}
# format -> whether a file lies where that of a benchmark with these names is published.
_IS_OF: dict[str, Callable[[Names, Path], bool]] = {
    "simrec": lambda names, file: file.stem == names[0],
    "tuples": lambda names, file: file.parent.name == names[1],
}


def require_benchmark(config: RunConfig, source: str) -> None:
    """Refuse a benchmark whose splits or published files are others than those of data.evaluate;
    what is not published may be called as one likes.

    Raises:
        ValueError: names `source`, the file of the configuration, and what contradicts it.
    """
    row = BENCHMARKS.get(config.benchmark or "")
    if row is None:
        return
    published = {split for one in BENCHMARKS.values() for split in one.splits}
    for split in config.evaluated_splits:
        if row.splits and split in published - set(row.splits):
            raise ValueError(
                f"{source}: benchmark {row.name} has no split {split!r} (it has "
                f"{', '.join(row.splits)}), but data.evaluate does; set benchmark to that of its"
                " files"
            )
    name, is_of = row.name.removeprefix("embedded/"), _IS_OF.get(config.data.format)
    if name not in NAMES or is_of is None:
        return
    for file in (Path(file) for files in config.data.evaluate.values() for file in files):
        others = [other for other, names in NAMES.items() if is_of(names, file)]
        if others and name not in others:
            raise ValueError(
                f"{source}: benchmark is {row.name}, but {file} is of {' or '.join(others)}; set"
                " benchmark to that, or data.evaluate to its own files"
            )

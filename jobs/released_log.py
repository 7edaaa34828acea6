"""result/log.txt: the lines of the released AMC and SelfEQ evaluation, for programs that read them.

A checkpoint has a line of JSON with `epoch`, the end of its file name, and a hit rate in [0, 1] per
split; RefCOCO+ with proposals has one line of proposals, then one of points.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from groundwork.files.json_lines import JsonLines

LOG = Path("result", "log.txt")
_KEYS = {
    "refcoco+": {"val": "val_d", "testA": "testA_d", "testB": "testB_d"},
    "refclef": {"val": "val_d", "test": "test"},
    "flickr30k": {"val": "val_d", "test": "test"},
}
"""Benchmark -> split -> its released key."""
_METRICS = ("proposal@0.5", "pointing")


def released_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The lines about the checkpoints of some rows of results.json, in their order; none about
    benchmarks that the release does not evaluate on."""
    rows = [row for row in rows if row["benchmark"].removeprefix("embedded/") in _KEYS]
    for checkpoint in dict.fromkeys(row["checkpoint"] for row in rows if row["checkpoint"]):
        for metric in _METRICS:
            rates = {
                key: row["value"] / 100
                for row in rows
                if (row["checkpoint"], row["metric"]) == (checkpoint, metric)
                and row["n"]
                # Other benchmarks have no released line.
                and (key := _KEYS.get(_published(row), {}).get(row["split"]))
            }
            if rates:
                yield rates | {"epoch": PurePath(checkpoint).stem.rpartition("_")[2]}


def _published(row: Mapping[str, Any]) -> str:
    return str(row["benchmark"]).removeprefix("embedded/")


def write_released_log(output_dir: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Adds the lines that `output_dir`'s result/log.txt does not have yet."""
    log = JsonLines(output_dir / LOG)
    known = log.rows()
    log.append(*(line for line in released_lines(rows) if line not in known))

"""predict.py over millions of images: the rows of predictions.jsonl as Parquet, block by block."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from groundwork.jobs import plugins
from groundwork.jobs.bulk import run as bulk
from groundwork.jobs.bulk.work import Seen
from groundwork.jobs.grounder import Grounder
from groundwork.jobs.predict_files import row_of
from groundwork.jobs.session import ground_together
from groundwork.jobs.systems import System, load_systems

_FLOATS = pa.list_(pa.float64())
SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("phrase", pa.string()),
        ("system", pa.string()),
        ("size", pa.list_(pa.int32())),
        ("point", _FLOATS),
        ("boxes", pa.list_(_FLOATS)),
        ("scores", _FLOATS),
        ("mask", pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])),
        ("score", pa.float64()),
        ("present", pa.float64()),
        ("threshold", pa.float64()),
        ("there", pa.bool_()),
        ("derived", pa.list_(pa.string())),
        ("confidence", pa.map_(pa.string(), pa.float64())),
    ]
)
"""As in predictions.jsonl."""


def run(
    args: argparse.Namespace, checkpoints: Sequence[Path], phrases: tuple[str, ...]
) -> dict[str, Any]:
    """What `jobs.predict.main` returns, of rows below --parquet."""
    if args.out or args.write or args.words:
        raise ValueError("--parquet writes rows only; leave --out, --write and --words away")
    job = PredictJob(tuple(checkpoints), args)
    made = bulk.run(job, args, args.source, phrases)
    print(f"{made.images} images, {made.rows} rows: {args.parquet}")
    return {"out": args.parquet, "images": made.images, "faults": list(made.faults)}


@dataclass(frozen=True)
class PredictJob:
    """See `bulk.work.Job`. args: as of `systems.load_systems`."""

    checkpoints: tuple[Path, ...]
    args: argparse.Namespace

    def load(self) -> "Answers":
        """See `bulk.work.Job`."""
        plugins.load(self.args.plugin)
        return Answers(load_systems(self.checkpoints, self.args))

    def identity(self) -> dict[str, Any]:
        """See `bulk.work.Job`."""
        chosen = {key: getattr(self.args, key) for key in ("config", "tokenizer", "data")}
        weights = {str(file): bulk.content_of(file) for file in self.checkpoints}
        return {"job": "predict", "checkpoints": weights, **chosen}


class Answers:
    """See `bulk.work.Answerer`."""

    schema: ClassVar[pa.Schema] = SCHEMA

    def __init__(self, systems: Sequence[System]) -> None:
        self.systems = systems
        self.grounders: Sequence[Grounder] = [system.grounder for system in systems]

    def rows(self, seen: Sequence[Seen]) -> list[dict[str, Any]]:
        """See `bulk.work.Answerer`."""
        found = [
            ground_together([(sessions[number], asked.phrases) for asked, sessions in seen])
            for number in range(len(self.systems))
        ]
        return [
            row_of(asked.name, system.name, one)
            for place, (asked, _) in enumerate(seen)
            for system, groundings in zip(self.systems, found, strict=True)
            for one in groundings[place]
        ]

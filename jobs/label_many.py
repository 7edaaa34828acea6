"""pseudo_label.py over millions of images: labels of any source with phrases, block by block."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from groundwork import utils
from groundwork.dataset.formats import labels
from groundwork.dataset.formats.labels import Label
from groundwork.dataset.pseudo_labels import label_of
from groundwork.dataset.record import Phrase, Record
from groundwork.geometry import Grounding
from groundwork.jobs import arguments, plugins
from groundwork.jobs.bulk import run as bulk
from groundwork.jobs.bulk.store import Store
from groundwork.jobs.bulk.work import Seen
from groundwork.jobs.grounder import Grounder
from groundwork.jobs.session import ground_together

LABELS_FILE = "labels.jsonl"
_OF_SPLITS = ("out", "keep", "min_agreement", "write", "proposals")
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("image", "text", "split", "record_id", "phrase_id")),
        *((name, pa.int32()) for name in ("width", "height", "start")),
        ("box", pa.list_(pa.float64())),
        ("sentence", pa.string()),
        ("image_ids", pa.list_(pa.string())),
        *((name, pa.float64()) for name in labels.CONFIDENCE),
    ]
)
"""As in labels.jsonl."""


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, int]:
    """What `jobs.label.main` returns, of labels below --parquet.

    Raises:
        ValueError: no source, or what is of a split only.
    """
    utils.setup_logging()
    if args.source is None:
        raise ValueError("--parquet: give the images with their phrases by --source")
    for name in _OF_SPLITS:
        if getattr(args, name) != parser.get_default(name):
            raise ValueError(
                f"--{name} is of the labels of a split; the rows of --parquet hold what it chooses"
                " by, so that any reader of Parquet can"
            )
    made = bulk.run(LabelJob(args), args, args.source, ())
    store = Store(args.parquet)
    with store.writing(LABELS_FILE) as partial:
        labels.write(_labels(store), partial)
    print(f"{made.images} images, {made.rows} labels: {args.parquet}, {LABELS_FILE} in it")
    return {"images": made.images, "kept": made.rows, "left out": len(made.faults)}


def _labels(store: Store) -> Iterator[Label]:
    for table in store.tables():
        for row in table.to_pylist():
            yield Label(**{**row, "box": tuple(row["box"]), "image_ids": tuple(row["image_ids"])})


@dataclass(frozen=True)
class LabelJob:
    """See `bulk.work.Job`. args: those of pseudo_label.py."""

    args: argparse.Namespace

    def load(self) -> "Labels":
        """See `bulk.work.Job`."""
        plugins.load(self.args.plugin)
        config = arguments.load(self.args, purpose=arguments.purpose(self.args.config))
        grounder = Grounder.load(self.args.checkpoint, device=self.args.device, config=config)
        return Labels(grounder, self.args.split)

    def identity(self) -> dict[str, Any]:
        """See `bulk.work.Job`."""
        chosen = {key: getattr(self.args, key) for key in ("config", "data", "set", "split")}
        weights = {self.args.checkpoint: bulk.content_of(self.args.checkpoint)}
        return {"job": "label", "checkpoints": weights, **chosen}


class Labels:
    """See `bulk.work.Answerer`. A phrase is an expression by itself; boxes that are too small to be
    labels have no row."""

    schema: ClassVar[pa.Schema] = SCHEMA

    def __init__(self, grounder: Grounder, split: str) -> None:
        self.grounders: Sequence[Grounder] = [grounder]
        self.split = split

    def rows(self, seen: Sequence[Seen]) -> list[dict[str, Any]]:
        """See `bulk.work.Answerer`."""
        found = ground_together([(sessions[0], asked.phrases) for asked, sessions in seen])
        labels = [
            self._label(asked.name, number, one)
            for (asked, _), groundings in zip(seen, found, strict=True)
            for number, one in enumerate(groundings)
        ]
        return [asdict(label) for label in labels if label is not None]

    def _label(self, image: str, number: int, found: Grounding) -> Label | None:
        height, width = found.size
        phrase = Phrase(found.phrase, str(number))
        record = Record(image, width, height, (phrase,), self.split, image)
        box = found.boxes[0] if len(found.boxes) else np.zeros(4)
        return label_of(record, phrase, box, found.size, found.confidence)

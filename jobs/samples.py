"""What the jobs ask of a form of samples: loaders, and how a grounding becomes a prediction."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from groundwork.dataset.batches import EvalBatch
from groundwork.dataset.images import ImagePlace
from groundwork.dataset.loader import TrainLoader
from groundwork.dataset.record import Phrase, Record
from groundwork.geometry import Grounding
from groundwork.jobs.tokenizers import Tokenizer
from groundwork.report.predictions import Prediction, Run
from groundwork.settings.run import RunConfig


@dataclass(frozen=True)
class Evaluation:
    """Some splits, ready to be evaluated by this process.

    loader: batches of every sample once, of the form. prediction: (batch, row of a phrase, its
    grounding) -> the phrase with its truth and its grounding. expressions: index of a sample -> its
    records and phrases, in the order of the batch's rows.
    """

    loader: Iterable[EvalBatch]
    prediction: Callable[[Any, int, Grounding], Prediction]
    expressions: Callable[[int], Sequence[tuple[Record, Phrase]]]


class FormOfSamples(Protocol):
    """One of the two forms of samples: `jobs.image_text`, `jobs.referring`."""

    def train_loader(self, alone: RunConfig, tokenizer: Tokenizer) -> TrainLoader:
        """Training batches of this process; `alone`: one of `RunConfig.of_stages`."""

    def evaluation(
        self, config: RunConfig, splits: Sequence[str], tokenizer: Tokenizer
    ) -> Evaluation:
        """Some of `RunConfig.evaluated_splits`."""

    def unlabelled(self, config: RunConfig, tokenizer: Tokenizer) -> Evaluation:
        """All of data.train as in an evaluation, without any annotated box, mask or class; of
        lists that no training can read the evaluated splits."""

    def records(
        self, config: RunConfig, splits: Sequence[str]
    ) -> Iterable[tuple[ImagePlace, Record]]:
        """The records of some of `RunConfig.evaluated_splits` as they were read, each with its
        image file."""

    def evaluation_files(self, config: RunConfig, splits: Sequence[str]) -> list[Path]:
        """Every annotation file that `evaluation` reads."""

    def describe(self, config: RunConfig, checkpoint: Path | None, splits: Sequence[str]) -> Run:
        """The columns that all rows of an evaluation share."""

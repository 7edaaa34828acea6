"""What RefCLIP and SimREC share as systems: both read whole words."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Protocol

from torch import nn
from typing_extensions import override

from groundwork.models.common.checkpoint import LoadReport
from groundwork.models.common.system import (
    Model,
    Parts,
    Postprocess,
    Settings,
    System,
    shared_parts,
)
from groundwork.models.common.word_vectors import Words, load_word_vectors


class WordSystem(System[Settings, Model], Protocol):
    """A system with a `lang_encoder` over the words of a vocabulary."""

    postprocess: Postprocess

    @abstractmethod
    def network(self, settings: Settings, vocabulary: int) -> nn.Module:
        """With random weights, for so many words."""

    @abstractmethod
    def criterion(self, settings: Settings) -> nn.Module:
        """Of all stages."""

    @abstractmethod
    def sources(
        self, settings: Settings
    ) -> Iterable[tuple[Callable[[Model, str], LoadReport], str | None]]:
        """(what fills a part of the model from a file, the file that the settings name)."""

    @abstractmethod
    def words_file(self, settings: Settings) -> str | None:
        """The file of the words' vectors that the settings name."""

    @override
    def build(
        self,
        settings: Settings,
        tokenizer: Sized,
        objectives: Sequence[Sequence[str]] = (),
        *,
        training: bool = True,
    ) -> Parts:
        """All stages share the criterion."""
        model = self.network(settings, len(tokenizer))
        return shared_parts(model, self.criterion(settings), self.postprocess, objectives)

    @override
    def initialise(self, model: Model, settings: Settings, tokenizer: Words) -> list[LoadReport]:
        """The words' vectors, and the files that the settings name.

        Raises:
            FileNotFoundError, CheckpointError: see `models.common.checkpoint`.
        """
        load_word_vectors(model.lang_encoder, tokenizer, self.words_file(settings))
        return [step(model, source) for step, source in self.sources(settings) if source]

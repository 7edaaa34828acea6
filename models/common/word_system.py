"""What RefCLIP and SimREC share as systems: both read whole words."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from groundwork.models.common.checkpoint import (
    LoadReport,
    load_strictly,
    read_published,
    with_counters,
)
from groundwork.models.common.criterion import Criterion
from groundwork.models.common.layout import Layout
from groundwork.models.common.system import ModelSettings, Parts, Postprocess, System, shared_parts
from groundwork.models.common.word_language import check_vocabulary
from groundwork.models.common.word_vectors import Words, load_word_vectors

Source = tuple[Callable[[Any, str], LoadReport], str | None]


@dataclass(frozen=True)
class WordSystem(System[Any, Any]):
    """A system with a `lang_encoder` over the words of a vocabulary; its names are the published
    ones.

    network: (settings, number of words) -> random model. criterion: settings -> that of all stages.
    sources: settings -> (what fills a part of the model from a file, the file that they name).
    layout: a file's content -> what it is, if it is of this system.
    compiled: the network -> its `compilable` parts.
    """

    title: str
    settings: type[ModelSettings]
    network: Callable[[Any, int], nn.Module]
    criterion: Callable[[Any], Criterion]
    postprocess: Postprocess
    sources: Callable[[Any], Iterable[Source]]
    layout: Callable[[Mapping[str, Any]], Layout | None]
    compiled: Callable[[Any], Sequence[nn.Module]]

    @override
    def compilable(self, model: Any) -> Sequence[nn.Module]:
        """See `models.common.system.System.compilable`."""
        return self.compiled(model)

    @override
    def build(
        self,
        settings: Any,
        tokenizer: Sized,
        objectives: Sequence[Sequence[str]] = (),
        *,
        training: bool = True,
    ) -> Parts:
        """All stages share the criterion."""
        model = self.network(settings, len(tokenizer))
        return shared_parts(model, self.criterion(settings), self.postprocess, objectives)

    @override
    def initialise(self, model: Any, settings: Any, tokenizer: Words) -> list[LoadReport]:
        """The words' vectors, and the files that the settings name.

        Raises:
            FileNotFoundError, CheckpointError: see `models.common.checkpoint`.
        """
        load_word_vectors(model.lang_encoder, tokenizer, settings.init.words)
        return [step(model, source) for step, source in self.sources(settings) if source]

    @override
    def load(self, model: Any, path: str | Path) -> LoadReport:
        """See `load`."""
        return load(model, path)

    @override
    def start_from(self, model: Any, path: str | Path) -> LoadReport:
        """See `load`."""
        return load(model, path)

    @override
    def fill(self, model: Any, published: dict[str, Tensor], report: LoadReport) -> None:
        """See `fill`."""
        fill(model, published, report)

    @override
    def recognise(self, content: Mapping[str, Any]) -> Layout | None:
        """See `models.common.system.System.recognise`."""
        return self.layout(content)

    @override
    def published_state(self, model: Any) -> dict[str, Tensor]:
        """The model's state, whose names are the published ones."""
        return dict(model.state_dict())


def load(model: Any, path: str | Path) -> LoadReport:
    """Fill `model` from a published or own checkpoint file, the statistics of frozen layers
    included: training may have moved them.

    Returns:
        What was loaded; `str()` of it is one paragraph.

    Raises:
        FileNotFoundError, CheckpointError: see `models.common.checkpoint`; or the file has another
            vocabulary than the model.
    """
    state, report = read_published(path)
    fill(model, state, report)
    return report


def fill(model: Any, published: dict[str, Tensor], report: LoadReport) -> None:
    """`load` for a state dict that is already in memory."""
    table = published.get("lang_encoder.embedding.weight")
    check_vocabulary(model.lang_encoder, table, report.source)
    load_strictly(model, with_counters(published, model), report=report)

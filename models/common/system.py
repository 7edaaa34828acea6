"""What a system gives to the jobs: the contract between `models` and everything above it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from torch import Tensor, nn

from groundwork.geometry import Grounding
from groundwork.models.common.checkpoint import LoadReport
from groundwork.models.common.criterion import Criterion
from groundwork.models.common.layout import Layout

Postprocess = Callable[[Any, Any], list[Grounding]]
"""(outputs of `Parts.evaluated`, evaluation batch) -> one `Grounding` per phrase, in pixels of the
original image. The batch is a `dataset.batches.EvalBatch` of the system's form of samples."""
SampleForm = Literal["image_text", "referring"]
Part = Literal["point", "box", "mask"]


class ModelSettings:
    """The `model` section of a configuration: a frozen dataclass of each system.

    What jobs ask of every system's settings; a field or property of the same name overrides it.
    masks: it learns and gives masks. needs_boxes: training reads annotated boxes.
    several_targets: an expression may have any number of targets, or none.
    several_phrases: a text may have several phrases, each with a box of its own.
    max_text_tokens: most tokens of a text; None: any number.
    normalisation: what its pixels must be normalised by (`data.normalize`); None: anything.
    note: what rows of results say about how the model was asked.
    evidence: the name of what `Grounding.evidence` is; None: it has none.
    word_maps: its batches may ask for a map of every word (`ImageTextEvalBatch.words`).
    """

    __slots__ = ()

    @property
    def masks(self) -> bool:
        return False

    @property
    def needs_boxes(self) -> bool:
        return True

    @property
    def several_targets(self) -> bool:
        return False

    @property
    def several_phrases(self) -> bool:
        return False

    @property
    def max_text_tokens(self) -> int | None:
        return None

    @property
    def normalisation(self) -> str | None:
        return None

    @property
    def note(self) -> str:
        return ""

    @property
    def evidence(self) -> str | None:
        return None

    @property
    def word_maps(self) -> bool:
        return False


class ImageTextSettings(ModelSettings):
    """Those of a system that learns from `dataset.image_text` samples and explains by heat maps.

    image_size: side of the square network input, in pixels.
    objectives: the settings of every training objective by name, see `ObjectiveSettings`.
    """

    __slots__ = ()
    image_size: int
    objectives: Mapping[str, ObjectiveSettings]


class ObjectiveSettings(Protocol):
    """The settings of a training objective that a stage may name."""

    learns_from: ClassVar[frozenset[str]]
    """What its samples must have: "boxes", "paraphrases"."""

    def losses(self, every: Mapping[str, Any]) -> dict[str, float]:
        """Loss name -> its factor in the total; `every`: the settings of all objectives by name."""

    def build(self, every: Mapping[str, Any], tokenizer: Any) -> Any:
        """The objective, as the system's criterion runs it (`albef.criterion.Objective`)."""


@dataclass(frozen=True)
class Parts:
    """A system, built.

    model: training batch -> outputs. criteria: one per stage of the run; (outputs, batch) -> named
    losses. evaluated: evaluation batch -> outputs, with the weights of `model`. postprocess: its
    outputs to groundings. unused_parameters: a step may leave trainable parameters without a
    gradient, because what it reaches depends on its batch. match: of a system that points by its
    heat map: evaluation batch -> (T,) log odds that a phrase and its image belong together.
    """

    model: nn.Module
    criteria: Sequence[Criterion]
    evaluated: nn.Module
    postprocess: Postprocess
    unused_parameters: bool = False
    match: nn.Module | None = None


def shared_parts(
    model: nn.Module,
    criterion: Criterion,
    postprocess: Postprocess,
    objectives: Sequence[Sequence[str]],
) -> Parts:
    """Of a system whose stages share a criterion and whose model is evaluated as it is trained."""
    return Parts(model, [criterion] * len(objectives), model, postprocess)


Settings = TypeVar("Settings", bound=ModelSettings, contravariant=True)
Model = TypeVar("Model", bound=nn.Module, contravariant=True)


class System(Protocol[Settings, Model]):
    """A way of grounding language in images, as the registry `models.SYSTEMS` holds it; a system
    derives from it.

    title: its name in results. settings: class of its `model` section. samples: the form of its
    samples. derived: what of a grounding it does not give itself. defaults: dotted keys of a
    configuration -> what its recipes take for granted. beside: what a checkpoint keeps beside the
    weights.
    """

    title: str
    settings: type[ModelSettings]
    samples: SampleForm = "referring"
    derived: tuple[Part, ...] = ("point",)
    defaults: Mapping[str, object] = {}
    beside: Mapping[str, str] = {}

    def build(
        self,
        settings: Settings,
        tokenizer: Any,
        objectives: Sequence[Sequence[str]] = (),
        *,
        training: bool = True,
    ) -> Parts:
        """The system with random weights.

        Args:
            tokenizer: of the texts; gives vocabulary size and special ids.
            objectives: the names of every stage, one criterion each.
            training: False leaves out what only training needs.

        Raises:
            ValueError: the tokeniser does not fit to the settings.
        """

    def initialise(self, model: Model, settings: Settings, tokenizer: Any) -> list[LoadReport]:
        """The first weights of a new run from the files that the settings name, if any."""

    def load(self, model: Model, path: str | Path) -> LoadReport:
        """Fill `model` from a published or own file, strictly, for an evaluation."""

    def start_from(self, model: Model, path: str | Path) -> LoadReport:
        """Fill `model` for a new run: parts of it may be new."""

    def fill(self, model: Model, published: dict[str, Tensor], report: LoadReport) -> None:
        """`load` for a state dict that is in memory."""

    def published_state(self, model: Model) -> dict[str, Tensor]:
        """The model's state in the published layout."""

    def recognise(self, content: Mapping[str, Any]) -> Layout | None:  # noqa: ARG002
        """What a file without a configuration is, by its keys and shapes, if it is this system's.

        Args:
            content: as `read_checkpoint` gives it.

        Raises:
            CheckpointError: it is, and sizes of it cannot be told.
        """
        return None

    def blocks(self, model: Model) -> Sequence[nn.Module]:  # noqa: ARG002
        """The parts of a model that follow one another and have most of its weights, which a
        sharded training gathers one at a time; none: it cannot be sharded."""
        return ()

    def compilable(self, model: Model) -> Sequence[nn.Module]:  # noqa: ARG002
        """The parts of a model that `torch.compile` may take in a training: those that do most of
        its work, whose gradient nothing differentiates again, and that read no file."""
        return ()

    def settings_of(self, model: Model, settings: Settings) -> ModelSettings:  # noqa: ARG002
        """The settings with what a loaded file may have changed in how the model works."""
        return settings

    def check_resumed(self, path: str | Path) -> None:  # noqa: ARG002
        """Raises CheckpointError if a run of that file cannot go on with this code."""
        return None

"""What an objective may need of a training forward, and what it then gets.

Shapes: B images, P texts, each with its image (of the phrases P = B), L tokens, E embedding width,
Q queue length, V vocabulary, n hidden words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple, TypeVar

from torch import Tensor

from groundwork.models.albef.bert import KeysValues

Passed = TypeVar("Passed")


def needed(value: Passed | None) -> Passed:
    """A part of `Passes`.

    Raises:
        RuntimeError: it was not computed, because no objective named it in its needs.
    """
    if value is None:
        raise RuntimeError("an objective uses what it does not name in its `needs`")
    return value


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What is computed of a text and its images, and nothing else; `|` joins two objectives' needs.

    features: of text and image, online and by the momentum twin; the phrases' enter the queues.
    heatmaps: why the true pairs match, differentiable, which costs the fused kernels.
    contrast: `similarities` of the features (to be named, too).
    matching: `match_logits`, and `wrong_logits` of negatives, hard ones with `contrast`, else any:
        "both" wrong images and wrong texts, or only "images".
    hide_words: draws the words to restore: ids (P, L) -> ids to show, and which are hidden (bool).
    distil_over: axis of the softmax in their distillation, "vocabulary" or (as released) "tokens";
        None: there are no soft labels.
    """

    features: bool = False
    heatmaps: bool = False
    contrast: bool = False
    matching: str | None = None
    hide_words: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    distil_over: str | None = None

    def __or__(self, other: Needs) -> Needs:
        names = [field.name for field in fields(self)]
        return Needs(**{name: getattr(self, name) or getattr(other, name) for name in names})


class Images(NamedTuple):
    """Images as the encoders see them; None is what no objective needs.

    keys_values: per fusion layer, what a text reads of the images. features: (B, E) unit vectors.
    twin: the same by the momentum encoder.
    """

    keys_values: list[KeysValues]
    features: Tensor | None = None
    twin: Images | None = None

    def select(self, index: Tensor) -> Images:
        """The images `index` (P,)."""
        layers = [layer.select(index) for layer in self.keys_values]
        features = None if self.features is None else self.features.index_select(0, index)
        return Images(layers, features, self.twin and self.twin.select(index))


class Words(NamedTuple):
    """Hidden words: ids (n,), scores (n, V); to distil, the student's log probabilities and the
    teacher's probabilities, both (n, V)."""

    ids: Tensor
    scores: Tensor
    student: Tensor | None = None
    teacher: Tensor | None = None


@dataclass
class Pairs:
    """One text for each of P images; None is what no objective needs.

    features, momentum_features: (P, E) unit vectors of the texts.
    heatmaps: (P, rows, columns) in [0, 1].
    similarities: image to text and text to image, each also by momentum: (P, P + Q), over
        temperature, first the columns of the batch in its order.
    match_logits: (P, 2). wrong_logits: (2 P, 2) of the texts with a wrong image, then of the images
        with a wrong text, or (P, 2) of the first only; None also if P = 1.
    """

    features: Tensor | None = None
    momentum_features: Tensor | None = None
    heatmaps: Tensor | None = None
    similarities: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    match_logits: Tensor | None = None
    wrong_logits: Tensor | None = None
    words: Words | None = None


class Passes(NamedTuple):
    """A training forward: all images, their phrases, the paraphrases that some of them have."""

    images: Images
    phrase: Pairs | None = None
    paraphrase: Pairs | None = None

"""Models that encode an image before any text comes in, so that it is done once for many texts."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

OF_IMAGE = ("image", "image_mask")
"""The tensors of a batch that are of its images."""
OWNER = "phrase_image"
"""The tensor (T,) int64 of a batch that says which of its B images each of its T texts is of."""


class ImageFirst(nn.Module, ABC):
    """A network in two steps; `forward` is both. What the first one gives of one image serves any
    number of texts in the second one.

    inputs: the tensors of a batch that it reads. outputs: the tensors it gives that its groundings
    are made of; some of them it may not have. An exported file takes and gives these.
    needs_gradient: outputs are made of gradients, too, which a file must hold as a forward pass.
    separable: the texts know the images by the tensors alone that `encode` gives, so that each step
    may be a graph of its own.
    texts_at_once: how many texts of one image are answered together, which bounds the memory.
    """

    inputs: ClassVar[tuple[str, ...]]
    outputs: ClassVar[tuple[str, ...]]
    texts_at_once: ClassVar[int] = 16
    needs_gradient = False
    separable = True

    @abstractmethod
    def encode(self, batch: Any) -> Any:
        """What is seen in `batch`'s images, whatever the texts are."""

    @abstractmethod
    def answer(self, seen: Any, batch: Any) -> dict[str, Tensor]:
        """The outputs for the texts of `batch`, whose images are not looked at.

        Args:
            seen: of `encode`, for as many images as the batch has, or for the one image of all its
                texts.
        """

    def answer_each(self, seen: Any, batch: Any) -> dict[str, Tensor]:
        """`answer` in steps that no value of a tensor decides, as an exported file needs them.

        Args:
            seen: of `encode`, for B images.
            batch: also `phrase_image` (T,), which image each of the T texts belongs to.
        """
        return self.answer(_of_texts(seen, batch[OWNER]), batch)

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """`encode`, then `answer`."""
        return self.answer(self.encode(batch), batch)


def for_each(tensor: Tensor, count: int) -> Tensor:
    """(count, ...) as it is, and (1, ...) as a view of `count` times the same."""
    return tensor if tensor.shape[0] == count else tensor.expand(count, *tensor.shape[1:])


def _of_texts(seen: Any, owner: Tensor) -> Any:
    """Lists and named tuples of tensors (B, ...) -> the same of (T, ...)."""
    if isinstance(seen, Tensor):
        return seen.index_select(0, owner)
    parts = [_of_texts(part, owner) for part in seen]
    return type(seen)(*parts) if hasattr(seen, "_fields") else parts

"""Models that encode an image before any text comes in, so that it is done once for many texts."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class ImageFirst(nn.Module, ABC):
    """A network in two steps; `forward` is both. What the first one gives of one image serves any
    number of texts in the second one."""

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

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """`encode`, then `answer`."""
        return self.answer(self.encode(batch), batch)


def for_each(tensor: Tensor, count: int) -> Tensor:
    """(count, ...) as it is, and (1, ...) as a view of `count` times the same."""
    return tensor if len(tensor) == count else tensor.expand(count, *tensor.shape[1:])

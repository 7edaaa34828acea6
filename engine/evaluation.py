"""The evaluation loop of every system."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn
from torch.func import functional_call

from groundwork.dataset.batches import EvalBatch
from groundwork.engine.precision import chosen, computing, rounded_weights
from groundwork.engine.training import to_device
from groundwork.geometry import Grounding

AnyBatch = TypeVar("AnyBatch", bound=EvalBatch)


def evaluate(
    model: nn.Module,
    postprocess: Callable[[Any, AnyBatch], list[Grounding]],
    loader: Iterable[AnyBatch],
    *,
    device: torch.device,
    precision: str = "fp32",
    progress: Callable[[Iterable[AnyBatch]], Iterable[AnyBatch]] = lambda batches: batches,
) -> Iterator[tuple[AnyBatch, list[Grounding]]]:
    """Run a model over an evaluation loader.

    Args:
        model: batch -> outputs, in evaluation mode on `device`.
        postprocess: (outputs, batch) -> one `Grounding` per phrase, in pixels of the original
            image.
        precision: of the forward pass, as in `settings.training.TrainingConfig`.
        progress: wraps the batches, such as a tqdm bar.

    Yields:
        (batch, groundings) per batch.
    """
    precision = chosen(precision, device)
    weights = rounded_weights(model, precision)
    for batch in progress(loader):
        if not len(batch["image"]):
            yield batch, []  # nothing in it could be decoded
            continue
        moved = to_device(batch, device)
        with torch.no_grad(), computing(device, precision):
            outputs = functional_call(model, weights, (moved,))
        yield batch, postprocess(outputs, moved)

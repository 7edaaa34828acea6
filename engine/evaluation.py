"""The evaluation loop of every system."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from groundwork.engine.precision import computing
from groundwork.engine.training import to_device
from groundwork.geometry import Grounding


def evaluate(
    model: nn.Module,
    postprocess: Callable[[Any, dict[str, Any]], list[Grounding]],
    loader: DataLoader,
    *,
    device: torch.device,
    precision: str = "fp32",
    progress: Callable[[Any], Any] = lambda batches: batches,
) -> Iterator[tuple[dict[str, Any], list[Grounding]]]:
    """Run a model over an evaluation loader.

    Args:
        model: batch -> outputs, in evaluation mode on `device`.
        postprocess: (outputs, batch) -> one `Grounding` per phrase, in pixels of the original
            image.
        progress: wraps the batches, such as a tqdm bar.

    Yields:
        (batch, groundings) per batch.
    """
    for batch in progress(loader):
        if not len(batch["image"]):
            yield batch, []  # nothing in it could be decoded
            continue
        moved = to_device(batch, device)
        with torch.no_grad(), computing(device, precision):
            outputs = model(moved)
        yield batch, postprocess(outputs, moved)

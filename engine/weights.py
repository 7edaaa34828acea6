"""Do the losses of a criterion and their weights belong together, asked at its first step; and are
those of a network still numbers, asked before they are saved."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from groundwork import utils
from groundwork.engine.distribution import is_sharded, local

PREFIX = "loss_"
"""How the names of losses begin; other scalars of a criterion are only logged."""


def require_weighted(weights: Mapping[str, float], losses: Iterable[str]) -> None:
    """Raises ValueError unless every weight is that of a loss, every loss has a weight, and one of
    them counts.

    Args:
        weights: loss name -> factor in the total. losses: all that the criterion returned.
    """
    names = set(losses)
    nothing = [name for name in weights if name not in names]
    if nothing:
        raise ValueError(
            f"weights of {', '.join(nothing)}, but the criterion returned only"
            f" {', '.join(sorted(names))}; leave them out, or switch on what they weigh"
        )
    ignored = sorted(name for name in names if name.startswith(PREFIX) and name not in weights)
    if ignored:
        raise ValueError(
            f"no weight of {', '.join(ignored)}, which would be computed and ignored; give each a"
            " weight, 0 to leave it out"
        )
    if not any(weights.values()):
        raise ValueError(f"all weights are 0: {', '.join(weights)}; nothing would be learnt")


def require_finite(model: nn.Module) -> None:
    """Raises FloatingPointError if a parameter is no longer finite: a gradient may be infinite or
    NaN at the last step before a checkpoint, and the loss a number still."""
    named = dict(model.named_parameters())
    finite = torch.stack([local(parameter).isfinite().all() for parameter in named.values()])
    if is_sharded(model):
        finite = utils.all_gather(finite[None].int()).all(dim=0)
    if not finite.all():
        name = list(named)[int(finite.int().argmin())]
        raise FloatingPointError(
            f"the weights are no longer finite ({name}), though the losses were: a gradient was"
            " not. Nothing is saved of them. Lower the learning rate, set clip_norm, or train in"
            " fp32."
        )

"""Looking into an attention layer: its probabilities, and a score's gradient at them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn


class FusedAttention(Protocol):
    """An attention by timm's convention: while `fused_attn` is false, `attn_drop` receives the
    attention probabilities."""

    fused_attn: bool
    attn_drop: nn.Dropout


@contextmanager
def unfused(attentions: Iterable[FusedAttention]) -> Iterator[None]:
    """Compute these attentions step by step instead of in one fused kernel.

    Needed where the probabilities are read, and where a gradient is differentiated a second time:
    the fused kernels have no double backward.
    """
    before = [(attention, attention.fused_attn) for attention in attentions]
    try:
        for attention, _ in before:
            attention.fused_attn = False
        yield
    finally:
        for attention, fused in before:
            attention.fused_attn = fused


class AttentionRecorder:
    """Context manager that keeps the attention probabilities of one layer's next forward pass.

    Args:
        attention: the layer to look into.
        leaf: cut the graph below the probabilities. A gradient with respect to them then reaches
            nothing before this layer, which is all that an evaluation needs. Without it the
            probabilities stay part of the graph, so that a function of their gradient can be
            trained.

    The probabilities lie in `probabilities`, (B, heads, queries, keys), taken before the attention
    dropout.
    """

    def __init__(self, attention: FusedAttention, *, leaf: bool = False):
        self.attention = attention
        self.leaf = leaf
        self._probabilities: Tensor | None = None

    def __enter__(self) -> AttentionRecorder:
        self._unfused = unfused([self.attention])
        self._unfused.__enter__()
        self._hook = self.attention.attn_drop.register_forward_pre_hook(self._keep)
        return self

    def __exit__(self, *exception: object) -> None:
        self._hook.remove()
        self._unfused.__exit__(None, None, None)

    def _keep(self, _: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        (probabilities,) = inputs
        if self.leaf:
            probabilities = probabilities.detach().requires_grad_()
        self._probabilities = probabilities
        return (probabilities,)

    @property
    def probabilities(self) -> Tensor:
        """The recorded ones. Raises RuntimeError if the layer has not run inside the context."""
        if self._probabilities is None:
            raise RuntimeError(
                f"{type(self.attention).__name__} did not run while it was recorded: "
                "run the model inside the `with AttentionRecorder(...)` block"
            )
        return self._probabilities

    def gradient(self, score: Tensor, *, create_graph: bool = False) -> Tensor:
        """d score / d probabilities, same shape as the probabilities. `score` is a scalar."""
        return torch.autograd.grad(score, self.probabilities, create_graph=create_graph)[0]

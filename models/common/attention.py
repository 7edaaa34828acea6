"""Attention between two sequences, and looking into a layer: its probabilities, and a score's
gradient at them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundwork.models.common.precision import at_least_single


class MultiheadAttention(nn.Module):
    """`nn.MultiheadAttention` with its parameters, their names and first values, batch first.

    torch's transposes its input, and a linear map of a transposed view copies its weights for every
    token on a CPU in half precision, which costs several times as much as the products.
    """

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        padding: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Query (B, Q, D), key and value (B, N, D), padding (B, N) bool, True = ignore.

        Returns:
            (B, Q, D), and the attention (B, Q, N), the mean over heads, if it is needed; it is then
            not fused.
        """
        queries, keys, values = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self._projected(query, key, value)
        )
        drop = self.dropout if self.training else 0.0
        if need_weights:
            scores = at_least_single(queries * queries.shape[-1] ** -0.5 @ keys.transpose(-2, -1))
            if padding is not None:
                scores = scores.masked_fill(padding[:, None, None], float("-inf"))
            shares = F.dropout(scores.softmax(dim=-1), drop)
            mixed = shares.to(values.dtype) @ values
        else:
            seen = None if padding is None else ~padding[:, None, None]
            mixed = F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=seen, dropout_p=drop
            )
        mixed = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return mixed, shares.mean(dim=1) if need_weights else None

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values; the first two in one product where they are of the same."""
        same = query is key
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        if same:
            both = 2 * query.shape[-1]
            weights, biases = (
                parameter.tensor_split([both])
                for parameter in (self.in_proj_weight, self.in_proj_bias)
            )
            projected, values = map(F.linear, (query, value), weights, biases)
            return *projected.chunk(2, dim=-1), values
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        return tuple(map(F.linear, (query, key, value), weights, biases))


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

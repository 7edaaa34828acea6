"""The text-guided query generator and the pooled text vector.

Shapes: B samples, T tokens, Q queries, D width. Padding is bool, True = ignore.
"""

import torch
from torch import Tensor, nn

from groundwork.models.common.attention import MultiheadAttention
from groundwork.models.common.torch_types import ModuleListOf


def pool_text(text: Tensor, padding: Tensor, *, last_rows: bool) -> Tensor:
    """(B, T, D) -> (B, D), the largest value of every channel over the tokens.

    last_rows: the released rule, whose mask is of integers and hence chooses rows: the last one,
        and the one before it where anything is padded. Mostly these are padding.
    """
    if last_rows:
        both, padded = text[:, -2:].amax(dim=1), padding.any(dim=1, keepdim=True)
        return torch.where(padded, both, text[:, -1])
    return text.masked_fill(padding[..., None], float("-inf")).amax(dim=1)


class _Layer(nn.Module):
    """Attention among queries, attention to the text, feed-forward; norms after the residuals.

    Names as published: attentions.0.attn, ffns.0.layers.0.0 and ffns.0.layers.1.
    """

    def __init__(self, width: int, heads: int, ffn: int, dropout: float):
        super().__init__()
        self.attentions = ModuleListOf(
            nn.ModuleDict({"attn": MultiheadAttention(width, heads, dropout)}) for _ in range(2)
        )
        first = nn.Sequential(nn.Linear(width, ffn), nn.ReLU(), nn.Dropout(dropout))
        layers = nn.Sequential(first, nn.Linear(ffn, width), nn.Dropout(dropout))
        self.ffns = ModuleListOf([nn.ModuleDict({"layers": layers})])
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(
        self, states: Tensor, position: Tensor, keys: Tensor, text: Tensor, padding: Tensor
    ) -> Tensor:
        of_self, of_text = (attention["attn"] for attention in self.attentions)
        query = states + position
        update, _ = of_self(query, query, states)
        states = self.norms[0](states + update)
        update, _ = of_text(states + position, keys, text, padding=padding)
        states = self.norms[1](states + update)
        return self.norms[2](states + self.ffns[0]["layers"](states))


class QueryGenerator(nn.Module):
    """Learned queries ask the text what to look for."""

    def __init__(self, depth: int, width: int, heads: int, ffn: int, *, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(_Layer(width, heads, ffn, dropout) for _ in range(depth))
        self.post_norm_layer = nn.LayerNorm(width)

    def forward(self, learned: Tensor, text: Tensor, position: Tensor, padding: Tensor) -> Tensor:
        """Learned (Q, D), text (B, T, D), position (T, D), padding (B, T) -> (B, Q, D)."""
        learned = learned.expand(text.shape[0], -1, -1)
        states, keys = torch.zeros_like(learned), text + position.to(text.dtype)
        for layer in self.layers:
            states = layer(states, learned, keys, text, padding)
        return self.post_norm_layer(states)

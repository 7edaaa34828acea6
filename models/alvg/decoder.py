"""The box decoder, which also gives its cross-attention maps.

Shapes: B samples, Q queries, N cells, D width.
"""

import torch
from torch import Tensor, nn

from groundwork.models.common.attention import MultiheadAttention


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention, feed-forward; norms after the residuals, named as published.

    Args:
        residual: what the cross-attention's answer is added to: "query" (content and position, as
            released) or "content" (DETR's rule).
    """

    def __init__(self, width: int, heads: int, ffn: int, dropout: float, *, residual: str):
        super().__init__()
        self.self_attn = MultiheadAttention(width, heads, dropout)
        self.cross_attn = MultiheadAttention(width, heads, dropout)
        self.linear1, self.linear2 = nn.Linear(width, ffn), nn.Linear(ffn, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)
        self.residual = residual

    def forward(
        self,
        content: Tensor,
        position: Tensor,
        *,
        keys: Tensor,
        values: Tensor,
        padding: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Content and position (B, Q, D), keys and values (B, N, D), padding (B, N) bool or None.

        Returns:
            Content (B, Q, D), and the attention (B, Q, N), the mean over heads; rows sum to 1.
        """
        query = content + position
        update, _ = self.self_attn(query, query, content)
        content = self.norm1(content + self.dropout(update))
        query = content + position
        update, attention = self.cross_attn(query, keys, values, padding=padding, need_weights=True)
        kept = query if self.residual == "query" else content
        content = self.norm3(kept + self.dropout(update))
        update = self.linear2(self.dropout(self.linear1(content).relu()))
        return self.norm2(content + self.dropout(update)), attention


class BoxDecoder(nn.Module):
    """A stack of layers without a last norm.

    Args:
        chained: each layer continues from the one below. False: the released behaviour, every layer
            begins anew from zeros, so that only the last one counts at inference.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        heads: int,
        ffn: int,
        *,
        dropout: float,
        chained: bool,
        residual: str,
    ):
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(width, heads, ffn, dropout, residual=residual) for _ in range(depth)
        )
        self.chained = chained

    def forward(
        self, queries: Tensor, memory: Tensor, position: Tensor, padding: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Queries (B, Q, D), memory and its position (B, N, D).

        Returns:
            States (layers, B, Q, D) and attentions (layers, B, Q, N).
        """
        begin = torch.zeros_like(queries)
        keys, content, states, attentions = memory + position, begin, [], []
        for layer in self.layers:
            content, attention = layer(
                content if self.chained else begin,
                queries,
                keys=keys,
                values=memory,
                padding=padding,
            )
            states.append(content)
            attentions.append(attention)
        return torch.stack(states), torch.stack(attentions)

"""The layers of RefTR's transformer, batch first, with fused attention.

Shapes: B images, N tokens of the memory, T queries, D width. Positions are added to queries and
keys in every layer, never to values; norms come after the residual. Padding is bool, True = ignore.
"""

from torch import Tensor, nn

from groundwork.models.common.attention import MultiheadAttention


def mapping_block(input_width: int, width: int, dropout: float) -> nn.Sequential:
    """Two linear layers with norms. Ends with a ReLU, which the published weights rely on."""
    return nn.Sequential(
        nn.Linear(input_width, width),
        nn.LayerNorm(width),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width, width),
        nn.LayerNorm(width),
        nn.ReLU(),
    )


class FeedForward(nn.Module):
    """What both layers share: self-attention, two linear maps and the dropout.

    The order of the parameters is the published one, on which saved optimisers rely.
    """

    def __init__(self, width: int, heads: int, ffn: int, dropout: float, *, cross: bool):
        super().__init__()
        self.self_attn = MultiheadAttention(width, heads, dropout)
        if cross:
            self.multihead_attn = MultiheadAttention(width, heads, dropout)
        self.linear1 = nn.Linear(width, ffn)
        self.linear2 = nn.Linear(ffn, width)
        self.dropout = nn.Dropout(dropout)

    def feed_forward(self, states: Tensor) -> Tensor:
        return self.dropout(self.linear2(self.dropout(self.linear1(states).relu())))


class EncoderLayer(FeedForward):
    """Self-attention over all tokens."""

    def __init__(self, width: int, heads: int, ffn: int, dropout: float):
        super().__init__(width, heads, ffn, dropout, cross=False)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, states: Tensor, position: Tensor, padding: Tensor) -> Tensor:
        """States and position (B, N, D), padding (B, N) -> (B, N, D)."""
        query = states + position
        update, _ = self.self_attn(query, query, states, padding=padding)
        states = self.norm1(states + self.dropout(update))
        return self.norm2(states + self.feed_forward(states))


class DecoderLayer(FeedForward):
    """Self-attention among queries, then attention from queries to the memory."""

    def __init__(self, width: int, heads: int, ffn: int, dropout: float):
        super().__init__(width, heads, ffn, dropout, cross=True)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(
        self,
        states: Tensor,
        position: Tensor,
        padding: Tensor,
        *,
        keys: Tensor,
        values: Tensor,
        memory_padding: Tensor,
        keep_shares: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """States and position (B, T, D), padding (B, T); keys and values (B, N, D) -> (B, T, D).

        Second the attention to the memory, (B, T, N), the mean over heads, if it is to be kept; it
        is then not fused.
        """
        query = states + position
        update, _ = self.self_attn(query, query, states, padding=padding)
        states = self.norm1(states + self.dropout(update))
        update, shares = self.multihead_attn(
            states + position,
            keys,
            values,
            padding=memory_padding,
            need_weights=keep_shares,
        )
        states = self.norm2(states + self.dropout(update))
        return self.norm3(states + self.feed_forward(states)), shares

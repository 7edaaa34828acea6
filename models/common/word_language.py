"""The sentence encoder that RefCLIP and SimREC share: word vectors, GRU, self-attention, pooling.

Shapes: B sentences of L words, V words in the vocabulary, D width. Parameter names are the
published ones; `lstm` is a GRU there, too.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from groundwork.models.common.checkpoint import CheckpointError
from groundwork.models.common.precision import at_least_single
from groundwork.models.common.recurrent import GRU

# Scores of padded words; not infinite, so that a text without any word attends to all evenly. Half
# precision cannot hold it.
PADDED = -1e9


class Sentence(NamedTuple):
    """vector (B, D), words (B, L, D), padding (B, L) bool, gru (B, L, D) before the attention."""

    vector: Tensor
    words: Tensor
    padding: Tensor
    gru: Tensor


class UnbiasedLayerNorm(nn.Module):
    """Layer norm as published: the deviation divides by D - 1, and eps is added to it."""

    def __init__(self, width: int, eps: float = 1e-6):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, states: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        mean, deviation = states.mean(-1, keepdim=True), states.std(-1, keepdim=True)
        return self.weight * (states - mean) / (deviation + self.eps) + self.bias


class _Linear(nn.Module):
    """A linear layer with a ReLU and dropout after it."""

    def __init__(self, inputs: int, outputs: int, dropout: float):
        super().__init__()
        self.linear, self.dropout = nn.Linear(inputs, outputs), nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        return self.dropout(self.linear(states).relu())


class _MLP(nn.Module):
    """Two linear layers."""

    def __init__(self, inputs: int, hidden: int, outputs: int, dropout: float):
        super().__init__()
        self.fc, self.linear = _Linear(inputs, hidden, dropout), nn.Linear(hidden, outputs)

    def forward(self, states: Tensor) -> Tensor:
        return self.linear(self.fc(states))


class SelfAttention(nn.Module):
    """Every word looks at every word that is not padding."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.linear_v, self.linear_k = nn.Linear(width, width), nn.Linear(width, width)
        self.linear_q, self.linear_merge = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, states: Tensor, padding: Tensor) -> Tensor:
        """States (B, L, D), padding (B, L) -> (B, L, D)."""
        values, keys, queries = (
            linear(states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear in (self.linear_v, self.linear_k, self.linear_q)
        )
        scores = queries @ keys.transpose(-2, -1) / keys.shape[-1] ** 0.5
        scores = at_least_single(scores).masked_fill(padding[:, None, None], PADDED)
        attended = self.dropout(scores.softmax(-1)).to(values.dtype) @ values
        return self.linear_merge(attended.transpose(1, 2).flatten(2))


class SelfAttentionBlock(nn.Module):
    """Self-attention and feed-forward, each added to its input and then normalised."""

    def __init__(self, width: int, heads: int, ffn: int, dropout: float):
        super().__init__()
        self.mhatt = SelfAttention(width, heads, dropout)
        self.ffn = nn.ModuleDict({"mlp": _MLP(width, ffn, width, dropout)})
        self.norm1, self.norm2 = UnbiasedLayerNorm(width), UnbiasedLayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, padding: Tensor) -> Tensor:
        """States (B, L, D), padding (B, L) -> (B, L, D)."""
        states = self.norm1(states + self.dropout(self.mhatt(states, padding)))
        return self.norm2(states + self.dropout(self.ffn["mlp"](states)))


class AttentivePooling(nn.Module):
    """One vector of a sentence: its words, weighted by a score of each.

    Args:
        padded: score of padded words.
    """

    def __init__(self, width: int, dropout: float, padded: float):
        super().__init__()
        self.mlp, self.linear_merge = _MLP(width, width // 2, 1, dropout), nn.Linear(width, width)
        self.padded = padded

    def forward(self, states: Tensor, padding: Tensor) -> Tensor:
        """States (B, L, D), padding (B, L) -> (B, D)."""
        scores = at_least_single(self.mlp(states)).masked_fill(padding[..., None], self.padded)
        return self.linear_merge((scores.softmax(dim=1) * states).sum(dim=1))


class WordLanguageEncoder(nn.Module):
    """Word ids to one vector per sentence.

    Args:
        vocabulary: words, V. word_width: of their vectors. width: D.
        layers: of self-attention; heads, ffn: theirs.
        train_words: whether the vectors are trained; published: they stay as read.
        pool_padded: score of padded words in the pooling: -1e9 (RefCLIP), -1e4 (SimREC).
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        word_width: int,
        width: int,
        layers: int,
        heads: int,
        ffn: int,
        dropout: float,
        train_words: bool = False,
        pool_padded: float = PADDED,
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, word_width)
        self.embedding.weight.requires_grad_(train_words)
        self.lstm = GRU(word_width, width)
        self.sa_list = nn.ModuleList(
            SelfAttentionBlock(width, heads, ffn, dropout) for _ in range(layers)
        )
        self.att_flat = AttentivePooling(width, dropout, pool_padded)

    def forward(self, ids: Tensor) -> Sentence:
        """Word ids (B, L) int64, 0 = padding on the right -> the sentences."""
        padding = ids == 0
        # A recurrent network that reads from the left: padding behind a word does not reach it.
        gru = self.lstm.states(self.embedding(ids))
        states = gru
        for block in self.sa_list:
            states = block(states, padding)
        return Sentence(self.att_flat(states, padding), states, padding, gru)


def check_vocabulary(encoder: WordLanguageEncoder, table: Tensor | None, source: str) -> None:
    """Raises CheckpointError if a file's table of word vectors has another number of words than
    the model: then every word would be read as another one."""
    words = encoder.embedding.num_embeddings
    if table is not None and len(table) != words:
        raise CheckpointError(
            f"{source}: its vocabulary has {len(table)} words, that of the configuration {words}. "
            "Ids follow the order of the words, so both must be the same: configure the annotation "
            "files that it was trained with, or set data.text_encoder to the words.txt that was "
            "written beside it"
        )

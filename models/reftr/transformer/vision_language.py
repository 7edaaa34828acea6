"""The joint encoder over words and image cells, and the decoder.

Shapes: B images, L words, h * w image cells, N = L + h * w tokens (words first, then cells row by
row), P queries, D width. Padding is bool, True = ignore.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from groundwork.models.reftr.transformer.blocks import DecoderLayer, EncoderLayer


class Memory(NamedTuple):
    """states, position (B, N, D); padding (B, N); words: L."""

    states: Tensor
    position: Tensor
    padding: Tensor
    words: int


class Encoder(nn.Module):
    """A stack of layers; there is no norm at its end."""

    def __init__(self, depth: int, width: int, heads: int, ffn: int, *, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width, heads, ffn, dropout) for _ in range(depth))

    def forward(self, states: Tensor, position: Tensor, padding: Tensor) -> Tensor:
        for layer in self.layers:
            states = layer(states, position, padding)
        return states


class Decoder(nn.Module):
    """A stack of layers whose outputs all pass through one norm."""

    def __init__(self, depth: int, width: int, heads: int, ffn: int, *, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(width, heads, ffn, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        states: Tensor,
        position: Tensor,
        padding: Tensor,
        memory: Memory,
        *,
        keep_shares: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """States and position (B, P, D), padding (B, P) -> (layers, B, P, D).

        Second every layer's attention to the memory, (layers, B, P, N), if it is to be kept.
        """
        # An image without a phrase would attend to nothing; its queries are ignored later.
        padding = padding & ~padding.all(dim=1, keepdim=True)
        keys, outputs, kept = memory.states + memory.position, [], []
        for layer in self.layers:
            states, shares = layer(
                states,
                position,
                padding,
                keys=keys,
                values=memory.states,
                memory_padding=memory.padding,
                keep_shares=keep_shares,
            )
            outputs.append(self.norm(states))
            kept.append(shares)
        return torch.stack(outputs), torch.stack(kept) if keep_shares else None


class VisionLanguageTransformer(nn.Module):
    """Encoder and decoder with the learned positions of words and the marks of the two kinds.

    Args:
        encoder_layers, decoder_layers, width, heads, ffn, dropout: sizes.
        max_text_tokens: the longest sentence.
        content_positions: factor with which the cells' position code is added to the cells
            themselves, too, once.
    """

    def __init__(
        self,
        *,
        encoder_layers: int,
        decoder_layers: int,
        width: int,
        heads: int,
        ffn: int,
        dropout: float,
        max_text_tokens: int,
        content_positions: float = 0.0,
    ):
        super().__init__()
        self.content_positions = content_positions
        self.level_embed = nn.Parameter(torch.empty(1, width))
        self.lang_pos_embeddings = nn.Embedding(max_text_tokens, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.encoder = Encoder(encoder_layers, width, heads, ffn, dropout=dropout)
        self.decoder = Decoder(decoder_layers, width, heads, ffn, dropout=dropout)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.normal_(self.level_embed)

    def encode(
        self,
        words: Tensor,
        words_padding: Tensor,
        cells: Tensor,
        cells_position: Tensor,
        cells_padding: Tensor,
    ) -> Memory:
        """Args:
            words: (B, L, D). words_padding: (B, L).
            cells, cells_position: (B, D, h, w). cells_padding: (B, h, w).

        Raises:
            ValueError: the sentence is longer than the table of positions.
        """
        length, longest = words.shape[1], self.lang_pos_embeddings.num_embeddings
        if length > longest:
            raise ValueError(
                f"a sentence of {length} tokens, but the model has positions for {longest}: "
                "shorten the text in the data section, or raise model.max_text_tokens"
            )
        of_word, of_cell = self.token_type_embeddings.weight
        word_position = (self.lang_pos_embeddings.weight[:length] + of_word).expand_as(words)
        place = cells_position.flatten(2).transpose(1, 2)
        cell_position = place + self.level_embed[0] + of_cell
        content = cells.flatten(2).transpose(1, 2)
        if self.content_positions:
            content = content + self.content_positions * place
        states = torch.cat([words, content], dim=1)
        position = torch.cat([word_position, cell_position], dim=1)
        padding = torch.cat([words_padding, cells_padding.flatten(1)], dim=1)
        return Memory(self.encoder(states, position, padding), position, padding, length)

"""A phrase and its context in the sentence -> the decoder's query."""

import torch
from torch import Tensor, nn

from groundwork.models.common.precision import at_least_single
from groundwork.models.reftr.transformer.blocks import mapping_block


class QueryEncoder(nn.Module):
    """Mixes the tokens that a phrase's context consists of and joins them with the phrase.

    Shapes: B sentences, L tokens, P phrases, D width.

    The weights of the mix come from the [CLS] token and are the same for all phrases of a sentence,
    but for the mask. They are not scaled by 1 / sqrt(D): the published weights are used to it.
    """

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.query_embed = nn.Embedding(1, 2 * width)
        self.linear1, self.linear2, self.linear3 = (nn.Linear(width, width) for _ in range(3))
        self.fuse_encoder_query = mapping_block(2 * width, width, dropout)
        self.context_out = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))

    def forward(self, tokens: Tensor, phrases: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
        """Args:
            tokens: (B, L, D), the sentence after the joint encoder, [CLS] first.
            phrases: (B, P, D).
            outside: (B, P, L) bool, True = token that is not of the phrase's context; at least one
                token of every row is.

        Returns:
            The first states of the queries and their positions, each (B, P, D).
        """
        first = tokens[:, :1]
        scores = self.linear1(first) @ self.linear2(tokens).transpose(1, 2)
        share = at_least_single(scores).masked_fill(outside, float("-inf")).softmax(dim=-1)
        context = self.context_out(share.to(tokens.dtype) @ self.linear3(tokens)) + first
        fused = self.fuse_encoder_query(torch.cat([context, phrases], dim=-1))
        states, position = self.query_embed.weight[0].chunk(2)
        return fused + states, fused + position


def context_of_sentence(text_mask: Tensor) -> Tensor:
    """What lies `outside` of a phrase that is the whole sentence: its words only are the context.

    Args:
        text_mask: (B, L) bool, True = token.

    Returns:
        (B, 1, L) bool, True at [CLS], [SEP] and padding.
    """
    place = torch.arange(text_mask.shape[1], device=text_mask.device)
    last = text_mask.sum(dim=1, keepdim=True) - 1
    return keep_one(~text_mask | (place == 0) | (place == last))[:, None]


def context_of_spans(start: Tensor, stop: Tensor, length: int) -> Tensor:
    """What lies `outside` of phrases that are token spans [start, stop) of their sentence.

    Args:
        start, stop: (B, P) int64.
        length: L.

    Returns:
        (B, P, L) bool.
    """
    place = torch.arange(length, device=start.device)
    return keep_one((place < start[..., None]) | (place >= stop[..., None]))


def keep_one(outside: Tensor) -> Tensor:
    """An empty context becomes [CLS] alone, as the release does for unused slots of phrases.

    There it gives NaN for an empty sentence: a softmax over nothing.
    """
    empty = outside.all(dim=-1, keepdim=True)
    first = torch.arange(outside.shape[-1], device=outside.device) == 0
    return outside & ~(empty & first)

"""BEiT-3 (Wang et al., CVPR 2023), which is ALVG's encoder of both modalities and joins them.

Shapes: B samples, S image side, h = w = S / patch, N = h * w cells, T tokens, D width. Every linear
map and norm exists twice, "A" for [CLS] and cells, "B" for tokens; only attention mixes them.
Parameter names are those of the public checkpoints.
"""

from typing import Generic, NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from groundwork.models.alvg.stem import ConvolutionalStem
from groundwork.models.common.precision import at_least_single
from groundwork.models.common.torch_types import Kind

# Rows 0 and 1 of both position tables are never read: fairseq kept them for padding.
FIRST_POSITION = 2


class Encoded(NamedTuple):
    """image (B, D, h, w), text (B, T, D); padded tokens have states, too, made of the others."""

    image: Tensor
    text: Tensor


class Multiway(nn.Module, Generic[Kind]):
    """A module for the first `split` tokens (A) and a twin of it for the rest (B)."""

    def __init__(self, first: Kind, second: Kind):
        super().__init__()
        self.A, self.B = first, second

    def forward(self, states: Tensor, split: int) -> Tensor:
        """(B, tokens, D) -> the same with what the two make of their parts."""
        return self.joined(*parts(states, split))

    def joined(self, first: Tensor, second: Tensor) -> Tensor:
        """`forward` of `parts`."""
        return torch.cat([self.A(first), self.B(second)], dim=1)


def parts(states: Tensor, split: int) -> tuple[Tensor, Tensor]:
    """(B, tokens, D) -> (B, split, D) and (B, tokens - split, D).

    Copies: a linear map of a view takes twice as long on a CPU in half precision.
    """
    return states[:, :split].contiguous(), states[:, split:].contiguous()


def linear(inputs: int, outputs: int) -> Multiway[nn.Linear]:
    return Multiway(nn.Linear(inputs, outputs), nn.Linear(inputs, outputs))


def norm(width: int) -> Multiway[nn.LayerNorm]:
    return Multiway(nn.LayerNorm(width), nn.LayerNorm(width))


class Attention(nn.Module):
    """Self-attention over cells and tokens with a norm before the output projection (Magneto)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (
            linear(width, width) for _ in range(4)
        )
        self.inner_attn_ln = norm(width)

    def forward(self, states: Tensor, split: int, keep: Tensor) -> Tensor:
        """States (B, M, D); keep (B, 1, 1, M) bool, False = a key that nothing attends to."""
        cells_and_tokens = parts(states, split)
        query, key, value = (
            projection.joined(*cells_and_tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=keep)
        mixed = mixed.transpose(1, 2).flatten(2)
        return self.out_proj(self.inner_attn_ln(mixed, split), split)


class FeedForward(nn.Module):
    """Two linear maps with a norm behind the GELU."""

    def __init__(self, width: int, ffn: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, ffn), nn.Linear(ffn, width)
        self.ffn_layernorm = nn.LayerNorm(ffn)

    def forward(self, states: Tensor) -> Tensor:
        # The published code computes the GELU in float32 under half precision, too.
        hidden = F.gelu(at_least_single(self.fc1(states))).to(states.dtype)
        return self.fc2(self.ffn_layernorm(hidden))


class Layer(nn.Module):
    """Attention and feed-forward, norms first; whole branches are dropped in training."""

    def __init__(self, width: int, heads: int, ffn: int, drop_path: float):
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.self_attn_layer_norm, self.final_layer_norm = norm(width), norm(width)
        self.ffn = Multiway(FeedForward(width, ffn), FeedForward(width, ffn))
        self.drop_path = DropPath(drop_path)

    def forward(self, states: Tensor, split: int, keep: Tensor) -> Tensor:
        update = self.self_attn(self.self_attn_layer_norm(states, split), split, keep)
        states = states + self.drop_path(update)
        update = self.ffn(self.final_layer_norm(states, split), split)
        return states + self.drop_path(update)


class VisionEmbedding(nn.Module):
    """Patches to vectors, behind [CLS]. `stem` puts convolutions in the patches' place."""

    def __init__(self, width: int, patch: int, stem: ConvolutionalStem | None):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.proj = nn.Conv2d(3, width, patch, stride=patch) if stem is None else stem

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, 1 + N, D), cells row by row."""
        cells = self.proj(image).flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(cells.shape[0], -1, -1), cells], dim=1)


class Encoder(nn.Module):
    """The layers with the two tables of positions and the last norm."""

    def __init__(
        self,
        depth: int,
        width: int,
        heads: int,
        ffn: int,
        *,
        drop_path: float,
        positions: list[int],
    ):
        super().__init__()
        first, second = (nn.Embedding(rows, width) for rows in positions)
        self.embed_positions = Multiway(first, second)
        rates = [drop_path * layer / max(depth - 1, 1) for layer in range(depth)]
        self.layers = nn.ModuleList(Layer(width, heads, ffn, rate) for rate in rates)
        self.layer_norm = norm(width)

    def forward(self, cells: Tensor, tokens: Tensor, padding: Tensor) -> Tensor:
        """Cells (B, 1 + N, D), tokens (B, T, D), padding (B, T) bool -> (B, 1 + N + T, D)."""
        split = cells.shape[1]
        tokens = tokens + positions_of(self.embed_positions.B, tokens)
        tokens = tokens.masked_fill(padding[..., None], 0)
        states = torch.cat([cells + positions_of(self.embed_positions.A, cells), tokens], dim=1)
        visible = ~padding.new_zeros(padding.shape[0], split)
        keep = torch.cat([visible, ~padding], dim=1)[:, None, None]
        for layer in self.layers:
            states = layer(states, split, keep)
        return self.layer_norm(states, split)


def positions_of(table: nn.Embedding, states: Tensor) -> Tensor:
    """The rows (n, D) of a table that belong to states (B, n, D)."""
    return table.weight[FIRST_POSITION : FIRST_POSITION + states.shape[1]].to(states.dtype)


class BEiT3(nn.Module):
    """Image and text to joint states.

    Args:
        image_size, patch: in pixels; an image must have exactly this size.
        vocabulary, text_positions: rows of the tables of words and of token positions.
        stem: in the place of the patch embedding, see `models/alvg/stem.py`.
        freeze: so many lower layers are not trained.
        deviation: standard deviation of random linear maps; cut at one deviation.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch: int,
        layers: int,
        width: int,
        heads: int,
        ffn: int,
        vocabulary: int,
        text_positions: int = 1024,
        drop_path: float = 0.1,
        stem: ConvolutionalStem | None = None,
        freeze: int = 0,
        deviation: float = 0.02,
    ):
        super().__init__()
        self.image_size, self.patch, self.grid = image_size, patch, image_size // patch
        self.text_embed = nn.Embedding(vocabulary, width)
        self.vision_embed = VisionEmbedding(width, patch, stem)
        self.encoder = Encoder(
            layers,
            width,
            heads,
            ffn,
            drop_path=drop_path,
            positions=[FIRST_POSITION + 1 + self.grid**2, FIRST_POSITION + text_positions],
        )
        self._initialise(deviation)
        for layer in self.encoder.layers[:freeze]:
            layer.requires_grad_(False)

    def _initialise(self, deviation: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.trunc_normal_(module.weight, std=deviation, a=-deviation, b=deviation)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def embed_image(self, image: Tensor) -> Tensor:
        """Image (B, 3, S, S) -> [CLS] and cells (B, 1 + N, D), before they meet any token.

        Raises:
            ValueError: an image of another size.
        """
        side = self.image_size
        if image.shape[-2:] != (side, side):
            raise ValueError(
                f"an image of {tuple(image.shape[-2:])} for an encoder of {side} x {side} pixels: "
                "set data.resize to square and data.image_size to model.encoder.image_size"
            )
        return self.vision_embed(image)

    def forward(self, image: Tensor, ids: Tensor, padding: Tensor) -> Encoded:
        """`embed_image`, then `join`."""
        return self.join(self.embed_image(image), ids, padding)

    def join(self, cells: Tensor, ids: Tensor, padding: Tensor) -> Encoded:
        """Cells (B, 1 + N, D) of `embed_image`, ids (B, T) int64, padding (B, T) bool, True =
        padded.

        Raises:
            ValueError: a text longer than the table of positions.
        """
        longest = self.encoder.embed_positions.B.num_embeddings - FIRST_POSITION
        if ids.shape[1] > longest:
            raise ValueError(f"a text of {ids.shape[1]} tokens; BEiT-3 has positions for {longest}")
        states = self.encoder(cells, self.text_embed(ids).to(cells.dtype), padding)
        count = cells.shape[1]
        image_states = states[:, 1:count].transpose(1, 2).unflatten(-1, (self.grid, self.grid))
        return Encoded(image_states, states[:, count:])

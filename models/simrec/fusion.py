"""How the sentence meets the image in SimREC: products at every scale, then an attention.

Shapes: B images with one sentence each; D width of both; maps of h x w cells.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from groundwork.models.common.distributed import BatchNorm2d

SLOPE = 0.1


def _projection(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), BatchNorm2d(outputs), nn.LeakyReLU(SLOPE))


class SentenceProduct(nn.Module):
    """A map times the sentence, channel by channel, both projected to the same width."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.v_proj, self.q_proj = _projection(channels, width), _projection(width, width)
        self.norm = nn.Sequential(BatchNorm2d(width), nn.LeakyReLU(SLOPE))

    def forward(self, maps: Tensor, sentence: Tensor) -> Tensor:
        """(B, channels, h, w) and (B, D) -> (B, D, h, w)."""
        return self.norm(self.v_proj(maps) * self.q_proj(sentence[..., None, None]))


class CollectDiffuseAttention(nn.Module):
    """GARAN: the sentence collects one vector from all cells, and gives it back to those it fits.

    Args:
        transposed: what is given back has its rows and columns exchanged before it is added to the
            map. So does the released code, and its checkpoints need it.
    """

    def __init__(self, width: int, heads: int, dropout: float, *, transposed: bool = False):
        super().__init__()
        self.heads, self.transposed = heads, transposed
        self.w_qs = nn.Linear(width, width)
        self.w_kc, self.w_kd, self.w_vs = (nn.Conv2d(width, width, 1) for _ in range(3))
        # Published files hold it; it is used nowhere and would get no gradient.
        self.w_m = nn.Conv2d(width, 1, 3, padding=1).requires_grad_(False)
        self.w_o = nn.Conv2d(width, width, 1)
        self.layer_norm = BatchNorm2d(width)
        # Of whole cells: one that is left out collects nothing, or gets nothing from a head.
        self.dropout = nn.Dropout(dropout)

    def forward(self, maps: Tensor, sentence: Tensor) -> Tensor:
        """(B, D, h, w) and (B, D) -> (B, D, h, w)."""
        given = self.diffused(maps, sentence)
        if self.transposed:
            # Cells in the order of columns, read in the order of rows.
            given = given.transpose(-2, -1).reshape(maps.shape)
        return F.leaky_relu(self.layer_norm(self.w_o(given)) + maps, SLOPE)

    def diffused(self, maps: Tensor, sentence: Tensor) -> Tensor:
        """What each cell gets, (B, D, h, w)."""
        query = self.w_qs(sentence).unflatten(-1, (self.heads, -1))  # (B, heads, D / heads)
        collecting, diffusing, values = (
            layer(maps).flatten(2).unflatten(1, (self.heads, -1))  # (B, heads, D / heads, h * w)
            for layer in (self.w_kc, self.w_kd, self.w_vs)
        )
        scale = query.shape[-1] ** -0.5
        share = (scale * query[..., None] * collecting).sum(dim=2).softmax(dim=-1)
        collected = (self.dropout(share)[:, :, None] * values).sum(dim=-1)
        gate = (scale * query[..., None] * diffusing).sum(dim=2).sigmoid()  # (B, heads, h * w)
        given = collected[..., None] * self.dropout(gate)[:, :, None]
        return given.flatten(1, 2).unflatten(-1, maps.shape[-2:])

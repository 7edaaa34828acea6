"""Text-guided image enhancement: cells that resemble the text are made stronger."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundwork.models.common.precision import at_least_single

SMALLEST_DEVIATION = 1e-6


class ImageEnhancement(nn.Module):
    """Scores every cell against the pooled text and multiplies its features by the score.

    Args:
        learn_offset: one learned number is added to the standardised similarity, so that an image
            without any target can score low everywhere (the release's `train_mean`).
    """

    def __init__(self, width: int, dropout: float, *, learn_offset: bool = False):
        super().__init__()
        self.text_proj, self.img_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.offset = nn.Parameter(torch.zeros(())) if learn_offset else 0.0

    def forward(self, cells: Tensor, position: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Cells (B, N, D), position (B, N, D), pooled text (B, D).

        Returns:
            The enhanced cells (B, N, D) and their scores (B, N), in (0, 2) and 1 on average or so.
        """
        cells = self.dropout(self.img_proj(cells + position))
        text = self.dropout(self.text_proj(text))
        # Differences between cosines of neighbouring cells are too small for half precision.
        with torch.autocast(cells.device.type, enabled=False):
            fine_cells, fine_text = at_least_single(cells), at_least_single(text)
            cosine = F.cosine_similarity(fine_cells, fine_text[:, None], dim=-1)
            deviation = cosine.std(dim=1, keepdim=True).clamp(min=SMALLEST_DEVIATION)
            standard = (cosine - cosine.mean(dim=1, keepdim=True)) / deviation
            score = 2 * (standard + self.offset).sigmoid()
        return score[..., None].to(cells.dtype) * cells, score

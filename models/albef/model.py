"""ALBEF (Li et al., NeurIPS 2021): image, text and fusion encoder, momentum twin, queues.

Shapes: B images, L text tokens, N = rows * columns image patches, D width, E embedding width, Q
queue length.

A training forward is lazy: `ALBEF.forward` returns `passes.TrainingPasses`, whose members are
computed when an objective first asks for them and are shared by all objectives.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundwork.models.albef.bert import FusionBertForMaskedLM
from groundwork.models.albef.passes import TrainingPasses
from groundwork.utils import all_gather

MOMENTUM_PAIRS = ("visual_encoder", "text_encoder", "vision_proj", "text_proj")


class ALBEF(nn.Module):
    """The two encoders with their heads; parameter names are those of the published checkpoints.

    Args:
        visual_encoder: images (B, 3, H, W) -> tokens (B, 1 + N, D_image), with
            `patch_embed.grid_size`.
        text_encoder: the fusion BERT.
        embed_dim: E, width of the contrastive embedding.
        temperature: start value of the learned temperature.
        explanation_layer: index of the text layer whose cross-attention explains a match.
    """

    def __init__(
        self,
        visual_encoder: nn.Module,
        text_encoder: FusionBertForMaskedLM,
        *,
        embed_dim: int,
        temperature: float = 0.07,
        explanation_layer: int = 8,
    ):
        super().__init__()
        text_width = text_encoder.bert.embeddings.word_embeddings.embedding_dim
        self.visual_encoder = visual_encoder
        self.text_encoder = text_encoder
        self.vision_proj = nn.Linear(visual_encoder.embed_dim, embed_dim)
        self.text_proj = nn.Linear(text_width, embed_dim)
        self.itm_head = nn.Linear(text_width, 2)
        self.temp = nn.Parameter(torch.tensor(temperature))
        self.explanation_layer = explanation_layer

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of image patches."""
        return self.visual_encoder.patch_embed.grid_size

    def embed_image(self, tokens: Tensor) -> Tensor:
        """Image tokens (B, 1 + N, D) -> unit vectors (B, E)."""
        return F.normalize(self.vision_proj(tokens[:, 0]), dim=-1)

    def embed_text(self, states: Tensor) -> Tensor:
        """Text states (B, L, D) -> unit vectors (B, E)."""
        return F.normalize(self.text_proj(states[:, 0]), dim=-1)

    def match_logits(self, fused: Tensor) -> Tensor:
        """Fused states (n, L, D) -> logits (n, 2); column 1: text and image belong together."""
        return self.itm_head(fused[:, 0])


class MomentumALBEF(ALBEF):
    """ALBEF as it is trained: with momentum twins of its encoders and queues of their features.

    Args beyond ALBEF's:
        visual_encoder_m, text_encoder_m: modules of the same structure; they begin as copies.
        queue_size: Q, number of past features that serve as negatives.
        momentum: weight of the past in the twin's running average.
    """

    def __init__(
        self,
        visual_encoder: nn.Module,
        text_encoder: FusionBertForMaskedLM,
        *,
        visual_encoder_m: nn.Module,
        text_encoder_m: FusionBertForMaskedLM,
        embed_dim: int,
        queue_size: int,
        momentum: float = 0.995,
        temperature: float = 0.07,
        explanation_layer: int = 8,
    ):
        super().__init__(
            visual_encoder,
            text_encoder,
            embed_dim=embed_dim,
            temperature=temperature,
            explanation_layer=explanation_layer,
        )
        self.momentum = momentum
        self.visual_encoder_m = visual_encoder_m
        self.text_encoder_m = text_encoder_m
        self.vision_proj_m = nn.Linear(self.vision_proj.in_features, embed_dim)
        self.text_proj_m = nn.Linear(self.text_proj.in_features, embed_dim)
        for name in ("image_queue", "text_queue"):
            self.register_buffer(name, F.normalize(torch.randn(embed_dim, queue_size), dim=0))
        for name in ("queue_ptr_img", "queue_ptr_txt"):
            self.register_buffer(name, torch.zeros(1, dtype=torch.long))
        self.copy_to_twin()

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        online, twin = [], []
        for name in MOMENTUM_PAIRS:
            online += [p.data for p in self.get_submodule(name).parameters()]
            twin += [p.data for p in self.get_submodule(f"{name}_m").parameters()]
        return online, twin

    def copy_to_twin(self) -> None:
        """Make the twin equal to the online encoders, and keep gradients away from it."""
        for target, source in zip(*reversed(self._pairs()), strict=True):
            target.copy_(source)
        for name in MOMENTUM_PAIRS:
            self.get_submodule(f"{name}_m").requires_grad_(False)

    @torch.no_grad()
    def update_twin(self) -> None:
        """One step of the running average: twin = momentum * twin + (1 - momentum) * online."""
        online, twin = self._pairs()
        torch._foreach_lerp_(twin, online, 1 - self.momentum)

    @torch.no_grad()
    def enqueue(self, image_features: Tensor, text_features: Tensor) -> None:
        """Replace the oldest columns by the features (B, E) of all processes, in rank order.

        Any number of rows is legal: writing wraps around, and of more rows than columns the last
        ones stay.
        """
        for queue, pointer, features in (
            (self.image_queue, self.queue_ptr_img, image_features),
            (self.text_queue, self.queue_ptr_txt, text_features),
        ):
            rows, size = all_gather(features), queue.shape[1]
            first = max(len(rows) - size, 0)
            columns = (pointer + torch.arange(first, len(rows), device=queue.device)) % size
            queue[:, columns] = rows[first:].T.to(queue.dtype)
            pointer.add_(len(rows)).remainder_(size)

    def forward(self, batch: dict) -> TrainingPasses:
        """Begin a step: bound the temperature, move the twin, return the lazy passes of `batch`.

        Args:
            batch: as `dataset.image_text.collate` builds it (`image`, `text_ids`, `text_mask`,
                `paraphrase_index`, `paraphrase_ids`, ...).
        """
        with torch.no_grad():
            self.temp.clamp_(0.001, 0.5)
        self.update_twin()
        return TrainingPasses(self, batch)

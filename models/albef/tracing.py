"""What a comparison of texts with images leaves in ALBEF's attentions, for `METHODS` to read.

Shapes: B images, b of them in a round with c phrases each, n = b * c, H heads, L tokens, S = 1 + N
image tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import cast

import torch
from torch import Tensor

from groundwork.models.albef.model import ALBEF
from groundwork.models.common.attention import AttentionRecorder, FusedAttention
from groundwork.models.common.explain import Attended, Method, Trace


class TraceRecorder:
    """Records the attentions that a method needs, and no others.

    Args:
        model: ALBEF.
        method: one of `METHODS`.
        layer: index of the explained text layer.

    `image` is around the image encoder, `text` around the text layers of a round; `trace` follows.
    """

    def __init__(self, model: ALBEF, method: Method, layer: int):
        self.model = model
        self.gradient = method.gradient
        self.whole = method.layers == "all"
        """Are both encoders' self-attentions recorded?"""
        encoder = model.text_encoder.bert.encoder
        fusion = model.text_encoder.bert.fusion_layers
        explained = [encoder.layer[layer]] if method.layers == "explained" else fusion
        self.first_only = not self.whole and fusion[-1] not in explained
        """Has the last layer only to be computed for [CLS]?"""
        self._looking = [one.crossattention.self for one in explained]
        self._reading = [one.attention.self for one in encoder.layer] if self.whole else []
        blocks = model.visual_encoder.blocks if self.whole else ()
        # timm calls its `fused_attn` final, for TorchScript only.
        self._seeing = [cast(FusedAttention, block.get_submodule("attn")) for block in blocks]
        self._blocks: list[AttentionRecorder] = []
        self._own: list[AttentionRecorder] = []
        self._cross: list[AttentionRecorder] = []

    @contextmanager
    def image(self) -> Iterator[None]:
        """Around the image encoder."""
        with _recorded(self._seeing, leaf=True) as self._blocks:
            yield

    @contextmanager
    def text(self) -> Iterator[None]:
        """Around the text layers."""
        # Graphs begin at the first attention that is recorded of image and of text.
        with (
            _recorded(self._reading, leaf=True) as self._own,
            _recorded(self._looking, leaf=not self.whole) as self._cross,
        ):
            yield

    def trace(self, image_index: Tensor, mask: Tensor, fused: Sequence[Tensor]) -> Trace:
        """Of one round.

        Args:
            image_index: (b,) which of the B images. mask: (n, L) of the texts.
            fused: (n, L, D) states after each fusion layer; of the last maybe only [CLS]'s.
        """
        recorders = [*self._blocks, *self._own, *self._cross]
        found = [
            Attended(one.probabilities.float(), None if slope is None else slope.float())
            for one, slope in zip(recorders, self._gradients(recorders, fused), strict=True)
        ]
        blocks, texts = len(self._blocks), len(self._blocks) + len(self._own)
        return Trace(
            # An image's phrases stood in one row of queries; give each its own maps again.
            cross=[
                _each(one, lambda part: per_phrase(part, mask.shape[0])) for one in found[texts:]
            ],
            text_mask=mask,
            grid=self.model.grid,
            text=found[blocks:texts],
            image=[_each(one, lambda part: part[image_index]) for one in found[:blocks]],
        )

    def _gradients(
        self, recorders: Sequence[AttentionRecorder], fused: Sequence[Tensor]
    ) -> Sequence[Tensor | None]:
        if self.gradient == "none":
            return [None] * len(recorders)
        wanted = [one.probabilities for one in recorders]
        if self.gradient == "match":
            score = self.model.match_logits(fused[-1])[:, 1].sum()
            return torch.autograd.grad(score, wanted, retain_graph=self.whole)
        scores = [self.model.match_logits(states)[:, 1].sum() for states in fused]
        return [
            torch.autograd.grad(score, one, retain_graph=True)[0]
            for score, one in zip(scores, wanted, strict=True)
        ]


@contextmanager
def _recorded(
    attentions: Sequence[FusedAttention], *, leaf: bool
) -> Iterator[list[AttentionRecorder]]:
    """Record several; `leaf`: the graph begins at the first."""
    with ExitStack() as opened:
        yield [
            opened.enter_context(AttentionRecorder(attention, leaf=leaf and not index))
            for index, attention in enumerate(attentions)
        ]


def _each(one: Attended, change: Callable[[Tensor], Tensor]) -> Attended:
    return Attended(
        change(one.probabilities), None if one.gradient is None else change(one.gradient)
    )


def per_phrase(attention: Tensor, texts: int) -> Tensor:
    """(b, H, c * L, S) of b images with c phrases each -> (b * c, H, L, S), b * c = texts."""
    phrases = texts // attention.shape[0]
    return attention.unflatten(2, (phrases, -1)).transpose(1, 2).flatten(0, 1)

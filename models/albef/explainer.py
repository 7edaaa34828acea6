"""ALBEF at evaluation: one image encoded once, every one of its phrases explained.

Shapes: B images, T phrases of all of them, L tokens, N = h * w patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from groundwork.models.albef.bert import KeysValues
from groundwork.models.albef.model import ALBEF
from groundwork.models.albef.tracing import TraceRecorder
from groundwork.models.common.attention import AttentionRecorder, FusedAttention
from groundwork.models.common.explain import METHODS, Trace
from groundwork.models.common.image_first import ImageFirst

if TYPE_CHECKING:
    from groundwork.dataset.batches import ImageTextEvalBatch


class Looked(NamedTuple):
    """Images as the fusion layers read them, and what was recorded of how they were encoded;
    features: (B, E), the unit vectors of the contrastive space."""

    recorder: TraceRecorder
    layers: list[KeysValues]
    features: Tensor


class Compared(NamedTuple):
    """What the similarity of images is explained by: the recorded self-attention (B, heads, 1 + N,
    1 + N) of a block, with the graph from there to the images' features (B, E)."""

    attention: Tensor
    features: Tensor


class Explainer(ImageFirst):
    """Heat maps of phrases; only the explained attentions need a gradient.

    Args:
        model: ALBEF.
        mode: "itm": cross-attention of the text layers, explained through the matching logit.
            "itc": self-attention of image block `layer`, [CLS] row, explained through the
            contrastive similarity.
        layer: which layer or block; the model's explanation layer if None.
        method: one of `METHODS`; mode "itc" knows "gradcam" alone.
    """

    inputs: ClassVar[tuple[str, ...]] = ("image", "text_ids", "text_mask")
    outputs: ClassVar[tuple[str, ...]] = (
        "heatmaps", "token_maps", "score", "evidence", "image_features", "text_features",
    )  # fmt: skip
    # A text is some more rows of queries to the same keys: few of them use a processor badly.
    texts_at_once = 64

    def __init__(
        self,
        model: ALBEF,
        *,
        mode: str = "itm",
        layer: int | None = None,
        method: str = "gradcam",
    ):
        super().__init__()
        self.model = model
        self.layer = model.explanation_layer if layer is None else layer
        steps: dict[str, tuple[Callable[[Tensor], Any], Callable[..., dict[str, Tensor]]]] = {
            "itm": (self._look, self._by_matching),
            "itc": (self._compare, self._by_similarity),
        }
        self._encode, self._explain = steps[mode]
        self.method = METHODS[method]
        self.needs_gradient = self.method.gradient != "none"
        self.separable = mode == "itm" and self.method.layers != "all"
        self._key = f"method {method}" if mode == "itm" else f"mode {mode}"
        depth = len(
            model.text_encoder.bert.encoder.layer if mode == "itm" else model.visual_encoder.blocks
        )
        first = model.text_encoder.bert.fusion_layer if mode == "itm" else 0
        if not first <= self.layer < depth:
            raise ValueError(
                f"layer {self.layer} has no attention that mode {mode!r} could explain: "
                f"choose one of {first}..{depth - 1} (--block_num)"
            )

    def encode(self, batch: ImageTextEvalBatch) -> Looked | Compared:
        """`image` (B, 3, H, W); what a gradient reaches of its encoding is kept with its graph."""
        with self._computing():
            return self._encode(batch["image"])

    def answer(self, seen: Looked | Compared, batch: ImageTextEvalBatch) -> dict[str, Tensor]:
        """Explain the phrases of an evaluation batch.

        Args:
            seen: of `encode`, of B images.
            batch: `text_ids`, `text_mask` (T, L); `phrase_image` (T,), which image a phrase belongs
                to, not decreasing; maybe `words`.

        Returns:
            `heatmaps` (T, h, w), not negative, not scaled; `score` (T,): the logit of a match, or
            the similarity over temperature; `evidence` (T,): the log odds of a match (positive:
            they belong together), or the same similarity; with `words` in the batch `token_maps`
            (T, L, h, w), of which the first is [CLS]'s.
        """
        with self._computing():
            return self._explain(seen, batch)

    def answer_each(self, seen: Looked | Compared, batch: ImageTextEvalBatch) -> dict[str, Tensor]:
        """See `ImageFirst`; `phrase_image` need not be in order.

        Returns:
            As `answer`, always with `token_maps`; also `image_features` (B, E) and `text_features`
            (T, E), the unit vectors of the contrastive space.

        Raises:
            ValueError: maps that the image encoder's own attentions explain.
        """
        if isinstance(seen, Compared) or (seen.recorder.whole and self.needs_gradient):
            raise ValueError(
                f"model.explanation.{self._key} cannot be exported: every phrase needs a gradient"
                " in the image encoder; set model.explanation to mode itm and another method"
            )
        model, mask = self.model, batch["text_mask"]
        with self._computing():
            states = model.text_encoder.bert.text(batch["text_ids"], mask)
            below = None if seen.recorder.whole else states
            trace, logits = self._round(seen, batch["phrase_image"], batch["text_ids"], mask, below)
            unmatched, matched = logits.unbind(dim=1)
            return {
                "heatmaps": self.method.heatmaps(trace).detach(),
                "token_maps": self.method.tokens(trace).detach(),
                "score": matched,
                "evidence": matched - unmatched,
                "image_features": seen.features,
                "text_features": model.embed_text(states).detach(),
            }

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with torch.set_grad_enabled(self.needs_gradient), frozen(self.model):
            yield

    def _look(self, image: Tensor) -> Looked:
        model, recorder = self.model, TraceRecorder(self.model, self.method, self.layer)
        with recorder.image():
            tokens = model.visual_encoder(image)
            layers = model.text_encoder.bert.image_keys_values(tokens)
            return Looked(recorder, layers, model.embed_image(tokens).detach())

    def _by_matching(self, seen: Looked, batch: ImageTextEvalBatch) -> dict[str, Tensor]:
        model, bert, ids = self.model, self.model.text_encoder.bert, batch["text_ids"]
        mask, images, whole = batch["text_mask"], seen.layers, seen.recorder.whole
        states = None if whole else bert.text(ids, mask)
        heatmaps = images[0].keys.new_zeros((len(ids), *model.grid), dtype=torch.float32)
        logits = images[0].keys.new_zeros((len(ids), 2), dtype=torch.float32)
        tokens = heatmaps.new_zeros((*ids.shape, *model.grid)) if "words" in batch else None
        # The image encoder's attentions have a gradient of their own for each phrase of an image.
        most = 1 if whole else None
        for image_index, rows, real in phrase_rounds(
            batch["phrase_image"], len(images[0].keys), most
        ):
            below = None if states is None else states[rows]
            trace, matching = self._round(seen, image_index, ids[rows], mask[rows], below)
            heatmaps[rows[real]] = self.method.heatmaps(trace)[real].detach()
            if tokens is not None:
                tokens[rows[real]] = self.method.tokens(trace)[real].detach()
            logits[rows[real]] = matching[real]
        unmatched, matched = logits.unbind(dim=1)
        found = {"heatmaps": heatmaps, "score": matched, "evidence": matched - unmatched}
        return found if tokens is None else found | {"token_maps": tokens}

    def _round(
        self, seen: Looked, image_index: Tensor, ids: Tensor, mask: Tensor, below: Tensor | None
    ) -> tuple[Trace, Tensor]:
        """What n texts, n / b for each of the images `image_index` (b,), leave in the attentions,
        and their matching logits (n, 2); `below`: their states before the fusion, if they are
        computed already."""
        bert, recorder = self.model.text_encoder.bert, seen.recorder
        views = [KeysValues(*(part[image_index] for part in layer)) for layer in seen.layers]
        with recorder.text():
            if below is None:
                below = bert.text(ids, mask)
            fused = list(bert.fused_layers(below, mask, views, first_only=recorder.first_only))
        trace = recorder.trace(image_index, mask, fused)
        return trace, self.model.match_logits(fused[-1]).detach().float()

    def _compare(self, image: Tensor) -> Compared:
        model = self.model
        attention = model.visual_encoder.get_submodule(f"blocks.{self.layer}.attn")
        # timm calls its `fused_attn` final, for TorchScript only.
        with AttentionRecorder(cast(FusedAttention, attention), leaf=True) as recorder:
            features = model.embed_image(model.visual_encoder(image))
        return Compared(recorder.probabilities, features)

    def _by_similarity(self, seen: Compared, batch: ImageTextEvalBatch) -> dict[str, Tensor]:
        model, owner = self.model, batch["phrase_image"]
        texts = model.embed_text(
            model.text_encoder.bert.text(batch["text_ids"], batch["text_mask"])
        )
        scores = (seen.features[owner] * texts).sum(-1) / model.temp
        heatmaps = texts.new_zeros((len(texts), *model.grid), dtype=torch.float32)
        place = place_in_image(owner)
        for turn in range(int(place.max()) + 1):
            rows = (place == turn).nonzero().flatten()
            (gradient,) = torch.autograd.grad(scores[rows].sum(), seen.attention, retain_graph=True)
            # Row [CLS] of the self-attention, without its look at itself: the cells of the image.
            support = (seen.attention * gradient.relu())[owner[rows], :, 0, 1:]
            heatmaps[rows] = support.mean(dim=1).detach().float().unflatten(-1, model.grid)
        scores = scores.detach().float()
        return {"heatmaps": heatmaps, "score": scores, "evidence": scores}


class Matching(nn.Module):
    """How well phrases fit to their images, without a map."""

    def __init__(self, model: ALBEF):
        super().__init__()
        self.model = model

    @torch.no_grad()
    def forward(self, batch: ImageTextEvalBatch) -> Tensor:
        """(T,) float32: log odds of a match; `batch` as of `Explainer`."""
        model, bert = self.model, self.model.text_encoder.bert
        images = bert.image_keys_values(model.visual_encoder(batch["image"]))
        states, mask = bert.text(batch["text_ids"], batch["text_mask"]), batch["text_mask"]
        odds = states.new_zeros(len(states), dtype=torch.float32)
        for index, rows, real in phrase_rounds(batch["phrase_image"], len(batch["image"])):
            views = [layer.select(index) for layer in images]
            logits = model.match(states[rows], mask[rows], views)
            unmatched, matched = logits.float()[real].unbind(1)
            odds[rows[real]] = matched - unmatched
        return odds


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No parameter needs a gradient inside: a model in training is explained as cheaply as any."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def place_in_image(phrase_image: Tensor) -> Tensor:
    """(T,) not decreasing image numbers -> (T,) how many phrases of its image precede each."""
    first = torch.searchsorted(phrase_image, phrase_image)
    return torch.arange(len(phrase_image), device=phrase_image.device) - first


def phrase_rounds(
    phrase_image: Tensor, images: int, most: int | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Arrange phrases so that images with few and with many of them can be fused together.

    Each round takes the next c phrases of every image that has some left; c is `most`, or the mean
    number of phrases.

    Yields:
        image_index (b,): the images of this round; rows (b * c,): their phrases, c per image, an
        image with fewer left repeats one; real (b * c,) bool: false for the repetitions.
    """
    counts = torch.bincount(phrase_image, minlength=images)
    firsts = counts.cumsum(0) - counts
    chunk = most or max(1, -(-len(phrase_image) // images))
    for start in range(0, int(counts.max()), chunk):
        image_index = (counts > start).nonzero().flatten()
        offset = start + torch.arange(chunk, device=counts.device)
        real = offset < counts[image_index, None]
        offset = torch.minimum(offset.expand_as(real), counts[image_index, None] - 1)
        yield image_index, (firsts[image_index, None] + offset).flatten(), real.flatten()

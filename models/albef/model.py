"""ALBEF (Li et al., NeurIPS 2021): image, text and fusion encoder, and how they are trained.

`ALBEF` is what an evaluation needs. `MomentumALBEF.forward` and what follows it, read downwards, is
a training forward of ALBEF, AMC and SelfEQ: the images, the texts with their images (fusion and
explanation, ITC, ITM, MLM), the queues. `objectives/` has the losses of what it gives.

Shapes: B images, P texts, each with its image, L text tokens, N = rows * columns image patches, D
width, E embedding width, Q queue length, V vocabulary, n hidden words.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from operator import or_
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from groundwork.models.albef.bert import FusionBertForMaskedLM, KeysValues
from groundwork.models.albef.passes import Images, Needs, Pairs, Passes, Words, needed
from groundwork.models.common.attention import AttentionRecorder, unfused
from groundwork.models.common.heatmap import explanation, min_max
from groundwork.models.common.torch_types import submodule
from groundwork.utils import all_gather

if TYPE_CHECKING:
    from groundwork.dataset.batches import ImageTextTrainBatch

MOMENTUM_PAIRS = ("visual_encoder", "text_encoder", "vision_proj", "text_proj")


class ALBEF(nn.Module):
    """The two encoders with their heads; parameter names are those of the published checkpoints.

    Args:
        visual_encoder: images (B, 3, H, W) -> tokens (B, 1 + N, D_image).
        text_encoder: the fusion BERT.
        embed_dim: E, width of the contrastive embedding.
        temperature: start value of the learned temperature.
        explanation_layer: index of the text layer whose cross-attention explains a match.
    """

    def __init__(
        self,
        visual_encoder: VisionTransformer,
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
        rows, columns = submodule(self.visual_encoder, "patch_embed", PatchEmbed).grid_size
        return rows, columns

    def embed_image(self, tokens: Tensor) -> Tensor:
        """Image tokens (B, 1 + N, D) -> unit vectors (B, E)."""
        return unit_features(self.vision_proj, tokens)

    def embed_text(self, states: Tensor) -> Tensor:
        """Text states (B, L, D) -> unit vectors (B, E)."""
        return unit_features(self.text_proj, states)

    def match_logits(self, fused: Tensor) -> Tensor:
        """Fused states (P, L, D) -> logits (P, 2); column 1: text and image belong together.

        Of the states only the first, that of [CLS], is read.
        """
        return self.itm_head(fused[:, 0])

    def match(self, states: Tensor, mask: Tensor, image: list[KeysValues]) -> Tensor:
        """The logits (B * P, 2) of P texts for each of B images; arguments as of `fused_layers`."""
        fused = self.text_encoder.bert.fuse(states, mask, image, first_only=True)
        return self.match_logits(fused)


class MomentumALBEF(ALBEF):
    """ALBEF as it is trained: with momentum twins of its encoders and queues of their features.

    Args beyond ALBEF's:
        visual_encoder_m, text_encoder_m: modules of the same structure; they begin as copies.
        queue_size: Q, number of past features that serve as negatives.
        momentum: weight of the past in the twin's running average.
    """

    image_queue: Tensor
    text_queue: Tensor
    queue_ptr_img: Tensor
    queue_ptr_txt: Tensor

    def __init__(
        self,
        visual_encoder: VisionTransformer,
        text_encoder: FusionBertForMaskedLM,
        *,
        visual_encoder_m: VisionTransformer,
        text_encoder_m: FusionBertForMaskedLM,
        embed_dim: int,
        queue_size: int,
        momentum: float = 0.995,
        **of_albef: Any,
    ):
        super().__init__(visual_encoder, text_encoder, embed_dim=embed_dim, **of_albef)
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

    def forward(self, batch: ImageTextTrainBatch) -> Callable[[dict[str, Needs]], Passes]:
        """Begin a step: bound the temperature, move the twin.

        Returns the rest, `passes` of this batch, for the criterion: it knows what is needed.
        """
        with torch.no_grad():
            self.temp.clamp_(0.001, 0.5)
        self.update_twin()
        return partial(self.passes, batch)

    def passes(self, batch: ImageTextTrainBatch, needs: dict[str, Needs]) -> Passes:
        """The training forward, as far as the objectives need it; their losses follow.

        Args:
            batch: as `dataset.image_text.collate` builds it: `image` (B, 3, H, W); the phrases'
                `text_ids`, `text_mask` (B, L); `paraphrase_ids`, `paraphrase_mask` (P, L) of the
                images `paraphrase_index` (P,).
            needs: of "phrase", "paraphrase" or both; they run, and draw at random, in this order.
        """
        images = self.encode_images(batch["image"], reduce(or_, needs.values()))
        pairs = {}
        for text, need in needs.items():
            if text == "phrase":
                ids, mask, seen = batch["text_ids"], batch["text_mask"], images
            else:
                ids, mask = batch["paraphrase_ids"], batch["paraphrase_mask"]
                seen = images.select(batch["paraphrase_index"])
            pairs[text] = self.encode_pairs(ids, mask, seen, need)
        if "phrase" in needs and needs["phrase"].features:
            twin = needed(images.twin)
            self.enqueue(needed(twin.features), needed(pairs["phrase"].momentum_features))
        return Passes(images, **pairs)

    def encode_images(self, image: Tensor, need: Needs) -> Images:
        """Images (B, 3, H, W), once for all texts."""
        tokens = self.visual_encoder(image)  # (B, 1 + N, D)
        fused = need.heatmaps or need.matching or need.hide_words is not None
        layers = self.text_encoder.bert.image_keys_values(tokens) if fused else []
        if not need.features:
            return Images(layers)
        with torch.no_grad():
            twin_tokens, twin_bert = self.visual_encoder_m(image), self.text_encoder_m.bert
            twin_layers = twin_bert.image_keys_values(twin_tokens) if need.distil_over else []
            twin = Images(twin_layers, unit_features(self.vision_proj_m, twin_tokens))
        return Images(layers, self.embed_image(tokens), twin)

    def encode_pairs(self, ids: Tensor, mask: Tensor, images: Images, need: Needs) -> Pairs:
        """Texts (P, L), phrases or paraphrases, each with its image, as far as `need` says."""
        pairs, bert = Pairs(), self.text_encoder.bert
        states = bert.text(ids, mask)  # (P, L, D)
        # Fusion of the true pairs; for AMC and SelfEQ with the explanation of why they match.
        if need.heatmaps:
            pairs.match_logits, pairs.heatmaps = self.explain(states, mask, images)
        elif need.matching:
            pairs.match_logits = self.match(states, mask, images.keys_values)
        if need.features:
            pairs.features = self.embed_text(states)
            with torch.no_grad():
                momentum_states = self.text_encoder_m.bert.text(ids, mask)
                pairs.momentum_features = unit_features(self.text_proj_m, momentum_states)
        if need.contrast:
            # ITC (ALBEF, section 3.2): s(image, text) / temperature, against the twin's features of
            # the batch and of the queues; the twin's own similarities become soft targets.
            image, text = needed(images.features), needed(pairs.features)
            twin_image = needed(needed(images.twin).features)
            twin_text = needed(pairs.momentum_features)
            all_texts = torch.cat([twin_text.T, self.text_queue], dim=1)
            all_images = torch.cat([twin_image.T, self.image_queue], dim=1)  # (E, P + Q)
            to_text = image @ all_texts / self.temp  # (P, P + Q)
            to_image = text @ all_images / self.temp
            with torch.no_grad():
                momentum_to_text = twin_image @ all_texts / self.temp
                momentum_to_image = twin_text @ all_images / self.temp
            pairs.similarities = (to_text, momentum_to_text), (to_image, momentum_to_image)
        if need.matching and len(ids) > 1:
            pairs.wrong_logits = self.mismatch(states, mask, images, pairs.similarities, need)
        if need.hide_words:
            pairs.words = self.restore_words(ids, mask, images, need)
        return pairs

    def mismatch(
        self,
        states: Tensor,
        mask: Tensor,
        images: Images,
        similarities: tuple[tuple[Tensor, Tensor], ...] | None,
        need: Needs,
    ) -> Tensor:
        """Match logits of wrong pairs for ITM (ALBEF, section 3.2), drawn from the batch: each text
        with a wrong image, (P, 2), and with "both" each image with a wrong text, (2 P, 2).

        Alike ones are drawn more often; without similarities any.
        """
        none = states.new_zeros(len(states), len(states))
        to_text, to_image = (own for own, _ in similarities) if similarities else (none, none)
        if need.matching == "images":
            wrong_images = images.select(draw_negatives(to_image)).keys_values
            return self.match(states, mask, wrong_images)
        wrong_text, wrong_image = draw_negatives(to_text), draw_negatives(to_image)
        layers = [
            KeysValues(*map(torch.cat, zip(layer.select(wrong_image), layer, strict=True)))
            for layer in images.keys_values
        ]
        texts = torch.cat([states, states.index_select(0, wrong_text)])
        return self.match(texts, torch.cat([mask, mask[wrong_text]]), layers)

    def explain(self, states: Tensor, mask: Tensor, images: Images) -> tuple[Tensor, Tensor]:
        """Match logits (P, 2) of the true pairs and their heat maps (P, rows, columns) in [0, 1].

        AMC, section 3: A * relu(ds / dA), mean over heads and tokens; A is the explained layer's
        attention to the image, s the logit that they match.
        """
        bert = self.text_encoder.bert
        layers = bert.encoder.layer[self.explanation_layer :]
        attentions = [attention for layer in layers for attention in layer.attentions()]
        # The map's gradient is differentiated again: nothing compiled and no fused kernel between
        # the attention and the logit.
        recorder = AttentionRecorder(layers[0].crossattention.self)
        with torch.compiler.set_stance("force_eager"), unfused(attentions), recorder:
            fused = bert.fuse(states, mask, images.keys_values, first_only=len(layers) > 1)
        logits = self.match_logits(fused)
        gradient = recorder.gradient(logits[:, 1].sum(), create_graph=True)
        maps = explanation(recorder.probabilities.float(), gradient.float(), mask, self.grid)
        return logits, min_max(maps)

    def restore_words(self, ids: Tensor, mask: Tensor, images: Images, need: Needs) -> Words:
        """MLM (ALBEF, section 3.2): what the other words and the image tell of the hidden ones."""
        text, twin = self.text_encoder, self.text_encoder_m
        shown, hidden = needed(need.hide_words)(ids)
        # Found once: on a GPU every indexing by a mask would wait for its count again.
        places = hidden.nonzero(as_tuple=True)
        states = text.bert(shown, mask, images.keys_values)
        over_tokens = need.distil_over == "tokens"
        every_score = text.predict_words(states if over_tokens else states[places])
        scores = every_score[places] if over_tokens else every_score
        if need.distil_over is None:
            return Words(ids[places], scores)
        student = every_score.log_softmax(1)[places] if over_tokens else scores.log_softmax(-1)
        with torch.no_grad():
            states = twin.bert(shown, mask, needed(images.twin).keys_values)
            teacher = twin.predict_words(states[places]).softmax(dim=-1)
        return Words(ids[places], scores, student, teacher)

    def _averaged(self, suffix: str = "") -> list[Tensor]:
        modules = [self.get_submodule(name + suffix) for name in MOMENTUM_PAIRS]
        return [parameter.data for module in modules for parameter in module.parameters()]

    def copy_to_twin(self) -> None:
        """Make the twin equal to the online encoders, and keep gradients away from it."""
        for target, source in zip(self._averaged("_m"), self._averaged(), strict=True):
            target.copy_(source)
        for name in MOMENTUM_PAIRS:
            self.get_submodule(f"{name}_m").requires_grad_(False)

    @torch.no_grad()
    def update_twin(self) -> None:
        """One step of the running average: twin = momentum * twin + (1 - momentum) * online."""
        torch._foreach_lerp_(self._averaged("_m"), self._averaged(), 1 - self.momentum)

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


def unit_features(projection: nn.Linear, states: Tensor) -> Tensor:
    """States (n, length, D) of images or texts -> unit vectors (n, E) of their [CLS]."""
    return F.normalize(projection(states[:, 0]), dim=-1)


@torch.no_grad()
def draw_negatives(similarities: Tensor) -> Tensor:
    """For each of P rows another row's index, (P,): similar ones more often, never its own.

    `similarities` is (P, P + Q); only the batch's own columns take part.
    """
    rows = len(similarities)
    own = torch.eye(rows, dtype=torch.bool, device=similarities.device)
    others = similarities[:, :rows].float().masked_fill(own, float("-inf"))
    return torch.multinomial(others.softmax(-1), 1).flatten()

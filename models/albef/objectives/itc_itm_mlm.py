"""ALBEF's three losses (Li et al., NeurIPS 2021, section 3.2) for one text per image.

- `ita`, image-text alignment (ITC in the paper): contrast against the momentum features of batch
  and queue;
- `itm`, image-text matching: true pairs against hard negatives drawn from the batch;
- `mlm`, masked-language modelling with the image, distilled from the momentum encoder.

Shapes: P pairs, L tokens, V vocabulary, Q queue length.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundwork.models.albef.bert import KeysValues
from groundwork.models.albef.passes import PhrasePasses, TrainingPasses


class TokenMasker:
    """Draws what masked-language modelling has to restore.

    Of the tokens that are neither padding nor [CLS], `probability` are selected; of these 80 %
    become [MASK], 10 % a random id, and 10 % stay as they are.
    """

    def __init__(
        self, *, vocab_size: int, pad_id: int, cls_id: int, mask_id: int, probability: float = 0.15
    ):
        self.vocab_size = vocab_size
        self.pad_id = pad_id
        self.cls_id = cls_id
        self.mask_id = mask_id
        self.probability = probability

    def __call__(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids (P, L) -> ids to show (P, L), and which are to be restored (P, L) bool."""
        draw = torch.rand(ids.shape, device=ids.device)
        selected = (draw < self.probability) & (ids != self.pad_id) & (ids != self.cls_id)
        fate = torch.rand(ids.shape, device=ids.device)
        shown = torch.where(selected & (fate < 0.8), self.mask_id, ids)
        random_ids = torch.randint_like(ids, self.vocab_size)
        return torch.where(selected & (fate >= 0.9), random_ids, shown), selected


def soft_cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """Scores and target probabilities (n, classes) -> -sum(targets * log softmax(scores)), (n,)."""
    return -(targets * scores.log_softmax(-1)).sum(-1)


@torch.no_grad()
def draw_negatives(similarities: Tensor) -> Tensor:
    """For each of P rows another row's index, (P,): similar ones more often, never its own.

    `similarities` is (P, P + Q); only the batch's own columns take part.
    """
    rows = len(similarities)
    own = torch.eye(rows, dtype=torch.bool, device=similarities.device)
    others = similarities[:, :rows].float().masked_fill(own, float("-inf"))
    return torch.multinomial(others.softmax(-1), 1).flatten()


class ImageTextLosses(nn.Module):
    """ITA + ITM + MLM.

    Args:
        masker: ids -> (shown ids, selected), see `TokenMasker`.
        alpha: weight of the momentum encoder's soft targets against the one-hot ones.
        mlm_distill_over: "vocabulary", or "tokens": the released distillation takes its log-softmax
            over the token axis while the soft labels are a softmax over the vocabulary.
    """

    uses_heatmaps = False
    uses_queue = True

    def __init__(
        self,
        masker: Callable[[Tensor], tuple[Tensor, Tensor]],
        *,
        alpha: float = 0.4,
        mlm_distill_over: str = "vocabulary",
    ):
        super().__init__()
        self.masker = masker
        self.alpha = alpha
        self.mlm_distill_over = mlm_distill_over
        self.ramp = 1.0

    def forward(self, passes: TrainingPasses, _batch: dict) -> dict[str, Tensor]:
        """Scalars `loss_{mlm,ita,itm}` of every sample's phrase, and `itm_accuracy`."""
        losses = self.of_pairs(passes.phrase)
        return {
            "loss_mlm": losses["mlm"],
            "loss_ita": losses["ita"],
            "loss_itm": losses["itm"],
            "itm_accuracy": losses["itm_accuracy"],
        }

    def of_pairs(self, pairs: PhrasePasses) -> dict[str, Tensor]:
        """The scalars `mlm`, `ita`, `itm` and `itm_accuracy` of P pairs."""
        matching, accuracy = self.matching(pairs)
        return {
            "mlm": self.masked_language(pairs),
            "ita": self.alignment(pairs),
            "itm": matching,
            "itm_accuracy": accuracy,
        }

    def alignment(self, pairs: PhrasePasses) -> Tensor:
        """Mean of the two soft cross-entropies, image to text and text to image."""
        to_text, to_image, momentum_to_text, momentum_to_image = pairs.similarities
        alpha, own = self.alpha * self.ramp, torch.eye(*to_text.shape, device=to_text.device)
        losses = [
            soft_cross_entropy(scores, alpha * teacher.softmax(-1) + (1 - alpha) * own).mean()
            for scores, teacher in ((to_text, momentum_to_text), (to_image, momentum_to_image))
        ]
        return (losses[0] + losses[1]) / 2

    def matching(self, pairs: PhrasePasses) -> tuple[Tensor, Tensor]:
        """Cross-entropy of 3 P pairs: true ones, texts with wrong images, images with wrong texts.

        Returns the loss and the accuracy over the 3 P decisions.
        """
        model, size = pairs.model, len(pairs)
        logits = pairs.match_logits
        if size == 1:
            warnings.warn(
                "a batch with a single image-text pair has no negative: its matching loss is 0. "
                "Use a batch size of 2 or more per process.",
                stacklevel=2,
            )
            return 0.0 * logits.sum(), (logits.argmax(-1) == 1).float().mean()
        to_text, to_image, *_ = pairs.similarities
        wrong_text, wrong_image = draw_negatives(to_text), draw_negatives(to_image)
        images = [
            KeysValues(*map(torch.cat, zip(layer.select(wrong_image), layer, strict=True)))
            for layer in pairs.keys_values
        ]
        states = torch.cat([pairs.states, pairs.states.index_select(0, wrong_text)])
        mask = torch.cat([pairs.mask, pairs.mask[wrong_text]])
        negative = model.match_logits(model.text_encoder.bert.fuse(states, mask, images))
        logits = torch.cat([logits, negative])
        labels = (torch.arange(3 * size, device=logits.device) < size).long()
        return F.cross_entropy(logits, labels), (logits.argmax(-1) == labels).float().mean()

    def masked_language(self, pairs: PhrasePasses) -> Tensor:
        """Cross-entropy with the hidden tokens, mixed with distillation; 0 if none was selected."""
        shown, selected = self.masker(pairs.ids)
        model, alpha = pairs.model, self.alpha * self.ramp
        # Found once: on a GPU every indexing by a mask would wait for its count again.
        places = selected.nonzero(as_tuple=True)
        states = model.text_encoder.bert(shown, pairs.mask, pairs.keys_values)
        of_tokens = alpha > 0 and self.mlm_distill_over == "tokens"
        every_score = model.text_encoder.predict_words(states) if of_tokens else None
        scores = (
            model.text_encoder.predict_words(states[places])
            if every_score is None
            else every_score[places]
        )
        total = (1 - alpha) * F.cross_entropy(scores, pairs.ids[places], reduction="sum")
        if alpha > 0:
            teacher = self._teacher(pairs, shown, places)
            if every_score is None:
                distillation = soft_cross_entropy(scores, teacher)
            else:
                distillation = -(teacher * every_score.log_softmax(dim=1)[places]).sum(-1)
            total = total + alpha * distillation.sum()
        return total / max(len(scores), 1)

    @torch.no_grad()
    def _teacher(self, pairs: PhrasePasses, shown: Tensor, places: tuple[Tensor, ...]) -> Tensor:
        """The momentum encoder's probabilities (n, V) of the n hidden tokens."""
        text = pairs.model.text_encoder_m
        states = text.bert(shown, pairs.mask, pairs.momentum_keys_values)
        return text.predict_words(states[places]).softmax(-1)

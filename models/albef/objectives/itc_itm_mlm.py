"""ALBEF's three losses (Li et al., NeurIPS 2021, section 3.2) for one text per image.

- `ita`, image-text alignment (ITC in the paper): contrast against the momentum features of batch
  and queue;
- `itm`, image-text matching: true pairs against hard negatives drawn from the batch;
- `mlm`, masked-language modelling with the image, distilled from the momentum encoder.

Shapes: P pairs, L tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from groundwork.models.albef.passes import Needs, Pairs, Passes, Words, needed

if TYPE_CHECKING:
    from groundwork.dataset.batches import ImageTextTrainBatch


@dataclass(frozen=True, kw_only=True)
class TokenMasker:
    """Draws what masked-language modelling has to restore.

    Of the tokens that are neither padding nor [CLS], `probability` are selected; of these 80 %
    become [MASK], 10 % a random id, and 10 % stay as they are.
    """

    vocab_size: int
    pad_id: int
    cls_id: int
    mask_id: int
    probability: float = 0.15

    def __call__(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids (P, L) -> ids to show (P, L), and which are to be restored (P, L) bool."""
        draw = torch.rand(ids.shape, device=ids.device)
        selected = (draw < self.probability) & (ids != self.pad_id) & (ids != self.cls_id)
        fate = torch.rand(ids.shape, device=ids.device)
        shown = torch.where(selected & (fate < 0.8), self.mask_id, ids)
        random_ids = torch.randint_like(ids, self.vocab_size)
        return torch.where(selected & (fate >= 0.9), random_ids, shown), selected


def soft_cross_entropy(log_probabilities: Tensor, targets: Tensor) -> Tensor:
    """Log and target probabilities (n, classes) -> -sum(targets * log probabilities), (n,)."""
    return -(targets * log_probabilities).sum(-1)


@dataclass
class ImageTextLosses:
    """ITA + ITM + MLM.

    Args:
        masker: ids -> (shown ids, selected), see `TokenMasker`.
        alpha: weight of the momentum encoder's soft targets against the one-hot ones.
        terms: those of the three that are computed.
        wrong_pairs: of itm, "both" or "images", see `albef.passes.Needs`.
        mlm_distill_over: "vocabulary", or "tokens": the released distillation takes its log-softmax
            over the token axis while the soft labels are a softmax over the vocabulary.
    """

    masker: Callable[[Tensor], tuple[Tensor, Tensor]]
    _: KW_ONLY
    terms: frozenset[str] = frozenset({"mlm", "ita", "itm"})
    wrong_pairs: str = "both"
    alpha: float = 0.4
    mlm_distill_over: str = "vocabulary"
    ramp: float = field(default=1.0, init=False)

    def start_step(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        """Soft targets fade in over epoch 0."""
        self.ramp = min(1.0, step / steps_per_epoch) if epoch == 0 else 1.0

    def needs(self, _batch: ImageTextTrainBatch) -> dict[str, Needs]:
        distil_over = self.mlm_distill_over if self.alpha * self.ramp > 0 else None
        restored, contrasted = "mlm" in self.terms, "ita" in self.terms
        need = Needs(
            features=contrasted or (restored and distil_over is not None),
            contrast=contrasted,
            matching=self.wrong_pairs if "itm" in self.terms else None,
            hide_words=self.masker if restored else None,
            distil_over=distil_over if restored else None,
        )
        return {"phrase": need}

    def __call__(self, passes: Passes, _batch: ImageTextTrainBatch) -> dict[str, Tensor]:
        """Scalars `loss_{mlm,ita,itm}` of every sample's phrase, and `itm_accuracy`."""
        return self.of_pairs(needed(passes.phrase), "")

    def of_pairs(self, pairs: Pairs, prefix: str) -> dict[str, Tensor]:
        """The scalars `loss_{prefix}{mlm,ita,itm}` of P pairs, and `{prefix}itm_accuracy`."""
        found: dict[str, Tensor] = {}
        if "mlm" in self.terms:
            found[f"loss_{prefix}mlm"] = self.masked_language(needed(pairs.words))
        if "ita" in self.terms:
            found[f"loss_{prefix}ita"] = self.alignment(needed(pairs.similarities))
        if "itm" in self.terms:
            itm, accuracy = self.matching(needed(pairs.match_logits), pairs.wrong_logits)
            found |= {f"loss_{prefix}itm": itm, f"{prefix}itm_accuracy": accuracy}
        return found

    def alignment(self, similarities: tuple[tuple[Tensor, Tensor], ...]) -> Tensor:
        """Mean of both directions' cross-entropies with alpha * softmax(soft) + (1 - alpha) * own,
        where the soft similarities are the momentum encoder's."""
        losses, alpha = [], self.alpha * self.ramp
        for scores, soft in similarities:
            own = torch.eye(*scores.shape, device=scores.device)
            targets = alpha * soft.softmax(-1) + (1 - alpha) * own
            losses.append(soft_cross_entropy(scores.log_softmax(-1), targets).mean())
        return (losses[0] + losses[1]) / 2

    def matching(self, true: Tensor, wrong: Tensor | None) -> tuple[Tensor, Tensor]:
        """Cross-entropy of logits (P, 2) and (W, 2), and the accuracy of the P + W decisions."""
        if wrong is None:
            warnings.warn(
                "a batch with a single image-text pair has no negative: its matching loss is 0. "
                "Use a batch size of 2 or more per process.",
                stacklevel=2,
            )
            return 0.0 * true.sum(), (true.argmax(-1) == 1).float().mean()
        logits = torch.cat([true, wrong])
        labels = (torch.arange(len(logits), device=logits.device) < len(true)).long()
        return F.cross_entropy(logits, labels), (logits.argmax(-1) == labels).float().mean()

    def masked_language(self, words: Words) -> Tensor:
        """(1 - alpha) * cross-entropy + alpha * distillation per hidden word; 0 without one."""
        alpha = self.alpha * self.ramp
        total = (1 - alpha) * F.cross_entropy(words.scores, words.ids, reduction="sum")
        if words.teacher is not None:
            total = total + alpha * soft_cross_entropy(needed(words.student), words.teacher).sum()
        return total / max(len(words.ids), 1)

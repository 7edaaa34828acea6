"""A training objective from outside: heat maps should be even, which nobody would want."""

from dataclasses import dataclass
from typing import ClassVar

from groundwork.models.albef.config import OBJECTIVES
from groundwork.models.albef.passes import Needs


@dataclass(frozen=True, kw_only=True)
class EvenConfig:
    """weight: factor of the loss."""

    learns_from: ClassVar[frozenset[str]] = frozenset()
    weight: float = 0.5

    def losses(self, _every):
        return {"loss_even": self.weight}

    def build(self, _every, _tokenizer):
        return Even()


class Even:
    def start_step(self, epoch, step, steps_per_epoch):
        """Nothing depends on where training stands."""

    def needs(self, _batch):
        return {"phrase": Needs(heatmaps=True)}

    def __call__(self, passes, _batch):
        return {"loss_even": passes.phrase.heatmaps.std()}


OBJECTIVES["even"] = EvenConfig

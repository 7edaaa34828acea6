"""ALBEF's training objectives and their settings, which `configs.schema` makes part of a run."""

from dataclasses import dataclass, field
from typing import Literal

from configs.checks import complete_weights, require, require_rate

OBJECTIVES = ("itc_itm_mlm", "amc", "selfeq")
"""The training objectives that a stage may name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ItcItmMlmConfig:
    """Image-text contrast (ita), matching (itm) and masked words (mlm).

    alpha: weight of the momentum twin's soft targets against the hard ones.
    mlm_probability: share of the tokens that are masked.
    mlm_distill_over: axis of the distillation's log-softmax; "tokens" is what the released code
        does.
    weights: factor of each loss in the total.
    """

    alpha: float = 0.4
    mlm_probability: float = 0.15
    mlm_distill_over: Literal["tokens", "vocabulary"] = "vocabulary"
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_rate("alpha", self.alpha)
        require_rate("mlm_probability", self.mlm_probability)
        complete_weights(self, {"mlm": 1.0, "ita": 1.0, "itm": 1.0})


@dataclass(frozen=True, kw_only=True, slots=True)
class AmcConfig:
    """Attention mask consistency: the explanation must be higher inside the annotated region than
    outside.

    mean_margin, max_margin: by how much, for the mean and for the maximum of a map in [0, 1].
    amc_mean_over: means per "sample", or over the whole "batch" at once as the released code does.
    weights: factor of each term in the total.
    """

    mean_margin: float = 0.1
    max_margin: float = 0.5
    amc_mean_over: Literal["batch", "sample"] = "sample"
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        complete_weights(self, {"mean": 0.2, "max": 0.8})


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfEqConfig:
    """Self-consistency: a phrase and its paraphrase must be explained alike.

    threshold: a cell belongs to the region where the two maps (each in [0, 1]) add up to at least
        this.
    weights: factor of each term in the total.
    """

    threshold: float = 0.8
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(0 < self.threshold <= 2, f"threshold is {self.threshold}; it must lie in (0, 2]")
        complete_weights(self, {"similarity": 1.0, "consistency": 0.5})


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectivesConfig:
    """The settings of every objective; a stage chooses which of them are trained."""

    itc_itm_mlm: ItcItmMlmConfig = field(default_factory=ItcItmMlmConfig)
    amc: AmcConfig = field(default_factory=AmcConfig)
    selfeq: SelfEqConfig = field(default_factory=SelfEqConfig)

    def weights_of(self, objective: str) -> dict[str, float]:
        """Loss name -> its factor in the total, of one of `OBJECTIVES`."""
        text, amc, selfeq = self.itc_itm_mlm.weights, self.amc.weights, self.selfeq.weights
        if objective == "itc_itm_mlm":
            return {f"loss_{name}": weight for name, weight in text.items()}
        if objective == "amc":
            return {f"loss_amc_{name}": weight for name, weight in amc.items()}
        return {f"loss_syn_{name}": weight for name, weight in text.items()} | {
            "loss_sim_syn": selfeq["similarity"],
            "loss_cst_syn": selfeq["consistency"],
        }

"""The objectives of ALBEF: each names what it needs of a forward and gives named losses of it."""

from groundwork.models.albef.objectives.amc import AttentionMaskConsistency
from groundwork.models.albef.objectives.itc_itm_mlm import ImageTextLosses, TokenMasker
from groundwork.models.albef.objectives.selfeq import SelfConsistency

__all__ = ["AttentionMaskConsistency", "ImageTextLosses", "SelfConsistency", "TokenMasker"]

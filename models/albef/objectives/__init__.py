"""The objectives of ALBEF, small modules: lazy passes and batch in, named losses out."""

from groundwork.models.albef.objectives.amc import AttentionMaskConsistency
from groundwork.models.albef.objectives.itc_itm_mlm import ImageTextLosses, TokenMasker
from groundwork.models.albef.objectives.selfeq import SelfConsistency

__all__ = ["AttentionMaskConsistency", "ImageTextLosses", "SelfConsistency", "TokenMasker"]

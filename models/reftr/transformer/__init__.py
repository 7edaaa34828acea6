"""RefTR's joint encoder, query encoder and decoder."""

from groundwork.models.reftr.transformer.blocks import mapping_block
from groundwork.models.reftr.transformer.query_encoder import QueryEncoder
from groundwork.models.reftr.transformer.vision_language import Memory, VisionLanguageTransformer

__all__ = ["Memory", "QueryEncoder", "VisionLanguageTransformer", "mapping_block"]

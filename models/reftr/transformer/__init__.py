"""RefTR's joint encoder, query encoder and decoder."""

from models.reftr.transformer.blocks import mapping_block
from models.reftr.transformer.query_encoder import QueryEncoder
from models.reftr.transformer.vision_language import Memory, VisionLanguageTransformer

__all__ = ["Memory", "QueryEncoder", "VisionLanguageTransformer", "mapping_block"]

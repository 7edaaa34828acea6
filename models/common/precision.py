"""What half precision is too coarse for."""

import torch
from torch import Tensor


def at_least_single(values: Tensor) -> Tensor:
    """Values of half precision in single precision, those of more as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))

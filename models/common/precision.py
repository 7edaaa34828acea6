"""What half precision is too coarse for, and what is done in it alone."""

import torch
from torch import Tensor


def in_half_precision(values: Tensor) -> bool:
    """Whether layers compute in half precision now, on the device of `values`.

    There, faster orders of summing lose nothing. In single precision they move what depends on
    large sums, such as RefCLIP's choice between almost equal cells, off the published numbers.
    """
    return torch.is_autocast_enabled(values.device.type)


def at_least_single(values: Tensor) -> Tensor:
    """Values of half precision in single precision, those of more as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))

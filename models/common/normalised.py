"""A convolution and the norm behind it, as one convolution where that is the same."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d
from typing_extensions import TypeIs

from groundwork.models.common.precision import in_half_precision


def normalised(convolution: nn.Conv2d, norm: nn.Module, maps: Tensor) -> Tensor:
    """`norm(convolution(maps))`, (B, C, h, w) -> (B, C', h', w'), with the same gradients.

    A batch norm whose statistics are fixed only scales and shifts channels. That is done to the
    weights, which are few, instead of the maps, which are large and in half precision would come
    back in single.

    Args:
        norm: a `FrozenBatchNorm2d` is folded into the weights and, in half precision, a batch norm
            in evaluation; any other norm is applied to the maps.
    """
    if not (
        isinstance(norm, FrozenBatchNorm2d)
        or (in_half_precision(maps) and _has_fixed_statistics(norm))
    ):
        return norm(convolution(maps))
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    shift = norm.bias - mean * scale
    if convolution.bias is not None:
        shift = shift + convolution.bias * scale
    return F.conv2d(
        maps,
        convolution.weight * scale[:, None, None, None],
        shift,
        convolution.stride,
        convolution.padding,
        convolution.dilation,
        convolution.groups,
    )


def _has_fixed_statistics(norm: nn.Module) -> TypeIs[nn.BatchNorm2d]:
    return isinstance(norm, nn.BatchNorm2d) and not norm.training and norm.track_running_stats

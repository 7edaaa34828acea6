"""Linear maps in single precision by oneDNN, where the library that torch calls for them is slow.

For products of single precision torch calls MKL, which keeps to AVX2 on processors of other makers
than Intel. Where these have AVX-512, oneDNN, which torch itself uses for convolutions and for half
precision, is twice as fast (AMD EPYC, Zen 5, 2 threads: 1154 x 768 by 768 x 3072 at 447 in place of
200 * 10^9 operations per second, its gradients at 400 and 326 in place of 215 and 210).
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundwork import utils

PLAIN = (Tensor, nn.Parameter)  # not what stands for a tensor in parts, or while a graph is drawn
SMALL = 2**22  # multiplications: of fewer, a call of ours costs what the kernel gains


@cache
def onednn_is_faster() -> bool:
    """Than what torch takes for a linear map in single precision on this machine's CPU."""
    return utils.has_avx512_beside_intel() and torch.backends.mkldnn.is_available()


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b; arguments as of `F.linear`.

    By oneDNN if it is large, all is in single precision and lies in memory as oneDNN reads it. What
    is compiled keeps torch's own.
    """
    if not torch.compiler.is_compiling() and _is_for_onednn(input, weight, bias):
        return _Linear.apply(input, weight, bias)
    return F.linear(input, weight, bias)


def _is_for_onednn(input: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    if input.dim() < 2 or weight.dim() != 2 or input.numel() * len(weight) < SMALL:
        return False
    parts = (input, weight) if bias is None else (input, weight, bias)
    return bool(
        all(type(part) in PLAIN and part.dtype == torch.float32 for part in parts)
        and input.shape[-1] == weight.shape[1]
        # It reads a bias of another layout as if it were of this one.
        and (bias is None or (bias.shape == weight.shape[:1] and bias.is_contiguous()))
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.enabled
    )


class _Linear(torch.autograd.Function):
    """Its gradients are linear maps, too, so that it can be differentiated as often as wanted."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight)
        # The only way to oneDNN's product for tensors in their ordinary layout.
        rows = input.flatten(0, -2)
        result = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
        # As torch's own linear map does: a view could not be changed in place.
        return torch.ops.aten._unsafe_view(result, [*input.shape[:-1], len(weight)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """dL/dx = G W, dL/dW = G^T x, dL/db = the sum of G's rows, with G = dL/dy."""
        input, weight = ctx.saved_tensors
        needs_input, needs_weight, needs_bias = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        return (
            linear(gradient, weight.t()) if needs_input else None,
            linear(rows.t(), input.flatten(0, -2).t()) if needs_weight else None,
            rows.sum(0) if needs_bias else None,
        )

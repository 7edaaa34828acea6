"""Linear maps in single precision by oneDNN, where the library that torch calls for them is slow.

For products of single precision torch calls MKL, which keeps to AVX2 on processors of other makers
than Intel. Where these have AVX-512, oneDNN, which torch itself uses for convolutions and for half
precision, is twice as fast (AMD EPYC, Zen 5, 2 threads: 1154 x 768 by 768 x 3072 at 447 in place of
200 * 10^9 operations per second, its gradients at 400 and 326 in place of 215 and 210).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from groundwork import utils

SMALL = 2**22  # multiplications: of fewer, a call of ours costs what the kernel gains


@cache
def onednn_is_faster() -> bool:
    """Than what torch takes for a linear map in single precision on this machine's CPU."""
    return utils.has_avx512_beside_intel() and torch.backends.mkldnn.is_available()


class OnednnLinear(TorchFunctionMode):
    """Every `F.linear` is `linear`."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """As torch calls it in the place of every function of its own."""
        replaced = linear if function is F.linear else function
        return replaced(*args, **(kwargs or {}))


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b by oneDNN if it is large and in single precision; arguments as of `F.linear`.

    What is compiled keeps torch's own.
    """
    large = input.dim() > 1 and input.numel() * len(weight) >= SMALL
    single = input.dtype == weight.dtype == torch.float32
    fits = input.shape[-1] == weight.shape[-1]
    if large and single and fits and not torch.compiler.is_compiling():
        return _Linear.apply(input, weight, bias)
    return F.linear(input, weight, bias)


class _Linear(torch.autograd.Function):
    """Its gradients are linear maps, too, so that it can be differentiated as often as wanted."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight)
        rows = input.flatten(0, -2)
        # The only way to oneDNN's product for tensors in their ordinary layout.
        result = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
        return result.view(*input.shape[:-1], len(weight))

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

"""In which precision, and with which kernels, a forward pass computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from groundwork.models.common.attention import MultiheadAttention

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
LONG = 192  # keys from which on the fused attention's backward is the faster one


@contextmanager
def computing(device: torch.device, precision: str) -> Iterator[None]:
    """Autocast to a key of `DTYPES`; "fp32" leaves everything as it is."""
    dtype = DTYPES[precision]
    with ExitStack() as stack:
        if dtype is not None:
            stack.enter_context(torch.autocast(device.type, dtype=dtype))
            if device.type == "cpu":
                stack.enter_context(AttentionByLength())
        yield


def rounded_weights(model: nn.Module, precision: str) -> dict[str, Tensor]:
    """The weights and biases of linear maps as autocast would round them for every batch anew.

    To be put into the model's place by `torch.func.functional_call`, under `computing`: what it
    then gives is the same to the last bit. None in "fp32", nor of weights that another module reads
    as they are, such as a table of words that is also the last linear map.
    """
    dtype = DTYPES[precision]
    if dtype is None:
        return {}
    linear: dict[Tensor, str] = {}
    others: set[Tensor] = set()
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(path, recurse=False):
            if isinstance(module, nn.Linear | MultiheadAttention):
                linear.setdefault(parameter, name)
            else:
                others.add(parameter)
    return {
        name: parameter.detach().to(dtype)
        for parameter, name in linear.items()
        if parameter not in others and parameter.dtype == torch.float32
    }


class AttentionByLength(TorchFunctionMode):
    """Plain matrix products for attention to few keys that a gradient goes through.

    On a CPU, in half precision, the backward of the fused kernel is made for many keys. With it,
    forwards and backwards together take 2 to 4 times as long as plain products for 16 to 65 keys,
    as long for 160 to 200, half as long for 420 to 577. Forwards alone it is always the faster one:
    twice for 16 keys, 7 to 12 times for 420.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """As torch calls it in the place of every function of its own."""
        kwargs = kwargs or {}
        if function is not F.scaled_dot_product_attention:
            return function(*args, **kwargs)
        query, key, *_ = (*args, *(kwargs[name] for name in ("query", "key") if name in kwargs))
        if key.shape[-2] >= LONG or not query.requires_grad:
            return function(*args, **kwargs)
        with sdpa_kernel(SDPBackend.MATH):
            return function(*args, **kwargs)

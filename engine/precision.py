"""In which precision, and with which kernels, a forward pass computes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from groundwork import utils
from groundwork.engine.linear import linear, onednn_is_faster
from groundwork.models.common.attention import MultiheadAttention

logger = logging.getLogger("groundwork")
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
AUTO = "auto"
CACHED_SCORES = 2**23  # of an attention in half precision, that a CPU's cache holds


@cache  # so that it is said once
def chosen(precision: str, device: torch.device) -> str:
    """The key of `DTYPES` that a configuration's `precision` means on a device.

    "auto" is bf16 where that is part of its arithmetic, else fp32; any other is what it says.
    """
    if precision == AUTO:
        found = "bf16" if utils.computes_in_bf16(device) else "fp32"
        logger.info("precision: %s on %s", found, utils.processor_name(device))
        return found
    if precision == "bf16" and not utils.computes_in_bf16(device):
        logger.warning(
            "precision: bf16 is imitated by %s, many times slower than fp32; precision: auto takes"
            " what the machine is made for",
            utils.processor_name(device),
        )
    return precision


@contextmanager
def computing(device: torch.device, precision: str) -> Iterator[None]:
    """Autocast to a key of `DTYPES`; "fp32" leaves everything as it is."""
    dtype = DTYPES[precision]
    with ExitStack() as stack:
        if dtype is not None:
            stack.enter_context(torch.autocast(device.type, dtype=dtype))
            if device.type == "cpu":
                stack.enter_context(Instead(F.scaled_dot_product_attention, attention))
        elif device.type == "cpu" and onednn_is_faster():
            stack.enter_context(Instead(F.linear, linear))
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


@cache
def fused_wants_tiles() -> bool:
    """Does this machine's CPU lack what the fused kernel of half precision is made for?"""
    return utils.computes_in_bf16_without_tiles()


class Instead(TorchFunctionMode):
    """Every call of `function`, one of torch's, is one of `replacement`, of the same arguments."""

    def __init__(self, function: Callable[..., Any], replacement: Callable[..., Any]):
        super().__init__()
        self.function, self.replacement = function, replacement

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """As torch calls it in the place of every function of its own."""
        called = self.replacement if function is self.function else function
        return called(*args, **(kwargs or {}))


def attention(  # noqa: PLR0917 (torch's own order)
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **others: Any,
) -> Tensor:
    """`plain_attention` where a gradient is wanted, or the fused kernel is slow, and no argument
    asks for more than it does; else torch's own. Arguments as of torch's.

    On a CPU, in half precision, forward and backward of the fused kernel together take 2 to 7 times
    as long for 12 to 200 keys, 1 to 1.8 times for 257 to 577, and torch's own unfused attention,
    which works in single precision in between, 1.5 to 3.4 times. Forwards alone the fused one is
    the faster with AMX: twice for 16 keys, 7 to 12 times for 420. It is made for tiles: with the
    vectors of AVX-512 alone it takes 1.4 to 2.4 times as long while the scores fit into the cache.
    """
    wanted = torch.is_grad_enabled() and any(part.requires_grad for part in (query, key, value))
    scores = query.shape[:-1].numel() * key.shape[-2]
    # What is compiled is not to ask the machine.
    slow = scores <= CACHED_SCORES and not torch.compiler.is_compiling() and fused_wants_tiles()
    if is_causal or others or not (wanted or slow):
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, **others
        )
    return plain_attention(query, key, value, attn_mask, dropout_p)


def plain_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V, arguments as of torch's.

    A query that may see no key sees all of them alike, where torch's gives 0.
    """
    scores = query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            # Added and not filled in: the backward of a sum is free.
            unseen = torch.finfo(scores.dtype).min
            attn_mask = torch.zeros_like(attn_mask, dtype=scores.dtype).masked_fill(
                ~attn_mask, unseen
            )
        scores = scores + attn_mask.to(scores.dtype)
    return F.dropout(scores.softmax(dim=-1), dropout_p, training=dropout_p > 0) @ value

"""In which precision, and with which kernels, a forward pass computes."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def computing(device: torch.device, precision: str) -> Iterator[None]:
    """Autocast to a key of `DTYPES`; "fp32" leaves everything as it is.

    On a CPU the fused attention kernel is made for long sequences. Forwards and backwards together
    it takes 3 to 10 times as long as plain matrix products for the short ones of small models in
    bf16, which is what a CPU can train.
    """
    dtype = DTYPES[precision]
    with ExitStack() as stack:
        if dtype is not None:
            stack.enter_context(torch.autocast(device.type, dtype=dtype))
            if device.type == "cpu":
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield

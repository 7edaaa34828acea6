"""torch.compile for the parts of a model that a training may compile."""

import os
import subprocess
import sys
from collections.abc import Sequence

import torch
from torch import nn

GRAPHS = 64
"""Of one layer at most, where torch gives up at 8: with and without an image, of all tokens or the
first, with and without a gradient, of a size that changes."""


def require_compiler(device: torch.device) -> None:
    """Raises ValueError if what torch compiles for a CPU could not be compiled further."""
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if device.type != "cpu":
        return
    try:
        subprocess.run([name, "--version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(
            f"compile: true needs a C++ compiler on a CPU, and {name} does not answer: install it, "
            "name another in the environment variable CXX, or set compile: false"
        ) from error


def compile_parts(parts: Sequence[nn.Module], backend: str = "inductor") -> None:
    """Let torch compile each of them when it is first called; names of weights stay as they are.

    Where they must run as they are, `torch.compiler.set_stance("force_eager")` says so.

    Args:
        backend: of `torch.compile`; "aot_eager" only takes apart and joins again, in seconds.
    """
    # Dropout draws the numbers that it draws uncompiled.
    torch._inductor.config.fallback_random = True
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.config.recompile_limit = max(limit, GRAPHS)
    for part in parts:
        part.compile(backend=backend)

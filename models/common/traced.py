"""A network as one graph of operations on tensors, which other programs can run: `trace`.

Shapes: B images, T texts, L tokens.
"""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from groundwork.models.common.image_first import OWNER, ImageFirst


class Traced(NamedTuple):
    """A graph with the names of what it takes and gives, in its order.

    axes: of every input, its axes of any length by their names.
    """

    program: ExportedProgram
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    axes: tuple[Mapping[int, str], ...]


class OfTensors(nn.Module):
    """A network as a function of the tensors `inputs`, to the tensors `outputs`."""

    def __init__(self, network: ImageFirst, inputs: Iterable[str], outputs: Iterable[str]):
        super().__init__()
        self.network, self.inputs, self.outputs = network, tuple(inputs), tuple(outputs)

    def answers(self, *tensors: Tensor) -> dict[str, Tensor]:
        """All that the network gives, by name."""
        batch = dict(zip(self.inputs, tensors, strict=True))
        return self.network.answer_each(self.network.encode(batch), batch)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The tensors `inputs` -> the tensors `outputs`."""
        answers = self.answers(*tensors)
        return tuple(answers[name] for name in self.outputs)


def trace(
    network: ImageFirst, example: Mapping[str, Tensor], axes: Mapping[str, Mapping[int, str]]
) -> Traced:
    """The operations of `encode` and `answer_each`, gradients among them.

    Args:
        network: in evaluation mode, on the CPU.
        example: its `inputs` and `OWNER`, with 2 images and with numbers of texts and of tokens
            that are different from each other and from the sides of an image.
        axes: input -> its axes of any length by their names.

    Raises:
        ValueError: the network, or an option of it, cannot be traced.
    """
    inputs = tuple(name for name in (*network.inputs, OWNER) if name in example)
    # Of a view, the tensor behind it would become a condition of the graph.
    tensors = tuple(example[name].clone() for name in inputs)
    with torch.no_grad():
        given = OfTensors(network, inputs, ()).answers(*tensors)
    outputs = tuple(name for name in network.outputs if name in given)
    module: nn.Module = OfTensors(network, inputs, outputs)
    if network.needs_gradient:
        module = _with_gradients(module, tensors)
    named = tuple(axes[name] for name in inputs)
    dynamic = tuple(dict.fromkeys(one, Dim.DYNAMIC) for one in named)
    shapes = dynamic if isinstance(module, fx.GraphModule) else (dynamic,)
    with torch.no_grad():
        program = torch.export.export(module, tensors, dynamic_shapes=shapes)
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # files, and where they lie on this machine
    return Traced(program, inputs, outputs, named)


def _with_gradients(module: nn.Module, tensors: tuple[Tensor, ...]) -> fx.GraphModule:
    """A module as a graph in which the backward pass of every gradient that it asks for stands
    among the other operations, so that it needs no autograd."""
    # Of the fused attentions the plain products are the one form that ONNX knows; what they look at
    # is never empty.
    softmax = {torch.ops.aten._safe_softmax.default: torch.softmax}
    with sdpa_kernel(SDPBackend.MATH):
        traced = make_fx(module, softmax, tracing_mode="symbolic", _allow_non_fake_inputs=True)(
            *tensors
        )
    names = {
        tensor: name for name, tensor in chain(module.named_parameters(), module.named_buffers())
    }
    held: dict[str, Tensor] = {}
    for node in traced.graph.nodes:
        if node.op == "get_attr":
            tensor = getattr(traced, node.target)
            node.target = names.get(tensor, node.target)
            held[node.target] = tensor.detach()
    return fx.GraphModule(_holding(held), traced.graph)


def _holding(tensors: Mapping[str, Tensor]) -> nn.Module:
    """A module that has these tensors as buffers under their dotted names."""
    root = nn.Module()
    for path, tensor in tensors.items():
        *folders, name = path.split(".")
        place = root
        for folder in folders:
            if not hasattr(place, folder):
                place.add_module(folder, nn.Module())
            place = place.get_submodule(folder)
        place.register_buffer(name, tensor)
    return root

"""A network as graphs of operations on tensors, which other programs can run: `trace` makes one of
all or of some of its outputs, `trace_steps` one of its images and one of its texts.

Shapes: B images, T texts, L tokens.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from groundwork.models.common.image_first import OF_IMAGE, OWNER, ImageFirst


class Traced(NamedTuple):
    """A graph with the names of what it takes and gives, in its order.

    axes: of every input, its axes of any length by their names.
    """

    program: ExportedProgram
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    axes: tuple[Mapping[int, str], ...]


class Whole(nn.Module):
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


class Encoding(nn.Module):
    """The first step of a network: the tensors `inputs` of images -> those of what was seen."""

    def __init__(self, network: ImageFirst, inputs: Iterable[str]):
        super().__init__()
        self.network, self.inputs = network, tuple(inputs)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """In the order of `Seen.tensors`."""
        batch = dict(zip(self.inputs, tensors, strict=True))
        return tuple(Seen.of(self.network.encode(batch)).tensors)


class Answering(Whole):
    """The second step: the tensors of what was seen, then the `inputs` of texts -> `outputs`."""

    def __init__(
        self, network: ImageFirst, seen: "Seen", inputs: Iterable[str], outputs: Iterable[str]
    ):
        super().__init__(network, inputs, outputs)
        self.seen = seen

    def answers(self, *tensors: Tensor) -> dict[str, Tensor]:
        """See `Whole`."""
        parts = len(self.seen.tensors)
        batch = dict(zip(self.inputs, tensors[parts:], strict=True))
        return self.network.answer_each(self.seen.holding(tensors[:parts]), batch)


class Seen(NamedTuple):
    """What a network saw in images as a list of tensors, with their names, and how they were put
    together."""

    tensors: list[Tensor]
    names: tuple[str, ...]
    leaves: list[Any]
    form: pytree.TreeSpec

    @classmethod
    def of(cls, seen: Any) -> "Seen":
        """Of lists and named tuples. What is no tensor, such as a recorder, is the same for all
        images."""
        pairs, form = pytree.tree_flatten_with_path(seen)
        named = [(_name(path), leaf) for path, leaf in pairs if isinstance(leaf, Tensor)]
        names, tensors = zip(*named, strict=True)
        return cls(list(tensors), names, [leaf for _, leaf in pairs], form)

    def holding(self, tensors: Iterable[Tensor]) -> Any:
        """The same with other tensors in their places."""
        rest = iter(tensors)
        leaves = [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        return pytree.tree_unflatten(leaves, self.form)


def _name(path: pytree.KeyPath) -> str:
    """`.layers[0].keys` -> seen_layers_0_keys."""
    return "_".join(["seen", *re.findall(r"\w+", pytree.keystr(path))])


def trace(
    network: ImageFirst,
    example: Mapping[str, Tensor],
    axes: Mapping[str, Mapping[int, str]],
    wanted: Collection[str] = (),
) -> Traced:
    """The operations of `encode` and `answer_each`, gradients among them.

    Args:
        network: in evaluation mode, on the CPU.
        example: its `inputs` and `OWNER`, with 2 images and with numbers of texts and of tokens
            that are different from each other and from the sides of an image.
        axes: input -> its axes of any length by their names.
        wanted: some of its outputs, for a graph of no more than what these need; none: all.

    Raises:
        ValueError: the network, or an option of it, cannot be traced, or it does not give what is
            wanted.
    """
    inputs, tensors = _inputs(network, example)
    outputs = _outputs(network, Whole(network, inputs, ()), tensors)
    if missing := sorted(set(wanted) - set(outputs)):
        raise ValueError(f"it gives no {', '.join(map(repr, missing))}, but {', '.join(outputs)}")
    if wanted:
        outputs = tuple(name for name in outputs if name in wanted)
    module: nn.Module = Whole(network, inputs, outputs)
    if wanted:
        every = tuple(axes[name] for name in inputs)
        listed = _listed(module, tensors, every, network.needs_gradient)
        module, needed = _with_what_it_needs(listed)
        inputs, tensors = zip(*((inputs[n], tensors[n]) for n in needed), strict=True)
    named = tuple(axes[name] for name in inputs)
    program = _program(module, tensors, named, network.needs_gradient)
    return Traced(program, inputs, outputs, named)


def trace_steps(
    network: ImageFirst, example: Mapping[str, Tensor], axes: Mapping[str, Mapping[int, str]]
) -> tuple[Traced, Traced]:
    """As `trace`, but `encode` and `answer_each` as a graph each: what the first one gives of
    images, the second one takes with texts.

    Raises:
        ValueError: as of `trace`; or the network is not `separable`.
    """
    inputs, tensors = _inputs(network, example)
    of_image = tuple(name for name in inputs if name in OF_IMAGE)
    images = tuple(tensor for name, tensor in zip(inputs, tensors, strict=True) if name in OF_IMAGE)
    image_axes = tuple(axes[name] for name in of_image)
    if not network.separable:
        raise ValueError(
            "its texts look into the image encoder, so that images cannot have a graph of their"
            " own; export it as one file, or choose another method (model.explanation.method)"
        )
    with torch.no_grad():
        seen = Seen.of(network.encode(dict(zip(of_image, images, strict=True))))
    encoding = _program(Encoding(network, of_image), images, image_axes, network.needs_gradient)
    first = Traced(encoding, of_image, seen.names, image_axes)

    of_text = tuple(name for name in inputs if name not in OF_IMAGE)
    given = (
        *(tensor.clone() for tensor in seen.tensors),
        *(tensor for name, tensor in zip(inputs, tensors, strict=True) if name not in OF_IMAGE),
    )
    outputs = _outputs(network, Answering(network, seen, of_text, ()), given)
    named = (*_free_axes(encoding, seen.names), *(axes[name] for name in of_text))
    answering = Answering(network, seen, of_text, outputs)
    program = _program(answering, given, named, network.needs_gradient)
    return first, Traced(program, (*seen.names, *of_text), outputs, named)


def _inputs(
    network: ImageFirst, example: Mapping[str, Tensor]
) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
    names = tuple(name for name in (*network.inputs, OWNER) if name in example)
    # Of a view, the tensor behind it would become a condition of the graph.
    return names, tuple(example[name].clone() for name in names)


def _outputs(network: ImageFirst, module: Whole, tensors: Iterable[Tensor]) -> tuple[str, ...]:
    with torch.no_grad():
        given = module.answers(*tensors)
    return tuple(name for name in network.outputs if name in given)


def _free_axes(program: ExportedProgram, names: Iterable[str]) -> Iterator[Mapping[int, str]]:
    """Of every output of a graph: its axes of any length, by names of their own but for the
    first."""
    output = next(node for node in reversed(program.graph.nodes) if node.op == "output")
    for name, node in zip(names, output.args[0], strict=True):
        sides = enumerate(node.meta["val"].shape)
        free = [axis for axis, side in sides if isinstance(side, torch.SymInt)]
        yield {axis: f"{name}_{axis}" if axis else "images" for axis in free}


def _program(
    module: nn.Module,
    tensors: tuple[Tensor, ...],
    axes: tuple[Mapping[int, str], ...],
    gradients: bool,
) -> ExportedProgram:
    """The graph of a module; `gradients`: its network asks for some."""
    if gradients and not isinstance(module, fx.GraphModule):
        module = _with_gradients(module, tensors)
    dynamic = tuple(dict.fromkeys(one, Dim.DYNAMIC) for one in axes)
    shapes = dynamic if isinstance(module, fx.GraphModule) else (dynamic,)
    with torch.no_grad():
        program = torch.export.export(module, tensors, dynamic_shapes=shapes)
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # files, and where they lie on this machine
    return program


def _listed(
    module: nn.Module,
    tensors: tuple[Tensor, ...],
    axes: tuple[Mapping[int, str], ...],
    gradients: bool,
) -> fx.GraphModule:
    """A module as a list of its operations."""
    if gradients:
        return _with_gradients(module, tensors)
    listed = _program(module, tensors, axes, gradients).module(check_guards=False)
    assert isinstance(listed, fx.GraphModule)
    listed.graph.set_codegen(fx.graph.CodeGen())  # tensors, and no structures of them
    return listed


def _with_gradients(module: nn.Module, tensors: tuple[Tensor, ...]) -> fx.GraphModule:
    """A module as a list of its operations, in which the backward pass of every gradient that it
    asks for stands among the others, so that it needs no autograd."""
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


def _with_what_it_needs(listed: fx.GraphModule) -> tuple[fx.GraphModule, list[int]]:
    """The same without operations and inputs that no output depends on, and the positions of the
    inputs that are left."""
    needed, inputs = _needed(listed.graph), listed.graph.find_nodes(op="placeholder")
    for node in reversed(listed.graph.nodes):
        if node not in needed:
            listed.graph.erase_node(node)
    # A new one, which has only the weights that are read, and none of torch's checks of inputs.
    left = fx.GraphModule(listed, listed.graph)
    return left, [n for n, node in enumerate(inputs) if node in needed]


def _needed(graph: fx.Graph) -> set[fx.Node]:
    """What the outputs depend on: what is read for them, and what writes into that."""
    owners: dict[fx.Node, fx.Node] = {}  # of a view the tensor whose memory it is
    writers: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.nodes:
        shared = _shared(node)
        owners[node] = owners[shared[0]] if shared else node
        for tensor in _shared(node, written=True):
            writers.setdefault(owners[tensor], []).append(node)
    needed: set[fx.Node] = set()
    left = graph.find_nodes(op="output")
    while left:
        node = left.pop()
        if node not in needed:
            needed.add(node)
            left += [*node.all_input_nodes, *writers.get(owners[node], ())]
    return needed


def _shared(node: fx.Node, *, written: bool = False) -> list[fx.Node]:
    """The inputs of an operation that its result may be a view of, or those that it writes to."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:  # one of several results, numbers
        return [] if written or node.op == "output" else node.all_input_nodes
    return [
        given
        for one, given in zip(schema.arguments[: len(node.args)], node.args, strict=True)
        if isinstance(given, fx.Node)
        and one.alias_info is not None
        and (one.alias_info.is_write or not written)
    ]


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

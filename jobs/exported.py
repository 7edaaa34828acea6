"""Exported files, .onnx and .pt2: a system's graph with all that is needed to ask it.

What is around the graph is asked and read by the functions of the system itself: the file keeps its
configuration and tokeniser, of which questions and groundings are made as for a checkpoint.
"""

from __future__ import annotations

import base64
import json
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from groundwork import utils
from groundwork.files.foreign import JSON
from groundwork.files.manifest import fingerprint
from groundwork.geometry import Grounding
from groundwork.jobs import plain_message
from groundwork.jobs.plain_pt2 import plain_pt2
from groundwork.jobs.presence import Calibration
from groundwork.jobs.recognition import About, Loaded
from groundwork.jobs.tokenizers import Tokenizer, load_texts, save_tokenizer
from groundwork.models import SYSTEMS
from groundwork.models.common.checkpoint import CheckpointError
from groundwork.models.common.file_kinds import stand_in_of
from groundwork.models.common.image_first import OF_IMAGE, OWNER, ImageFirst
from groundwork.models.common.system import Postprocess
from groundwork.settings import RunConfig
from groundwork.settings.load import config_of
from groundwork.settings.parsing import from_mapping

KEY = "groundwork"
"""Under which an ONNX file keeps its description among its metadata."""
WEIGHTS_KEY = f"{KEY}.weights"
"""The same of the fingerprint of NAME.data, if its weights lie there."""
PT2_ENTRY = f"{KEY}.json"
"""The entry of a .pt2 archive that has it."""
IMAGES = ".images"
"""What stands before the ending of the file of images where the texts have one, too."""
# What torch raises on other content than it expects.
_DAMAGE = (RuntimeError, OSError, zipfile.BadZipFile, ValueError, LookupError, TypeError,
           AttributeError, AssertionError, SyntaxError, ArithmeticError)  # fmt: skip
Graph = Callable[..., Sequence[Tensor]]
"""Tensors in the order of `Description.inputs` -> those of `Description.outputs`."""


@dataclass(frozen=True)
class Description:
    """What an exported file says of itself.

    system: key of `models.SYSTEMS`. source: name of the checkpoint; weights: SHA-256 of what was
    exported of it. config: as `settings.to_dict` has it. tokenizer: file name -> content in base64;
    text_encoder: which of them is the data.text_encoder, "." for all. inputs, outputs: names of the
    graph's tensors in their order. image: how an image becomes the input `image`, for other
    programs. calibration: of `jobs.presence`, or None. versions: of what wrote it. step: what of
    the system it is: all, the images (for the file of the texts, which says by `images` where they
    are), or some outputs for other programs, of which no answer is made.
    """

    system: str
    source: str
    weights: str
    config: dict[str, Any]
    tokenizer: dict[str, str]
    text_encoder: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    image: dict[str, Any]
    calibration: dict[str, Any] | None
    versions: dict[str, str]
    step: Literal["all", "images", "texts", "some"] = "all"
    images: str | None = None

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


class Opened(NamedTuple):
    """A file's graph, how many tensors it takes and gives, its description and their device."""

    graph: Graph
    takes: int
    gives: int
    text: str | None
    device: torch.device


class ExportedNetwork(ImageFirst):
    """A graph, or one for each step, in the place of the network that it was made of.

    If it is one graph, an image is looked at anew in every call of `answer`, once for all texts of
    that.

    Args:
        graph, about: of the whole system, or of its texts.
        images: in the latter case those of its images.
    """

    def __init__(
        self, graph: Graph, about: Description, images: tuple[Graph, Description] | None = None
    ):
        super().__init__()
        self.graph, self.about, self.images = graph, about, images

    def encode(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """What the graph takes of the images: themselves, or what was seen in them."""
        if self.images is None:
            return {name: batch[name] for name in OF_IMAGE if name in self.about.inputs}
        graph, about = self.images
        return named_outputs(graph, about, batch)

    def answer(self, seen: dict[str, Tensor], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The outputs of the graph for the texts of `batch`, of one image or of one each."""
        several = all(len(tensor) > 1 for tensor in seen.values())
        owner = batch[OWNER] if several else torch.zeros_like(batch[OWNER])
        return self.answer_each(seen, {**batch, OWNER: owner})

    def answer_each(self, seen: dict[str, Tensor], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """See `ImageFirst`."""
        return named_outputs(self.graph, self.about, {**batch, **seen})


def named_outputs(
    graph: Graph, about: Description, given: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What a graph gives for its inputs, some of the given tensors, by name."""
    found = graph(*(given[name] for name in about.inputs))
    return dict(zip(about.outputs, found, strict=True))


def is_exported(source: str | Path) -> bool:
    """Whether a name is that of an exported file."""
    return Path(source).suffix in GRAPHS


def load_exported(path: Path, device: str | None = None) -> tuple[Loaded, Calibration | None]:
    """The system of an exported file, and what makes its evidence a probability.

    Args:
        device: cuda, cuda:1, cpu; None: a GPU where the file's runtime has one, else the CPU.

    Raises:
        FileNotFoundError: no such file. CheckpointError: it is damaged, or tools/export did not
            write it. ValueError: the device is not there, or its runtime is not installed.
    """
    network, chosen = open_network(path, device)
    about = network.about
    if about.step == "some":
        raise CheckpointError(
            f"{path}: holds what gives {', '.join(about.outputs)}, not the system; for questions"
            f" export {about.source} without --outputs"
        )
    config = config_of(about.config, f"{path}: config")
    tokenizer = _tokenizer(path, about, config)
    system = SYSTEMS[config.system]
    # Of the system only what reads its outputs is needed; on this device weights take no memory.
    with torch.device("meta"):
        parts = system.build(config.model, tokenizer, training=False)
    _require_known_names(path, network, parts.evaluated)
    said = About(
        system=config.system,
        title=system.title,
        source=str(path),
        config="the file itself",
        tokenizer="of the file",
        weights=f"Exported from {about.source} (weights {about.weights[:12]}).",
    )
    named = _of_named(path, parts.postprocess)
    parts = replace(parts, model=network, evaluated=network, postprocess=named, match=None)
    calibration = about.calibration and from_mapping(Calibration, about.calibration, str(path))
    return Loaded(config, parts, tokenizer, said, path, chosen), calibration or None


def open_network(path: Path, device: str | None = None) -> tuple[ExportedNetwork, torch.device]:
    """What is to be asked by tensors, of a file of any step but of images, and where it takes them.

    Args and raises as `load_exported`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"exported file {path} does not exist")
    opened = _opened(path, device)
    about = _described(path, opened)
    network = ExportedNetwork(opened.graph, about, _images(path, about, device))
    return network.eval(), opened.device


def _opened(path: Path, device: str | None) -> Opened:
    if stands_for := stand_in_of(path):
        raise CheckpointError(f"{path}: is {stands_for}")
    return GRAPHS[path.suffix](path, device)


def _images(path: Path, about: Description, device: str | None) -> tuple[Graph, Description] | None:
    """The graph of the images for a file that holds the one of the texts."""
    if about.step == "images":
        name = f"{path.stem.removesuffix(IMAGES)}{path.suffix}"
        beside = f" beside it, {name}" if name != path.name else ", which was written with it"
        raise CheckpointError(
            f"{path}: holds what the system does with images; give the file of its texts{beside}"
        )
    if about.images is None:
        return None
    file = path.parent / Path(about.images).name
    if file.suffix != path.suffix:
        raise _other_version(path, f"images: {about.images!r} has another ending")
    if not file.is_file():
        raise FileNotFoundError(f"{path}: needs {file}, what it does with images; put it there")
    opened = _opened(file, device)
    of_images = _described(file, opened)
    # The configuration, too: it says which fusion layers are explained, for instance.
    known = (about.weights, about.config, "images")
    if (of_images.weights, of_images.config, of_images.step) != known:
        raise CheckpointError(f"{file}: is not what {path} knows of images; export both again")
    return opened.graph, of_images


def packed_tokenizer(tokenizer: Tokenizer) -> tuple[dict[str, str], str]:
    """`tokenizer` and `text_encoder` of a `Description`."""
    with tempfile.TemporaryDirectory() as folder:
        name = save_tokenizer(tokenizer, Path(folder))
        files = sorted(Path(folder).iterdir())
        return {file.name: base64.b64encode(file.read_bytes()).decode() for file in files}, name


def _tokenizer(path: Path, about: Description, config: RunConfig) -> Tokenizer:
    if about.text_encoder not in (".", *about.tokenizer):
        raise _other_version(path, f"text_encoder: {about.text_encoder!r} is not in it")
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder) / Path(about.text_encoder).name)
        try:
            for name, content in about.tokenizer.items():
                Path(folder, Path(name).name).write_bytes(base64.b64decode(content))
            return load_texts(replace(config, data=replace(config.data, text_encoder=place)))
        except (ValueError, OSError) as error:
            raise _other_version(path, f"tokenizer: {error}") from error


def _require_known_names(path: Path, exported: ExportedNetwork, network: nn.Module) -> None:
    """Raises CheckpointError if a graph takes or gives tensors that the system does not know."""
    if not isinstance(network, ImageFirst):
        raise _other_version(path, "its system cannot be exported")
    about, images = exported.about, exported.images and exported.images[1]
    given = (*network.inputs, OWNER, *(images.outputs if images else ()))
    for kind, names, known in (
        ("inputs", about.inputs, given),
        ("outputs", about.outputs, network.outputs),
        ("inputs of images", images.inputs if images else (), OF_IMAGE),
    ):
        if strange := sorted({one for one in names if one not in known or names.count(one) > 1}):
            raise _other_version(path, f"{kind}: {', '.join(strange)} is unknown or named twice")


def _of_named(path: Path, postprocess: Postprocess) -> Postprocess:
    """`postprocess`, which says of which file it cannot read the outputs."""

    def groundings(outputs: Any, batch: Any) -> list[Grounding]:
        try:
            return postprocess(outputs, batch)
        except _DAMAGE as error:
            raise _other_version(path, f"outputs cannot be read: {error!r}") from error

    return groundings


def _described(path: Path, opened: Opened) -> Description:
    if opened.text is None:
        raise CheckpointError(f"{path}: was not written by tools/export; export its checkpoint")
    try:
        about = from_mapping(Description, JSON.decode(opened.text), "description")
    except (ValueError, RecursionError) as error:
        raise _other_version(path, str(error)) from error
    said, counted = (len(about.inputs), len(about.outputs)), (opened.takes, opened.gives)
    if said != counted:
        raise _other_version(path, f"{said} inputs and outputs, {counted} in the graph")
    return about


def _runnable(path: Path, run: Graph, errors: tuple[type[Exception], ...]) -> Graph:
    """A graph that says which file it is of where it cannot be run."""

    def answers(*inputs: Tensor) -> Sequence[Tensor]:
        try:
            return run(*inputs)
        except errors as error:
            raise CheckpointError(
                f"{path}: its graph cannot be run ({plain_message(error)}); export it again, unless"
                " memory was short"
            ) from error

    return answers


def _other_version(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: its description is of another version ({what}); export the checkpoint again"
    )


def _onnx(path: Path, device: str | None) -> Opened:
    """The graph under onnxruntime."""
    try:
        import onnxruntime  # an extra
    except ImportError as error:
        raise ValueError(
            f"{path}: needs onnxruntime; install it with pip install -e '.[export]'"
        ) from error
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    provider, chosen = _onnx_device(onnxruntime.get_available_providers(), device)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors are raised, too
    failures = (errors.Fail, errors.InvalidProtobuf, errors.InvalidGraph, errors.InvalidArgument,
                errors.NoSuchFile, errors.RuntimeException, UnicodeError)  # fmt: skip
    try:
        # Without its second try, of which it prints.
        session = onnxruntime.InferenceSession(
            path, options, providers=[provider], enable_fallback=False
        )
        names, gives = [one.name for one in session.get_inputs()], len(session.get_outputs())
        told = session.get_modelmeta().custom_metadata_map
    except errors.NotImplemented as error:
        raise ValueError(
            f"{path}: onnxruntime {onnxruntime.__version__} lacks an operator of it ({error});"
            " install a newer one"
        ) from error
    except failures as error:
        apart = "external data" in str(error).lower()
        remedy = f"put {path.name}.data, its weights, back beside it, or " if apart else ""
        raise CheckpointError(f"{path}: damaged ({error}); {remedy}export it again") from error
    _require_own_weights(path, told.get(WEIGHTS_KEY))

    def run(*inputs: Tensor) -> list[Tensor]:
        arrays = {name: one.cpu().numpy() for name, one in zip(names, inputs, strict=True)}
        return [torch.from_numpy(array) for array in session.run(None, arrays)]

    graph = _runnable(path, run, failures)
    return Opened(graph, len(names), gives, told.get(KEY), chosen)


def _require_own_weights(path: Path, noted: str | None) -> None:
    """Raises CheckpointError if NAME.data is not what was written along with the graph."""
    weights = path.with_name(f"{path.name}.data")
    if noted is not None and noted != json.dumps(fingerprint(weights)):
        raise CheckpointError(
            f"{weights}: these are not the weights that {path.name} was written with; copy both"
            " files of one export"
        )


def _onnx_device(available: Sequence[str], device: str | None) -> tuple[Any, torch.device]:
    """onnxruntime's provider for a device, and where torch has the tensors: always the CPU, from
    which onnxruntime takes them."""
    on_gpu = "CUDAExecutionProvider"
    wanted = torch.device(device or ("cuda" if on_gpu in available else "cpu"))
    if wanted.type == "cpu":
        return "CPUExecutionProvider", wanted
    if wanted.type != "cuda" or on_gpu not in available:
        raise ValueError(
            f"--device {device}: this onnxruntime computes on {', '.join(available)}; use cpu, or"
            " install onnxruntime-gpu"
        )
    return (on_gpu, {"device_id": wanted.index or 0}), torch.device("cpu")


def _pt2(path: Path, device: str | None) -> Opened:
    """The graph under torch."""
    # These take a second to import.
    from torch._export.verifier import SpecViolationError
    from torch.export.passes import move_to_device_pass

    chosen, entries = utils.choose_device(device), {PT2_ENTRY: ""}
    try:
        program = torch.export.load(plain_pt2(path), extra_files=entries)
        module = move_to_device_pass(program, chosen).module()
    except CheckpointError:
        raise
    except (SpecViolationError, *_DAMAGE) as error:
        raise CheckpointError(f"{path}: damaged ({error}); export it again") from error

    # No part of a network, whose mode is set: a graph has none and refuses it.
    def run(*inputs: Tensor) -> Sequence[Tensor]:
        return module(*inputs)

    of = program.graph_signature
    graph = _runnable(path, run, _DAMAGE)
    takes, gives = len(of.user_inputs), len(of.user_outputs)
    return Opened(graph, takes, gives, entries[PT2_ENTRY] or None, chosen)


GRAPHS: dict[str, Callable[[Path, str | None], Opened]] = {".onnx": _onnx, ".pt2": _pt2}
"""How files are opened on a device, by their ending."""

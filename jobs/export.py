"""A checkpoint as one file that runs without this project's models: ONNX, or torch's .pt2."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from groundwork.files.manifest import fingerprint, versions
from groundwork.files.safe import atomic_write
from groundwork.jobs import presence
from groundwork.jobs.exported import (
    IMAGES,
    KEY,
    PT2_ENTRY,
    WEIGHTS_KEY,
    Description,
    is_exported,
    packed_tokenizer,
)
from groundwork.jobs.pretrained import without_places
from groundwork.jobs.questions import Questions, questions_of
from groundwork.jobs.recognition import Loaded
from groundwork.jobs.tokenizers import Tokenizer
from groundwork.models.common.image_first import OWNER, ImageFirst
from groundwork.models.common.traced import Traced, trace, trace_steps
from groundwork.settings import RunConfig, to_dict

OPSET = 20  # the first with GELU; deformable convolutions came with 19
# Two images, and numbers of texts and tokens that no side of an image has.
_IMAGES, _TEXTS, _TOKENS = 2, 5, 7
_EMBEDDED = 1 << 30  # bytes of weights; protobuf's limit of a file is 2 GiB


def export(
    loaded: Loaded, path: Path, *, split: bool = False, outputs: Collection[str] = ()
) -> Description:
    """Write the system to `path`; its ending says in which form.

    Args:
        split: what it does with images goes to a file of its own beside `path`, NAME.images.onnx,
            so that an image is encoded once for all texts that come later.
        outputs: if any, the file gives these alone, and holds and takes what they need: a text
            encoder, for instance. Not together with `split`.

    Raises:
        ValueError: an unknown ending, what has no exported form, an output that it does not give,
            an extra that is missing, or a calibration beside the checkpoint that is of another one.
    """
    if path.suffix not in WRITERS:
        raise ValueError(f"{path}: name a file that ends with {' or '.join(WRITERS)}")
    file = path.with_suffix(IMAGES + path.suffix)
    for place in (path, *((file,) if split else ())):
        if place.is_dir():
            raise ValueError(f"{place} is a folder; name a file, or move the folder away")
    network = loaded.parts.evaluated
    if is_exported(loaded.path) or not isinstance(network, ImageFirst):
        raise ValueError(
            f"{loaded.path}: {loaded.about.title} cannot be exported, as its network is no"
            " ImageFirst (models/common/image_first.py); give a checkpoint of another system"
        )
    config = as_exported(loaded.config)
    questions = questions_of(config, loaded.tokenizer)
    example = example_of(questions, loaded.tokenizer, network)
    axes, write = dynamic_axes(questions), WRITERS[path.suffix]
    if path.suffix == ".onnx":
        _require_onnx()
    path.parent.mkdir(parents=True, exist_ok=True)
    traced: Sequence[Traced]
    try:
        if split:
            traced = trace_steps(network, example, axes)
        else:
            traced = [trace(network, example, axes, outputs)]
    except ValueError as error:
        raise ValueError(f"{loaded.path}: {error}") from error
    last = traced[-1]
    about = _description(loaded, config, questions, last)
    if split:
        of_images = replace(
            about, inputs=traced[0].inputs, outputs=traced[0].outputs, step="images"
        )
        write(traced[0], of_images, file)
        about = replace(about, step="texts", images=file.name)
    elif outputs:
        about = replace(about, step="some")
    write(last, about, path)
    return about


def as_exported(config: RunConfig) -> RunConfig:
    """The configuration of an exported file: in single precision, as its graph is."""
    return replace(config, precision="fp32")


def example_of(
    questions: Questions,
    tokenizer: Tokenizer,
    network: ImageFirst,
    *,
    images: int = _IMAGES,
    texts: int = _TEXTS,
    tokens: int = _TOKENS,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Noise for images and texts in the shapes of the network's inputs; a row of text is full, the
    others end with padding; of the images nothing is padding."""
    draw = torch.Generator().manual_seed(seed)
    canvas = np.zeros((480, 640, 3), np.uint8)  # of the usual aspect
    shape = questions.prepare(canvas, "example").image.shape
    mask = torch.arange(tokens) < torch.randint(1, tokens + 1, (texts, 1), generator=draw)
    mask[0] = True
    ids = torch.randint(len(tokenizer), (texts, tokens), generator=draw)
    given = {
        "image": torch.randn(images, *shape, generator=draw),
        "image_mask": torch.zeros(images, *shape[1:], dtype=torch.bool),
        "text_ids": ids.where(mask, int(tokenizer.pad_token_id)),
        "text_mask": mask.long(),
        OWNER: torch.randint(images, (texts,), generator=draw),
    }
    return {name: given[name] for name in (*network.inputs, OWNER)}


def dynamic_axes(questions: Questions) -> dict[str, dict[int, str]]:
    """Input -> its axes of any length by their names: images, texts, tokens; and the sides of an
    image where they follow its aspect."""
    free = questions.image_rules()["resize"] == "aspect"
    return {
        "image": {0: "images"} | ({2: "height", 3: "width"} if free else {}),
        "image_mask": {0: "images"} | ({1: "height", 2: "width"} if free else {}),
        "text_ids": {0: "texts", 1: "tokens"},
        "text_mask": {0: "texts", 1: "tokens"},
        OWNER: {0: "texts"},
    }


def _description(
    loaded: Loaded, config: RunConfig, questions: Questions, traced: Traced
) -> Description:
    files, name = packed_tokenizer(loaded.tokenizer)
    calibration = presence.beside(loaded.path, config.model.evidence)
    return Description(
        system=config.system,
        source=loaded.path.name,
        weights=weights_digest(loaded.parts.evaluated),
        config=to_dict(without_places(config, name)),
        tokenizer=files,
        text_encoder=name,
        inputs=traced.inputs,
        outputs=traced.outputs,
        image=questions.image_rules(),
        calibration=to_dict(calibration) if calibration else None,
        versions=versions(),
    )


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of names, types, shapes and values of a network's state."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        array = value.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        digest.update(array.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _write_onnx(traced: Traced, about: Description, path: Path) -> None:
    """One file, and beside it NAME.data with the weights where they are too many for one."""
    onnx_program = to_onnx(traced)
    onnx_program.model.metadata_props[KEY] = about.text()
    size = sum(one.numel() * one.element_size() for one in traced.program.state_dict.values())
    with tempfile.TemporaryDirectory(".tmp", f".{path.name}.", path.parent) as folder:
        file = Path(folder, path.name)
        onnx_program.save(file, external_data=size > _EMBEDDED)
        weights = Path(folder, f"{path.name}.data")
        if weights.is_file():
            _note(file, WEIGHTS_KEY, json.dumps(fingerprint(weights)))
        # The graph comes last, so that it is never there without its weights.
        for part in sorted(Path(folder).iterdir(), key=lambda one: one == file):
            shutil.move(part, path.parent / part.name)


def _note(file: Path, key: str, text: str) -> None:
    """Adds an entry to the metadata of an ONNX file, whose weights are not looked at."""
    import onnx  # an extra

    graph = onnx.load(file, load_external_data=False)
    graph.metadata_props.add(key=key, value=text)
    file.write_bytes(graph.SerializeToString())


def _require_onnx() -> None:
    """Raises ValueError if an extra is not installed."""
    try:
        import onnxscript  # noqa: F401 (an extra, which torch.onnx uses)
    except ImportError as error:
        raise ValueError(
            f"ONNX files need {error.name}; install it with pip install -e '.[export]', or name a"
            " .pt2 file"
        ) from error


def to_onnx(traced: Traced) -> torch.onnx.ONNXProgram:
    """A graph in ONNX."""
    from groundwork.jobs.onnx_operators import TRANSLATIONS  # of the extra

    for chatty in ("onnxscript", "onnx_ir"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*shares the same shape constraints.*")
        program = torch.onnx.export(
            traced.program,
            dynamo=True,
            input_names=traced.inputs,
            output_names=traced.outputs,
            dynamic_shapes=traced.axes,
            opset_version=OPSET,
            custom_translation_table=TRANSLATIONS,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program


def _write_pt2(traced: Traced, about: Description, path: Path) -> None:
    # In memory first: on a full disk torch's own writer ends the process with a signal.
    content = io.BytesIO()
    torch.export.save(traced.program, content, extra_files={PT2_ENTRY: about.text()})
    with atomic_write(path) as partial:
        partial.write_bytes(content.getbuffer())


WRITERS: dict[str, Callable[[Traced, Description, Path], None]] = {
    ".onnx": _write_onnx,
    ".pt2": _write_pt2,
}
"""How files are written, by their ending."""


def differences(
    network: ImageFirst, exported: ImageFirst, examples: Iterable[Mapping[str, Tensor]]
) -> dict[str, float]:
    """Output -> the largest difference between two networks over some inputs, as a share of the
    largest value of that output."""
    worst: dict[str, float] = {}
    for example in examples:
        with torch.no_grad():
            before = network.answer_each(network.encode(example), example)
            after = exported.answer_each(exported.encode(example), example)
        for name, value in after.items():
            expected = before[name].double()
            scale = float(expected.abs().max()) or 1.0
            apart = float((value.double() - expected).abs().max()) / scale
            worst[name] = max(worst.get(name, 0.0), apart)
    return worst

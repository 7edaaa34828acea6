"""The readers of everything but annotations: configurations, weights, images, lists to be asked,
and what the project itself writes."""

import contextlib
import io
import json
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from groundwork.dataset.images import (
    OPENERS,
    CorruptImageError,
    image_size,
    load_image,
    resolve_image,
)
from groundwork.dataset.pieces import SentencePieces
from groundwork.dataset.text import load_tokenizer
from groundwork.dataset.words import Vocabulary
from groundwork.files import shards
from groundwork.files.json_lines import JsonLines
from groundwork.geometry import decode_mask, mask_to_runs
from groundwork.jobs import predict_input, presence, pretrained
from groundwork.jobs.export import OPSET
from groundwork.jobs.exported import KEY, PT2_ENTRY, Description, open_network
from groundwork.jobs.open_image import open_image
from groundwork.models.common.bert_files import unpack
from groundwork.models.common.checkpoint import read_checkpoint
from groundwork.models.common.word_vectors import word_matrix, word_vectors
from groundwork.report.prediction_files import read_predictions
from groundwork.report.results import read_rows
from groundwork.settings import load_config, load_detector
from groundwork.tools.prepare_flickr30k import load_raw
from tests.fuzz.annotations import Reader
from tests.fuzz.codecs import JSON, LINES, ONNX, TORCH, YAML, ZIP
from tests.fuzz.corpus import IMAGES, bombs
from tests.helpers.dataset_files import write_image, write_json

ROOT = Path(__file__).parents[2]
CONFIGS, RELEASED = ROOT / "configs", ROOT / "tests" / "released"
SAVED = ROOT / "checkpoints" / "quickstart_amc"
SIZE = (60, 80)


# --- configurations -------------------------------------------------------------------------------

OURS = (
    "Pretrain_vg", "Grounding_flickr", "tiny/Pretrain_vg_amc", "tiny/reftr/refcoco+",
    "tiny/refclip/refcoco+", "tiny/simrec/refcoco+", "tiny/alvg/grefcoco", "photos/reftr",
)  # fmt: skip
PUBLISHED = (
    "albef/Pretrain", "amc/Grounding_flickr", "selfeq/Pretrain_vg", "selfeq/Grounding_refcoco",
    "refclip/refcoco",
)  # fmt: skip


def _flat(name: str) -> str:
    return name.replace("/", "_") + ".yaml"


def _our_configurations(_embedded: Path, folder: Path) -> None:
    shutil.copytree(CONFIGS, folder, dirs_exist_ok=True)


def _published_configurations(_embedded: Path, folder: Path) -> None:
    for name in PUBLISHED:
        shutil.copy(RELEASED / f"{name}.yaml", folder / _flat(name))


def _load_both(_folder: Path, file: Path) -> object:
    name = file.name
    if name == "detector.yaml":
        return load_detector(file)
    return load_config(file, purpose="evaluation" if "Grounding" in name else "training")


# --- weights --------------------------------------------------------------------------------------


def _checkpoint_sample(_embedded: Path, folder: Path) -> None:
    state = {f"visual_encoder.blocks.{i}.weight": torch.ones(2, 3) for i in range(3)}
    content = {"model": state, "epoch": 3, "config": {"system": "albef", "lr": 0.1}}
    torch.save(content, folder / "new.pth")
    old = {"model": state, "args": {"lr": np.float64(0.1)}}
    torch.save(old, folder / "old.pth", _use_new_zipfile_serialization=False)


def _saved_sample(_embedded: Path, folder: Path) -> None:
    pretrained.write(folder, {"a": torch.ones(2, 3), "b": torch.zeros(1)}, {"system": "albef"}, "#")


def _saved(folder: Path, _file: Path) -> object:
    return pretrained.read(folder)


def _description() -> str:
    said = Description(
        system="albef", source="a.pth", weights="0", config={}, tokenizer={}, text_encoder=".",
        inputs=("x",), outputs=("y",), image={}, calibration=None, versions={}
    )  # fmt: skip
    return said.text()


class _Answers(torch.nn.Linear):
    """Outputs in a tuple, as every exported file has them."""

    def forward(self, input: torch.Tensor) -> tuple[torch.Tensor]:  # type: ignore[override]
        return (super().forward(input),)


def _pt2_sample(_embedded: Path, folder: Path) -> None:
    program = torch.export.export(_Answers(2, 3), (torch.zeros(4, 2),))
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={PT2_ENTRY: _description()})
    (folder / "graph.pt2").write_bytes(content.getvalue())


def onnx_sample(_embedded: Path, folder: Path) -> None:
    """A small graph with a description."""
    from onnx import TensorProto, helper, numpy_helper, save  # an extra

    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "weight", "bias"], ["product"]),
            helper.make_node("Softmax", ["product"], ["y"], axis=1),
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["texts", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["texts", 3])],
        [
            numpy_helper.from_array(np.ones((2, 3), np.float32), "weight"),
            numpy_helper.from_array(np.zeros(3, np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    helper.set_model_props(model, {KEY: _description()})
    save(model, folder / "graph.onnx")


def _exported(_folder: Path, file: Path) -> object:
    network, _ = open_network(file, "cpu")
    if network.about.inputs != ("x",):
        return network.about  # which no system knows, as who loads one says
    return network.answer_each({}, {"x": torch.ones(4, 2)})


# --- images and masks -----------------------------------------------------------------------------


def _image_sample(_embedded: Path, folder: Path) -> None:
    for name, content in IMAGES.items():
        (folder / name).write_bytes(content)


def _image(_folder: Path, file: Path) -> object:
    """By every opener; the first error is raised once all were asked."""
    errors: list[CorruptImageError] = []
    for opener in OPENERS:
        try:
            pixels = load_image(file, "list[0]", opener)
            assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8
        except CorruptImageError as error:
            errors.append(error)
    for shown in (True, False):
        try:
            image_size(file, shown=shown)
        except CorruptImageError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return open_image(file, "shown")


def _mask_sample(_embedded: Path, folder: Path) -> None:
    mask = np.zeros(SIZE, bool)
    mask[5:20, 7:40] = True
    square = [1.0, 1.0, 1.0, 50.0, 50.0, 50.0, 50.0, 1.0]
    flat = mask.ravel(order="F")
    counts = np.diff(np.flatnonzero(np.diff(flat, prepend=True, append=not flat[-1])), prepend=0)
    masks = {
        "polygons": [square, [2.0, 2.0, 9.0, 9.0, 2.0, 9.0]],
        "compressed": mask_to_runs(mask),
        "plain": {"size": list(SIZE), "counts": [0, *counts.tolist()]},
        "several": [mask_to_runs(mask), mask_to_runs(~mask)],
    }
    for name, content in masks.items():
        write_json(folder / f"{name}.json", content)
    np.save(folder / "mask.npy", mask.astype(np.uint8))


def _mask(folder: Path, file: Path) -> object:
    try:
        if file.suffix == ".npy":
            return decode_mask(file.name, SIZE, folder)
        return decode_mask(json.dumps(json.loads(file.read_bytes())), SIZE)
    except ValueError as error:
        # Whoever has the mask of a phrase knows its record, and says so (`dataset.masks`).
        if isinstance(error, json.JSONDecodeError | UnicodeError):
            return None
        raise ValueError(f"{file}: {error}") from error
    except RecursionError:
        return None


# --- words ----------------------------------------------------------------------------------------


def _word_sample(_embedded: Path, folder: Path) -> None:
    Vocabulary(["red", "square"]).save(folder / "words.txt")
    numbers = " ".join(["0.5"] * 4)
    (folder / "vectors.txt").write_text(f"red {numbers}\nsquare {numbers}\n")
    np.save(folder / "matrix.npy", np.zeros((5, 4), np.float32))
    shutil.copy(SAVED / "vocab.txt", folder / "vocab.txt")
    model = SentencePieces.train(["the red square", "a blue circle left of it"], size=30).model
    (folder / "pieces.spm").write_bytes(model)


def _words(folder: Path, file: Path) -> object:
    words = [*"abc", "red", "square"]
    if file.name == "words.txt":
        return Vocabulary.read(file)
    if file.name == "vectors.txt":
        return word_vectors(words, file, 4)
    if file.name == "matrix.npy":
        return word_matrix(words, file, 4)
    if file.name == "pieces.spm":
        return SentencePieces.read(file)("the red square")
    return load_tokenizer(str(folder))("the red square")


# --- archives -------------------------------------------------------------------------------------

_IDS = ("2000001", "2000002")


def _archive_sample(embedded: Path, folder: Path) -> None:
    with tarfile.open(folder / "annotations.tar.xz", "w:xz") as archive:
        for kind, ending in (("Annotations", "xml"), ("Sentences", "txt")):
            for image in _IDS:
                name = f"{kind}/{image}.{ending}"
                archive.add(embedded / "flickr30k_entities" / name, name)
    with zipfile.ZipFile(folder / "bert.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(SAVED / "vocab.txt", "bert/vocab.txt")
        archive.writestr("bert/config.json", "{}" * 100)


def _archive(folder: Path, file: Path) -> object:
    if file.suffix == ".zip":
        with tempfile.TemporaryDirectory() as out:
            return unpack(file, Path(out), 1 << 20)
    with contextlib.redirect_stderr(io.StringIO()):
        return load_raw(folder, _IDS)


def _shard_sample(_embedded: Path, folder: Path) -> None:
    with tarfile.open(folder / "images.tar", "w") as shard:
        for name in ("colour.jpg", "deep.png", "moving.gif"):
            header = tarfile.TarInfo(f"folder/{name}")
            header.size = len(IMAGES[name])
            shard.addfile(header, io.BytesIO(IMAGES[name]))
    shards.write_index(str(folder / "images.tar"), shards.scan(str(folder / "images.tar")))


def _shards(folder: Path, file: Path) -> object:
    if file.suffix == ".tar":
        (folder / shards.INDEX).unlink(missing_ok=True)  # so that the headers are read
    root = str(folder / "images.tar")
    shards.shards_at.cache_clear()
    found = [resolve_image(root, f"folder/{name}") for name in ("colour.jpg", "deep.png")]
    return [load_image(one, str(file)) for one in found]


# --- what is asked, what was written --------------------------------------------------------------


def _question_sample(_embedded: Path, folder: Path) -> None:
    write_image(folder / "0.jpg")
    rows = [{"image": "0.jpg", "phrase": "a cup"}, {"image": "0.jpg", "phrases": ["a", "b"]}]
    (folder / "phrases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _own_sample(_embedded: Path, folder: Path) -> None:
    row = dict.fromkeys(
        ("system", "objective", "checkpoint", "benchmark", "split", "metric", "note"), "x"
    ) | {"value": 1.0, "low": 0.5, "high": 2.0, "n": 3, "derived": False}  # fmt: skip
    write_json(folder / "results.json", [row, {**row, "split": "y"}])
    (folder / "log.txt").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": NaN}\n')
    for name in ("present.json", "model.safetensors"):
        shutil.copy(SAVED / name, folder / name)
    run = {"run": {"system": "ALBEF", "objective": "", "checkpoint": "a.pth", "benchmark": "b",
                   "derived": ["box"], "splits": ["val"], "image_root": "."}}  # fmt: skip
    line = {"id": "1", "phrase": "a cup", "image": "0.jpg", "size": [60, 80], "split": "val",
            "boxes": [[1, 2, 30, 40]], "point": [5, 6]}  # fmt: skip
    lines = "".join(json.dumps(one) + "\n" for one in (run, line))
    (folder / "predictions_val.jsonl").write_text(lines)


def _own(folder: Path, file: Path) -> object:
    if file.name == "results.json":
        return read_rows(file)
    if file.name == "log.txt":
        return JsonLines(file).rows()
    if file.name == "predictions_val.jsonl":
        return read_predictions(file)
    return presence.beside(folder, "match")


def _files(names: Iterable[str], codec: Any) -> dict[str, Any]:
    return dict.fromkeys(names, codec)


READERS: tuple[Reader, ...] = (
    Reader(
        "configurations",
        _files((f"{name}.yaml" for name in (*OURS, "tiny/detector")), YAML),
        _load_both,
        _our_configurations,
    ),
    Reader(
        "published configurations",
        _files(map(_flat, PUBLISHED), YAML),
        _load_both,
        _published_configurations,
    ),
    Reader(
        "checkpoints",
        {"new.pth": TORCH, "old.pth": None},
        lambda _folder, file: read_checkpoint(file),
        _checkpoint_sample,
    ),
    Reader(
        "saved folders",
        {pretrained.WEIGHTS: None, pretrained.CONFIG: JSON},
        _saved,
        _saved_sample,
    ),
    Reader("exported .pt2 files", {"graph.pt2": ZIP}, _exported, _pt2_sample),
    Reader("exported ONNX files", {"graph.onnx": ONNX}, _exported, onnx_sample),
    Reader("images", _files(IMAGES, None), _image, _image_sample, bombs),
    Reader(
        "masks",
        _files(("polygons.json", "compressed.json", "plain.json", "several.json"), JSON)
        | {"mask.npy": None},
        _mask,
        _mask_sample,
    ),
    Reader(
        "words",
        _files(("words.txt", "vectors.txt", "matrix.npy", "vocab.txt", "pieces.spm"), None),
        _words,
        _word_sample,
    ),
    Reader(
        "archives",
        {"annotations.tar.xz": None, "bert.zip": None},
        _archive,
        _archive_sample,
    ),
    Reader("tar shards", _files(("images.tar", shards.INDEX), None), _shards, _shard_sample),
    Reader(
        "lists of questions",
        {"phrases.jsonl": LINES},
        lambda _folder, file: predict_input.read_questions(file, ()),
        _question_sample,
    ),
    Reader(
        "results, predictions and logs",
        {
            "results.json": JSON,
            "present.json": JSON,
            "log.txt": LINES,
            "predictions_val.jsonl": LINES,
        },
        _own,
        _own_sample,
    ),
)

"""Exported files that would run code, or read other files, if they were believed."""

import copy
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

from groundwork.jobs.exported import (
    GRAPHS,
    Description,
    Opened,
    load_exported,
    open_network,
    packed_tokenizer,
)
from groundwork.jobs.recognition import load_system
from groundwork.jobs.systems import SHIPPED
from groundwork.models.common.checkpoint import CheckpointError
from groundwork.settings import to_dict
from tests.faults.test_hostile_files import Running
from tests.fuzz.others import onnx_sample

MODEL, INPUTS = "models/model.json", "data/sample_inputs/model.pt"
WEIGHTS = "data/weights/model_weights_config.json"
READ = "was not written by tools/export"
"""What is said of a file that was read, but says nothing of itself."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, bytes]:
    """The entries of a file of torch.export, without their common folder."""
    file = tmp_path_factory.mktemp("sound") / "a.pt2"
    program = torch.export.export(
        nn.Linear(2, 3), (torch.zeros(4, 2),), dynamic_shapes=({0: Dim.DYNAMIC, 1: None},)
    )
    torch.export.save(program, file)
    with zipfile.ZipFile(file) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def write(file: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(f"a/{name}", content)
    return file


def changed(entries: dict[str, bytes], name: str, change: Callable[[Any], None]) -> dict:
    """With another content of a JSON entry."""
    content = copy.deepcopy(json.loads(entries[name]))
    change(content)
    return entries | {name: json.dumps(content).encode()}


def said_of(file: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_exported(file, "cpu")
    assert str(file) in str(caught.value)
    return str(caught.value)


def would_run(file: Path, trace: Path) -> bool:
    """Elsewhere."""
    try:
        torch.export.load(file).module()
    except Exception:  # noqa: BLE001, S110 (after what it ran)
        pass
    return trace.exists()


def test_a_file_that_is_data_alone_is_read(sound, tmp_path):
    assert READ in said_of(write(tmp_path / "a.pt2", sound))


def test_a_pickle_in_the_place_of_a_tensor_is_refused(sound, tmp_path):
    trace = tmp_path / "trace"

    def pickled(config: Any) -> None:
        for one in config["config"].values():
            one["use_pickle"] = True

    content = io.BytesIO()
    torch.save(Running(trace), content)
    entries = changed(sound, WEIGHTS, pickled)
    file = write(tmp_path / "a.pt2", entries | {"data/weights/weight_0": content.getvalue()})
    assert "holds a pickle" in said_of(file)
    assert not trace.exists() and would_run(file, trace)


def test_the_example_of_a_file_is_not_even_read(sound, tmp_path):
    trace = tmp_path / "trace"
    content = io.BytesIO()
    torch.save(Running(trace), content)
    file = write(tmp_path / "a.pt2", sound | {INPUTS: content.getvalue()})
    assert READ in said_of(file)
    assert not trace.exists() and would_run(file, trace)


def test_guards_of_a_file_are_not_run(sound, tmp_path):
    trace = tmp_path / "trace"

    def guarded(model: Any) -> None:
        model["guards_code"] = [f"__import__('os').mkdir({str(trace)!r}) is None"]

    file = write(tmp_path / "a.pt2", changed(sound, MODEL, guarded))
    assert READ in said_of(file)
    assert not trace.exists()


def texts(value: Any, key: str) -> list[dict]:
    """The objects in JSON that have a key."""
    if isinstance(value, list):
        return [found for one in value for found in texts(one, key)]
    if not isinstance(value, dict):
        return []
    return [value] * (key in value) + [found for one in value.values() for found in texts(one, key)]


def test_the_size_of_a_tensor_is_no_program(sound, tmp_path):
    trace = tmp_path / "trace"

    def sized(model: Any) -> None:
        for one in texts(model, "expr_str"):
            one["expr_str"] = f"__import__('os').mkdir({str(trace)!r})"

    file = write(tmp_path / "a.pt2", changed(sound, MODEL, sized))
    assert "holds the expression" in said_of(file)
    assert not trace.exists() and would_run(file, trace)


@pytest.mark.parametrize(
    "name",
    ["torch.hub.load", "torch.load", "_operator.methodcaller", "_operator.call", "math.__loader__",
     "torch.ops.aten.from_file.default", "torch.ops.higher_order.print", "torch.ops.load_library"],
)  # fmt: skip
def test_functions_that_do_more_than_compute_are_refused(name, sound, tmp_path):
    def called(model: Any) -> None:
        texts(model, "target")[-1]["target"] = name

    assert "holds the function" in said_of(write(tmp_path / "a.pt2", changed(sound, MODEL, called)))


@pytest.mark.parametrize("name", ['x"); print(1); ("', "x\n    print(1)", "x=print", "ſ y"])
def test_names_are_names(name, sound, tmp_path):
    def named(model: Any) -> None:
        texts(model, "name")[0]["name"] = name

    assert "holds the text" in said_of(write(tmp_path / "a.pt2", changed(sound, MODEL, named)))


@pytest.mark.parametrize(
    "entry",
    ["data/aotinductor/model/a.so", "data/constants/custom_obj_0", "data/constants/opaque_obj_0",
     "data/weights/model.pt", "serialized_state_dict.pt", "version"],
)  # fmt: skip
def test_entries_that_hold_programs_are_refused(entry, sound, tmp_path):
    content = {entry: pickle.dumps(Running(tmp_path / "trace"))}
    assert f"holds {entry}" in said_of(write(tmp_path / "a.pt2", sound | content))
    assert not (tmp_path / "trace").exists()


def test_bombs_and_what_is_there_twice_are_refused(sound, tmp_path):
    bomb = write(tmp_path / "a.pt2", sound, zipfile.ZIP_DEFLATED)
    assert "twice, or compressed" in said_of(bomb)
    double = write(tmp_path / "b.pt2", sound)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(double, "a") as archive:
        archive.writestr(f"a/{MODEL}", b"{}")
    assert "twice, or compressed" in said_of(double)


def test_a_description_that_is_no_description_is_named(sound, tmp_path):
    for content in (b"[]", b'{"system": 1}', b"{"):
        file = write(tmp_path / "a.pt2", sound | {"extra/groundwork.json": content})
        assert "its description is of another version" in said_of(file)


@pytest.mark.parametrize("place", ["../secret.bin", "{folder}/secret.bin"])
def test_the_weights_of_an_onnx_file_lie_nowhere_else(place, tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(8))
    folder = tmp_path / "models"
    folder.mkdir()
    assert "damaged" in said_of(weights_at(place.format(folder=tmp_path), folder / "a.onnx"))


def test_an_onnx_file_without_its_weights_asks_for_them(tmp_path):
    found = said_of(weights_at("a.onnx.data", tmp_path / "a.onnx"))
    assert "put a.onnx.data, its weights, back beside it" in found


def weights_at(place: str, file: Path) -> Path:
    """An ONNX file that says its weights lie at `place`."""
    pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra 'export', is missing")
    onnx = pytest.importorskip("onnx", reason="onnx, of the extra 'export', is missing")
    weight = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[2])
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=place)
    value = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])
    node = onnx.helper.make_node("Identity", ["w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [], [value], [weight])
    opset = [onnx.helper.make_opsetid("", 18)]
    file.write_bytes(
        onnx.helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    )
    return file


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("tokenizer", ["vocab.txt"], "tokenizer: expected keys and values"),
        ("tokenizer", {}, "holds neither vocab.txt"),
        ("tokenizer", {"vocab.txt": "x"}, "tokenizer: Invalid base64"),
        ("text_encoder", "/etc/hostname", "'/etc/hostname' is not in it"),
        ("inputs", ["image", "seen_maps"], "inputs: seen_maps is unknown"),
        ("outputs", ["answer"], "outputs: answer is unknown"),
        ("outputs", ["score", "heatmaps", "score"], "outputs: score is unknown or named twice"),
        ("step", "sounds", "step: 'sounds' is not one of"),
        ("images", "a.images.txt", "images: 'a.images.txt' has another ending"),
        ("images", "", "images: '' has another ending"),
    ],
)
def test_a_description_that_does_not_fit_is_named(key, value, said, monkeypatch, tmp_path):
    found = said_of(opened_as(described_as({key: value}), tmp_path, monkeypatch))
    assert said in found and "export the checkpoint again" in found


def described_as(changes: dict[str, Any]) -> Opened:
    """The system that ships, with a graph that gives nothing and another description."""
    loaded = load_system(SHIPPED, device=torch.device("cpu"))
    files, name = packed_tokenizer(loaded.tokenizer)
    network = loaded.parts.evaluated
    about = Description(
        "albef", "a", "0", to_dict(loaded.config), files, name, network.inputs, network.outputs,
        {}, None, {},
    )  # fmt: skip
    content = asdict(about) | changes
    counts = len(content["inputs"]), len(content["outputs"])
    return Opened(lambda *_: (), *counts, json.dumps(content), torch.device("cpu"))


def test_an_output_that_an_answer_needs_and_a_description_does_not_name_is_named(
    tmp_path, monkeypatch
):
    file = opened_as(described_as({"outputs": ["score", "evidence"]}), tmp_path, monkeypatch)
    loaded, _ = load_exported(file, "cpu")
    with pytest.raises(CheckpointError, match="a.onnx: .*outputs cannot be read: .*heatmaps"):
        loaded.parts.postprocess({"score": torch.zeros(1), "evidence": torch.zeros(1)}, {})


def opened_as(opened: Opened, folder: Path, monkeypatch) -> Path:
    """A file that is opened as told."""
    file = folder / "a.onnx"
    file.write_bytes(b"graph")
    monkeypatch.setitem(GRAPHS, ".onnx", lambda *_: opened)
    return file


def test_a_graph_of_other_tensors_than_it_says_is_refused(tmp_path, monkeypatch):
    about = Description("albef", "a", "0", {}, {}, ".", ("image",), ("score",), {}, None, {})
    opened = Opened(lambda *_: (), 1, 2, about.text(), torch.device("cpu"))
    said = said_of(opened_as(opened, tmp_path, monkeypatch))
    assert "(1, 1) inputs and outputs, (1, 2) in the graph" in said


def test_a_graph_that_cannot_be_run_names_its_file(tmp_path):
    onnx = pytest.importorskip("onnx", reason="the extra export is not installed")
    onnx_sample(tmp_path, tmp_path)
    graph = onnx.load(tmp_path / "graph.onnx")
    graph.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "any"
    onnx.save(graph, tmp_path / "graph.onnx")
    network, _ = open_network(tmp_path / "graph.onnx")
    with pytest.raises(CheckpointError, match="graph.onnx: its graph cannot be run"):
        network.answer_each({}, {"x": torch.ones(4, 7)})


@pytest.mark.parametrize("ending", GRAPHS)
def test_what_lies_in_the_place_of_an_exported_file_is_called_what_it_is(ending, tmp_path):
    file = tmp_path / f"a{ending}"
    for content, what in (
        ("", "an empty file"),
        ("<html>Quota exceeded", "a web page"),
        ("version https://git-lfs.github.com/spec/v1\n", "a pointer of git-lfs"),
    ):
        file.write_text(content)
        assert f"is {what}" in said_of(file)

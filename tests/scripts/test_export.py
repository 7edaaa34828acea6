"""tools/export: files of every system answer as their checkpoints do, in Python and predict.py."""

import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import predict
from groundwork import Grounder
from groundwork.jobs.export import differences, example_of, weights_digest
from groundwork.jobs.exported import KEY, load_exported, open_network
from groundwork.jobs.questions import questions_of
from groundwork.jobs.recognition import load_system
from groundwork.jobs.systems import SHIPPED
from tests.helpers.exported_files import FORMS, Pair, checkpoint_of, exported, marked
from tests.helpers.own_checkpoints import KINDS, write_checkpoint
from tests.helpers.script_runs import error_of
from tools import export

onnx, _, _ = (
    pytest.importorskip(package, reason=f"{package}, of the extra 'export', is not installed")
    for package in ("onnx", "onnxscript", "onnxruntime")
)
pytestmark = pytest.mark.usefixtures("embedded")
PHRASES = [
    "the red circle",
    "the star",
    "the small blue square on the left of the large green triangle",
    *(f"the {number} thing" for number in range(17)),  # more than go together
]
LONG = "circle " * 100
"""More than any of the models reads."""


@pytest.fixture(scope="module", params=marked(FORMS))
def pair(request, workplace, shared) -> Pair:
    """A checkpoint and the exported file of it."""
    return exported(request.param, workplace, shared)


def test_tensors_are_those_of_pytorch_for_any_number_of_images_texts_and_tokens(pair):
    checkpoint, file = pair
    loaded = load_system(checkpoint, device=torch.device("cpu"))
    written, _ = load_exported(file)
    questions, network = questions_of(loaded.config, loaded.tokenizer), loaded.parts.evaluated
    shapes = [(1, 1, 2), (1, 3, 5), (2, 2, 11), (4, 9, 3)]
    examples = [
        example_of(questions, loaded.tokenizer, network, images=n, texts=t, tokens=k, seed=t)
        for n, t, k in shapes
    ]
    found = differences(network, written.parts.evaluated, examples)
    assert set(found) <= set(network.outputs) and found
    assert max(found.values()) <= 1e-4, found


def test_points_boxes_masks_and_maps_are_those_of_the_checkpoint(pair, embedded):
    checkpoint, file = pair
    of_checkpoint = Grounder.load(checkpoint, device="cpu")
    of_file = Grounder.load(file)
    assert of_file.about.system == of_checkpoint.about.system
    images = sorted((embedded / "images").rglob("*.jpg"))[:2]
    points = set()
    for image in images:
        words = of_checkpoint.gives_word_maps
        expected = of_checkpoint.ground(image, PHRASES, words=words)
        for one, other in zip(of_file.ground(image, PHRASES, words=words), expected, strict=True):
            assert (one.phrase, one.size, one.derived) == (other.phrase, other.size, other.derived)
            assert one.point == pytest.approx(other.point, abs=0.01)
            assert one.boxes == pytest.approx(other.boxes, abs=0.01)
            assert one.scores == pytest.approx(other.scores, abs=1e-4)
            assert one.score == pytest.approx(other.score, abs=1e-4)
            assert one.present == pytest.approx(other.present, abs=1e-4)
            assert one.threshold == other.threshold
            assert (one.mask is None) == (other.mask is None)
            if one.mask is not None:
                # A probability of one half may fall on either side.
                assert (one.mask != other.mask).mean() < 1e-3
            if one.heatmap is not None:
                assert one.heatmap == pytest.approx(other.heatmap, abs=1e-4)
            for word, same in zip(one.word_maps, other.word_maps, strict=True):
                assert (word.word, word.pieces) == (same.word, same.pieces)
                assert word.heatmap == pytest.approx(same.heatmap, abs=1e-4)
            points.add(one.point)
    assert len(points) > 1


def test_no_path_of_this_machine_is_in_the_file(pair):
    checkpoint, file = pair
    content = [file.read_bytes()]
    if file.suffix == ".pt2":
        with zipfile.ZipFile(file) as archive:
            content = [archive.read(name) for name in archive.namelist()]
    folders = (Path(export.__file__).parents[1], sys.prefix, torch.__path__[0], checkpoint.parent)
    for folder in folders:
        assert not any(os.fsencode(folder) in one for one in content), folder


def test_a_text_that_is_too_long_is_met_as_by_the_checkpoint(pair, embedded, caplog):
    image, said = sorted((embedded / "images").rglob("*.jpg"))[0], []
    for source in pair:
        caplog.clear()
        grounder = Grounder.load(source, device="cpu")
        try:
            (found,) = grounder.ground(image, LONG)
        except ValueError as error:
            said.append(str(error))
        else:
            place = [round(one, 1) for one in found.point]
            remarks = [one.getMessage() for one in caplog.records if "phrase" in one.msg]
            assert remarks
            said.append((place, remarks))
    assert said[0] == said[1]


def test_a_session_answers_as_the_grounder(pair, embedded):
    grounder = Grounder.load(pair[1])
    image = sorted((embedded / "images").rglob("*.jpg"))[0]
    session = grounder.look(image)
    (first,), (second,) = session.ground(PHRASES[0]), session.ground(PHRASES[1])
    expected = grounder.ground(image, PHRASES[:2])
    assert [first.point, second.point] == [pytest.approx(one.point, abs=0.01) for one in expected]


@pytest.fixture(scope="module")
def amc(workplace, shared) -> Path:
    return exported("quickstart_amc", workplace, shared).file


def test_its_speed_is_measured_beside_that_of_the_checkpoint(amc, capsys):
    grounders = {"PyTorch": Grounder.load(SHIPPED), "file": Grounder.load(amc)}
    found = export.timed(grounders, 1)
    assert all(seconds > 0 for one in found.values() for seconds in one.values())
    assert "16 phrases, file" in capsys.readouterr().out


SPLIT = marked(["simrec", "quickstart_amc", "reftr_phrases"], ["simrec"])


@pytest.fixture(scope="module", params=SPLIT)
def split(request, workplace, shared) -> Pair:
    """A checkpoint and the file of its texts, beside that of its images."""
    return exported(request.param, workplace, shared, "--split")


def test_an_image_is_encoded_once_where_it_has_a_file_of_its_own(split, embedded):
    of_checkpoint, of_file = (Grounder.load(one, device="cpu") for one in split)
    network = of_file._loaded.parts.evaluated
    graph, about = network.images
    asked: list[int] = []

    def counted(*tensors):
        asked.append(len(tensors[0]))
        return graph(*tensors)

    network.images = (counted, about)
    for image in sorted((embedded / "images").rglob("*.jpg"))[:2]:
        asked.clear()
        session = of_file.look(image)
        found = [*session.ground(PHRASES[:3]), *session.ground(PHRASES[3:])]
        assert asked == [1]
        for one, other in zip(found, of_checkpoint.ground(image, PHRASES), strict=True):
            assert one.point == pytest.approx(other.point, abs=0.01)
            assert one.boxes == pytest.approx(other.boxes, abs=0.01)
            assert one.score == pytest.approx(other.score, abs=1e-4)


def test_a_file_of_texts_wants_its_own_file_of_images(split, tmp_path):
    file = split.file
    images = file.with_suffix(f".images{file.suffix}")
    with pytest.raises(ValueError, match=f"give the file of its texts beside it, {file.name}"):
        Grounder.load(images)
    alone = shutil.copy(file, tmp_path)
    with pytest.raises(FileNotFoundError, match=f"{images.name}, what it does with images"):
        Grounder.load(alone)


def test_images_of_other_weights_are_refused(workplace, shared, tmp_path):
    texts = exported("simrec", workplace, shared, "--split").file
    file = Path(shutil.copy(texts, tmp_path))
    images = file.with_suffix(".images.onnx")
    # Of the same weights, but all of the system.
    shutil.copy(exported("simrec", workplace, shared).file, images)
    with pytest.raises(ValueError, match="export both again"):
        Grounder.load(file)
    other = onnx.load(texts)
    (entry,) = (one for one in other.metadata_props if one.key == KEY)
    entry.value = json.dumps(json.loads(entry.value) | {"step": "images", "weights": "0"})
    onnx.save(other, images)
    with pytest.raises(ValueError, match="export both again"):
        Grounder.load(file)


def test_weights_beside_a_graph_are_those_that_it_was_written_with(tmp_path, monkeypatch):
    monkeypatch.setattr("groundwork.jobs.export._EMBEDDED", 0)
    file, weights = tmp_path / "a.onnx", tmp_path / "a.onnx.data"
    export.main([str(SHIPPED), "--out", str(file), "--outputs", "text_features"])
    assert file.stat().st_size < weights.stat().st_size
    assert open_network(file)[0].about.outputs == ("text_features",)
    others = bytearray(weights.read_bytes())
    others[1] ^= 1
    weights.write_bytes(others)
    with pytest.raises(ValueError, match=r"a\.onnx\.data: these are not the weights that a\.onnx"):
        open_network(file)


def test_texts_that_look_into_the_image_encoder_cannot_be_split(tmp_path):
    settings = ["--split", "--set", "model.explanation.method=rollout"]
    said = refusal(SHIPPED, tmp_path / "a.pt2", *settings)
    assert "images cannot have a graph of their own" in said


TEXT = ("text_ids", "text_mask")


PARTS = {
    "text encoder": ("quickstart_amc", "text_features", ".onnx", TEXT),
    "image encoder": ("quickstart_amc", "image_features", ".pt2", ("image",)),
    "match": ("quickstart_amc", "score", ".onnx", ("image", *TEXT, "phrase_image")),
    "recurrent": ("simrec", "cells", ".onnx", ("image", "text_ids", "phrase_image")),
    "what is padded": ("reftr_phrases", "phrase_mask", ".pt2", ("text_mask",)),
}


@pytest.mark.parametrize("part", marked(PARTS, ("text encoder", "image encoder")))
def test_a_file_of_some_outputs_takes_and_holds_what_they_need(
    part, workplace, shared, tmp_path, monkeypatch
):
    kind, output, ending, inputs = PARTS[part]
    checkpoint, file = checkpoint_of(kind, workplace, shared), tmp_path / f"part{ending}"
    monkeypatch.chdir(workplace)
    apart = export.main([str(checkpoint), "--out", str(file), "--outputs", output])["differences"]
    assert list(apart) == [output] and apart[output] <= 1e-4
    network, _ = open_network(file)
    assert network.about.inputs == inputs
    if output.endswith("features"):
        assert file.stat().st_size < exported(kind, workplace, shared).file.stat().st_size
    with pytest.raises(ValueError, match=f"holds what gives {output}, not the system"):
        Grounder.load(file)


def test_an_output_that_is_not_given_is_refused(tmp_path):
    said = refusal(SHIPPED, tmp_path / "a.onnx", "--outputs", "text", "score")
    assert "it gives no 'text', but heatmaps" in said


def test_predict_draws_it_beside_its_checkpoint(amc, embedded, tmp_path):
    image = sorted((embedded / "images").rglob("*.jpg"))[0]
    checkpoints = [str(SHIPPED), str(amc)]
    out = predict.main(
        [str(image), *PHRASES[:2], "--checkpoint", *checkpoints, "--out", str(tmp_path / "out")]
    )["out"]
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    before, after = rows[:2], rows[2:]
    assert [row["point"] for row in before] == [row["point"] for row in after]
    assert [row["mask"] for row in before] == [row["mask"] for row in after]


def test_the_file_says_what_it_is_and_which_weights_it_has(amc):
    kept = {one.key: one.value for one in onnx.load(amc).metadata_props}
    about = json.loads(kept[KEY])
    loaded = load_system(SHIPPED, device=torch.device("cpu"))
    assert about["system"] == "albef" and about["source"] == "quickstart_amc"
    assert about["weights"] == weights_digest(loaded.parts.evaluated)
    assert about["inputs"] == ["image", "text_ids", "text_mask", "phrase_image"]
    assert about["image"]["image_size"] == loaded.config.model.image_size
    assert "vocab.txt" in about["tokenizer"]
    assert str(amc) in str(Grounder.load(amc).about)


def test_axes_have_names(amc):
    shapes = {
        one.name: [axis.dim_param or axis.dim_value for axis in one.type.tensor_type.shape.dim]
        for one in onnx.load(amc).graph.input
    }
    assert shapes["text_ids"] == ["texts", "tokens"] and shapes["image"][0] == "images"


def refusal(checkpoint: Path, out: Path, *more: str) -> str:
    """What the tool says of a checkpoint that it does not export."""
    said = error_of(lambda: export.main([str(checkpoint), "--out", str(out), *more]))
    assert not out.exists()
    return said


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (["model.explanation.mode=itc", "model.explanation.block=1"], "explanation.mode itc"),
        (["model.explanation.method=relevance"], "explanation.method relevance"),
    ],
)
def test_maps_that_need_the_image_encoders_gradient_are_refused(settings, key, tmp_path):
    said = refusal(SHIPPED, tmp_path / "a.pt2", "--set", *settings)
    assert f"model.{key} cannot be exported" in said


def test_a_detector_that_chooses_its_boxes_is_refused(tmp_path):
    name = "fasterrcnn_resnet50_fpn"
    with pytest.MonkeyPatch.context() as patch:
        settings = (f"model.detector.name={name}", "model.cache=null")
        config = KINDS["refclip"][0]
        patch.setitem(KINDS, "torchvision", (config, config, settings))
        checkpoint = write_checkpoint("torchvision", tmp_path / "own.pth")
    said = refusal(checkpoint, tmp_path / "a.pt2")
    assert f"model.detector.name {name} cannot be exported" in said and "yolov3" in said


def test_an_ending_that_is_not_known_is_refused(tmp_path):
    said = refusal(SHIPPED, tmp_path / "a.txt")
    assert ".onnx or .pt2" in said


def test_a_folder_in_the_place_of_a_file_is_refused_before_anything_is_made(tmp_path):
    (tmp_path / "a.images.pt2").mkdir()
    said = refusal(SHIPPED, tmp_path / "a.pt2", "--split")
    assert "a.images.pt2 is a folder" in said


def test_what_is_in_the_file_cannot_be_given_again(amc):
    with pytest.raises(ValueError, match="has its configuration and tokeniser in it"):
        Grounder.load(amc, overrides=["model.explanation.region=otsu"])
    with pytest.raises(ValueError, match="save_pretrained writes a checkpoint"):
        Grounder.load(amc).save_pretrained(amc.parent / "saved")
    assert not (amc.parent / "saved").exists()


def test_files_that_are_missing_damaged_or_of_others_are_named(amc, tmp_path):
    with pytest.raises(FileNotFoundError, match="none.onnx does not exist"):
        Grounder.load(tmp_path / "none.onnx")
    for name in ("cut.onnx", "cut.pt2"):
        (tmp_path / name).write_bytes(amc.read_bytes()[:1000])
        with pytest.raises(ValueError, match=f"{name}: damaged"):
            Grounder.load(tmp_path / name)
    foreign = onnx.load(amc)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(ValueError, match="foreign.onnx: was not written by tools/export"):
        Grounder.load(tmp_path / "foreign.onnx")


def test_a_device_that_the_runtime_lacks_is_refused(amc):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime computes on GPUs")
    with pytest.raises(ValueError, match="--device cuda.*use cpu"):
        Grounder.load(amc, device="cuda")


def test_without_the_extra_the_remedy_is_said(amc, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"needs onnxruntime; install it with pip install"):
        Grounder.load(amc)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    said = refusal(SHIPPED, tmp_path / "a.onnx")
    assert "install it with pip install" in said and ".pt2" in said

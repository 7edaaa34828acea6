"""Published files tell `Grounder` what they are: system, recipe, sizes."""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch

from groundwork import Grounder
from groundwork.geometry import Grounding
from groundwork.jobs.recognition import About, layouts_of
from groundwork.models import SYSTEMS
from groundwork.models.common.checkpoint import CheckpointError, read_checkpoint
from groundwork.settings import load_config, to_dict
from tests.helpers.published_files import PUBLISHED, TEXTS, drawn, write_published
from tests.helpers.script_runs import CONFIGS


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("published")
    return {kind: write_published(kind, folder / kind) for kind in PUBLISHED}


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.point == pytest.approx(other.point, abs=1e-3)
        assert one.boxes == pytest.approx(other.boxes, abs=1e-2)
        assert one.scores == pytest.approx(other.scores, abs=1e-5)
        assert (one.mask is None) == (other.mask is None)
        if one.mask is not None:
            assert (one.mask != other.mask).mean() < 1e-3


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_published_file_is_recognised_and_answers_as_with_its_configuration(kind, files):
    grounder = Grounder.load(files[kind], device="cpu")
    assert grounder.about.system == kind.split("_")[0]
    assert PUBLISHED[kind].config in grounder.about.config
    beside = next(files[kind].parent.glob("*.spm"), None)
    config = PUBLISHED[kind].configuration()
    named = Grounder.load(files[kind], device="cpu", config=config, tokenizer=beside)
    found = grounder.ground(drawn(), TEXTS)
    assert len({one.point for one in found}) > 1
    assert_same(found, named.ground(drawn(), TEXTS))


def test_all_of_them_load_again_and_from_two_threads_at_once_with_equal_answers(files):
    together = Barrier(2, timeout=60)

    def asked(kind: str) -> tuple[About, list[Grounding]]:
        grounder = Grounder.load(files[kind], device="cpu")
        return grounder.about, grounder.ground(drawn(), TEXTS)

    def asked_beside_another(order: list[str]) -> dict[str, tuple[About, list[Grounding]]]:
        found = {}
        for kind in order:
            together.wait()
            found[kind] = asked(kind)
        return found

    kinds = list(files)
    alone = {kind: asked(kind) for kind in kinds}
    with ThreadPoolExecutor(2) as threads:
        for found in threads.map(asked_beside_another, (kinds, kinds[::-1])):
            for kind, (about, answers) in found.items():
                assert about == alone[kind][0]
                assert_same(answers, alone[kind][1])


def on_paper(name: str) -> tuple[dict, object]:
    """The state dict of a recipe's network, shapes without numbers, and the recipe's settings."""
    config = load_config(CONFIGS / f"{name}.yaml", purpose="evaluation")
    system = SYSTEMS[config.system]
    words = type("Words", (list,), {"pad_token_id": {"alvg": 1}.get(config.system, 0)})
    words.pad_token_id = 1 if "roberta" in name else words.pad_token_id
    with torch.device("meta"):
        model = system.build(config.model, words([0] * 9999), training=False).model
        return system.published_state(model), config.model


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Grounding_refcoco", "ALBEF, AMC or SelfEQ"),
        ("reftr/refcoco", "one phrase, ResNet-50, BERT"),
        ("reftr/refcoco_res", "masks, ResNet-50, BERT"),
        ("reftr/flickr30k_roberta", "ResNet-50, RoBERTa"),
        ("refclip/refcoco", "80 classes"),
        ("refclip/referit", "100 classes"),
        ("simrec/refcoco", "SimREC"),
        ("alvg/refcoco", "base, one target, masks"),
        ("alvg/grefcoco", "base, any number of targets, masks"),
        ("alvg/large_refcoco", "large, one target, masks"),
    ],
)
def test_the_networks_of_the_papers_are_recognised_with_every_size(name, said):
    state, expected = on_paper(name)
    if name.startswith("alvg"):
        state["head.criterion.empty_weight"] = torch.tensor([1.0, 0.1])
    (found,) = layouts_of({"model": state}, Path("file.pth"))
    assert found.config == name and said in found.title
    told = [f"{key}={json.dumps(value)}" for key, value in found.settings.items()]
    config = load_config(CONFIGS / f"{name}.yaml", told, purpose="evaluation")
    assert to_dict(config.model) == to_dict(expected)


def test_a_deeper_image_network_is_told_from_its_blocks():
    state, _ = on_paper("reftr/refcoco")
    for block in range(6, 23):
        for key in [key for key in state if key.startswith("img_backbone.0.body.layer3.5.")]:
            state[key.replace("layer3.5.", f"layer3.{block}.")] = state[key]
    (found,) = layouts_of({"model": state}, Path("file.pth"))
    assert "ResNet-101" in found.title


def test_the_command_line_in_a_file_says_what_tensors_do_not():
    state, _ = on_paper("reftr/refcoco")
    arguments = argparse.Namespace(dataset="flickr30k", dilation=True, nheads=4)
    (found,) = layouts_of({"model": state, "args": arguments}, Path("file.pth"))
    assert found.config == "reftr/flickr30k" and "several phrases" in found.title
    assert found.settings["model.backbone.output_stride"] == 16
    assert found.settings["model.heads"] == 4


def test_what_cannot_be_told_is_said_in_one_sentence(files, tmp_path):
    state = read_checkpoint(files["albef"])["model"]
    narrow = {key: value[..., :48] if key.endswith("pos_embed") else value
              for key, value in state.items()}  # fmt: skip
    torch.save({"model": narrow}, tmp_path / "narrow.pth")
    with pytest.raises(CheckpointError, match="how many heads its width of 48 .* config="):
        Grounder.load(tmp_path / "narrow.pth", device="cpu")
    torch.save({"beit3.text_embed.weight": torch.zeros(2, 2)}, tmp_path / "beit3.pth")
    with pytest.raises(CheckpointError, match=r"looks like a checkpoint of BEiT-3; name one with"):
        Grounder.load(tmp_path / "beit3.pth", device="cpu")
    alone = tmp_path / "alone.pth"
    alone.write_bytes(files["simrec"].read_bytes())
    with pytest.raises(CheckpointError, match=r"no vocabulary, nor is there a words\.txt beside"):
        Grounder.load(alone, device="cpu")
    alone.write_bytes(files["alvg"].read_bytes())
    with pytest.raises(FileNotFoundError, match=r"beit3\.spm .*tokenizer="):
        Grounder.load(alone, device="cpu")
    cut = {key: value for key, value in state.items() if not key.endswith("word_embeddings.weight")}
    torch.save({"model": cut}, alone)
    with pytest.raises(CheckpointError, match="looks like a checkpoint of ALBEF, but has no entry"):
        Grounder.load(alone, device="cpu")


def test_overrides_win_over_what_a_file_says(files):
    grounder = Grounder.load(files["albef"], device="cpu", overrides=["model.image_size=96"])
    (found,) = grounder.ground(drawn(), "a blue triangle")
    assert np.shape(found.heatmap) == (6, 6)  # of patches of 16

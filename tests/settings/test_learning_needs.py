"""What a run learns nothing from is said before it: weights without losses, objectives without
data, phrases that are too long for the model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import grounding_eval_singlegpu
import Pretrain_vg
import train
from groundwork.engine.weights import require_weighted
from groundwork.settings import load_config
from groundwork.tools import check_data
from tests.helpers import script_runs
from tests.helpers.script_runs import CONFIGS, error_of

AMC, SELFEQ = "tiny/Pretrain_vg_amc", "tiny/Pretrain_vg"


def without(*keys: str) -> Callable[[dict], dict]:
    return lambda entry: {key: value for key, value in entry.items() if key not in keys}


def renamed(entry: dict) -> dict:
    """Boxes under another key than the reader's."""
    return {("bboxes" if key == "bbox" else key): value for key, value in entry.items()}


def rewritten(source: Path, path: Path, change: Callable[[dict], dict], every: int = 1) -> Path:
    """The entries of a list, every so many of them changed."""
    entries = json.loads(source.read_text())
    changed = [change(one) if n % every == 0 else one for n, one in enumerate(entries)]
    path.write_text(json.dumps(changed))
    return path


def checked(config: str, path: Path, *overrides: str) -> tuple[int, list[dict]]:
    """Exit code of check_data, and its parts."""
    out = path.with_suffix(".report.json")
    file = str(CONFIGS / f"{config}.yaml")
    code = check_data.main(
        [file, "--sample", "0", "--workers", "1", "--out", str(out), "--set", *overrides]
    )
    return code, json.loads(out.read_text())["parts"]


@pytest.mark.parametrize("change", [without("bbox"), renamed], ids=["none", "another key"])
def test_amc_on_a_list_without_boxes_is_an_error_in_run_and_check(change, embedded, tmp_path):
    path = rewritten(embedded / "vg" / "train.json", tmp_path / "own.json", change)
    own = f"data.train.train=[{path}]"
    expected = "phrases has a box, without which amc learns nothing; boxes are read from"
    message = error_of(
        lambda: script_runs.train(Pretrain_vg, AMC, tmp_path / "run", overrides=[own])
    )
    assert f"{path}: none of " in message and expected in message
    code, (part,) = checked(AMC, path, own)
    assert code == 1 and part["errors"] == {"stops the run": 1}
    assert expected in part["examples"]["stops the run"][0]


def test_some_phrases_without_a_box_are_a_warning_with_their_number(embedded, tmp_path, capsys):
    source, path = embedded / "vg" / "train.json", tmp_path / "own.json"
    rewritten(source, path, without("bbox"), every=3)
    own = f"data.train.train=[{path}]"
    phrases = [(len(e["caption"]), "bbox" in e) for e in json.loads(path.read_text())]
    lacking = sum(count for count, boxed in phrases if not boxed)
    script_runs.train(Pretrain_vg, AMC, tmp_path / "run", overrides=[own])
    said = f"{lacking} of {sum(count for count, _ in phrases)} phrases have no box"
    assert said in capsys.readouterr().err
    code, (part,) = checked(AMC, path, own)
    assert code == 0 and part["warnings"]["no box to learn from"] == lacking
    assert said in part["examples"]["no box to learn from"][0]


def unusable(entry: dict) -> dict:
    """A relation of words that are not in the caption."""
    return entry | {"relation": {"group": "zebra", "synonym": ["striped horse"]}}


@pytest.mark.parametrize("change", [without("relation"), unusable], ids=["none", "no use"])
def test_selfeq_on_a_list_without_paraphrases_is_an_error_in_run_and_check(
    change, embedded, tmp_path
):
    path = rewritten(embedded / "vg" / "relation.json", tmp_path / "own.json", change)
    own = [f"data.train.relation=[{path}]", "stages=[{objective: selfeq, epochs: 1}]"]
    expected = "phrases has a paraphrase, without which selfeq learns nothing"
    argv = script_runs.arguments(SELFEQ, tmp_path / "run", overrides=own)
    assert expected in error_of(lambda: Pretrain_vg.main(argv))
    code, (part,) = checked(SELFEQ, path, *own)
    assert code == 1 and expected in part["examples"]["stops the run"][0]


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize(
    "config, override, message",
    [
        ("tiny/reftr/refcoco+", "model.weights.mask=2", "no such loss without masks: true"),
        ("tiny/reftr/refcoco+", "model.weights.cem=1", "no such loss without masks: true"),
        ("tiny/alvg/refcoco+", "model.weights.dice=2", "no such loss without masks: true"),
        ("tiny/alvg/refcoco+", "model.image_enhancement=false", "without image_enhancement: true"),
        ("tiny/simrec/refcoco+", "model.weights={iou: 0, obj: 0}", "all weights of the model are"),
        ("tiny/refclip/refcoco+", "model.weights={contrastive: 0}", "all weights of the model are"),
        ("tiny/refclip/refcoco+", "model.weights={box: 1}", "unknown loss 'box'; legal: "),
    ],
)  # fmt: skip
def test_a_weight_without_a_loss_and_a_total_of_nothing_are_errors(
    config, override, message, tmp_path
):
    file = str(CONFIGS / f"{config}.yaml")
    argv = ["--config", file, "--output_dir", str(tmp_path), "--device", "cpu", "--set", override]
    assert message in error_of(lambda: train.main(argv))
    assert message in error_of(lambda: check_data.main([file, "--set", override]))


@pytest.mark.usefixtures("embedded")
def test_an_objective_whose_losses_all_weigh_nothing_is_an_error(tmp_path):
    override = "model.objectives.amc.weights={mean: 0, max: 0}"
    expected = "amc are 0 (loss_amc_mean, loss_amc_max): nothing is learnt"
    argv = script_runs.arguments(AMC, tmp_path, overrides=[override])
    assert expected in error_of(lambda: Pretrain_vg.main(argv))
    file = str(CONFIGS / f"{AMC}.yaml")
    assert expected in error_of(lambda: check_data.main([file, "--set", override]))


def test_weights_are_those_that_the_configuration_has_losses_for():
    boxes, masks = (
        load_config(CONFIGS / "reftr" / f"refcoco{kind}.yaml").model.weights
        for kind in ("", "_res")
    )
    assert "mask" not in boxes and {"mask", "dice", "cem"} <= masks.keys()


def test_the_first_step_compares_weights_with_losses():
    require_weighted({"loss_a": 1.0, "loss_b": 0.0}, ["loss_a", "loss_b", "accuracy"])
    with pytest.raises(ValueError, match=r"weights of loss_c, .* only accuracy, loss_a"):
        require_weighted({"loss_a": 1.0, "loss_c": 1.0}, ["loss_a", "accuracy"])
    with pytest.raises(ValueError, match="no weight of loss_b, which would be"):
        require_weighted({"loss_a": 1.0}, ["loss_a", "loss_b"])
    with pytest.raises(ValueError, match="all weights are 0: loss_a"):
        require_weighted({"loss_a": 0.0}, ["loss_a"])


def test_a_phrase_longer_than_the_positions_is_an_error_of_run_and_check(
    embedded, trained, tmp_path
):
    config, (listed,) = "tiny/Grounding_refcoco", embedded.glob("refcoco+/*test.json")
    entries = json.loads(listed.read_text())
    positions = load_config(CONFIGS / f"{config}.yaml", purpose="evaluation").model.text
    words = positions.max_position_embeddings + 5
    entries[0]["text"] = " ".join(["circle"] * words)
    path = tmp_path / "test.json"
    path.write_text(json.dumps(entries))
    own = [f"data.test_file=[{path}]", f"data.max_words={2 * words}"]
    run = lambda: script_runs.evaluate(  # noqa: E731
        grounding_eval_singlegpu, config, trained / "checkpoint_00.pth", tmp_path, overrides=own
    )
    expected = f"{path}[0]: {words + 1} tokens, at most {positions.max_position_embeddings} can be"
    assert expected in error_of(run)
    code, (part,) = checked(config, path, *own)
    assert code == 1 and expected in part["examples"]["stops the run"][0]

"""tools.calibrate with the model that ships: is what a phrase means in the image at all?"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from scipy.special import expit

import predict
from groundwork import Grounder
from groundwork.dataset.synthetic import write_dataset
from groundwork.jobs.evaluation import content_hash
from groundwork.jobs.systems import SHIPPED
from groundwork.tools import calibrate
from tests.helpers.own_checkpoints import KINDS, write_checkpoint
from tests.helpers.script_runs import CONFIGS, error_of

pytestmark = pytest.mark.usefixtures("embedded")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """The embedded data set, 100 scenes that nobody learnt from: 10 of val, 10 of test."""
    folder = tmp_path_factory.mktemp("scenes") / "embedded"
    write_dataset(folder, scenes=100, seed=11)
    return folder


def arguments(
    checkpoint: Path, scenes: Path, *more: str, config: str = "tiny/Grounding_refcoco"
) -> list[str]:
    return [
        "--checkpoint", str(checkpoint), "--config", str(CONFIGS / f"{config}.yaml"), "--device",
        "cpu", *more, "--set", f"roots.embedded={scenes}",
    ]  # fmt: skip


def copied(folder: Path) -> Path:
    """The shipped model without its calibration."""
    shutil.copytree(SHIPPED, folder)
    (folder / "present.json").unlink()
    return folder


@pytest.fixture(scope="module")
def calibrated(scenes, tmp_path_factory) -> Path:
    """A copy of the shipped model, calibrated on val and measured on testA."""
    folder = copied(tmp_path_factory.mktemp("calibrated") / "model")
    calibrate.main(arguments(folder, scenes, "--wrong-images", "--evaluate-on", "testA"))
    return folder


def scene_of(scenes: Path, number: int) -> dict:
    lines = (scenes / "scenes.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["split"] == "test"][number]


def test_the_file_is_found_and_makes_evidence_a_probability_with_a_threshold(calibrated, scenes):
    image = scenes / "images" / "test" / "000001.jpg"
    phrases = ["the red circle", "a blue star", "the square on the left"]
    bare = copied(calibrated.parent / "bare")
    plain = Grounder.load(bare, device="cpu").ground(image, phrases)
    assert [one.present for one in plain] == [None] * 3
    grounder = Grounder.load(calibrated, device="cpu")
    found, line = grounder.ground(image, phrases), grounder.calibration
    for one, other in zip(found, plain, strict=True):
        expected = expit(line.slope * one.evidence + line.intercept)
        assert one.present == pytest.approx(expected)
        assert one.threshold == line.threshold
        assert one.is_there == (one.present >= line.threshold)
        # All else is as it was.
        assert (one.point, one.score, one.evidence) == (other.point, other.score, other.evidence)
        assert np.array_equal(one.heatmap, other.heatmap)
    assert line.rule.startswith("best balanced accuracy")
    assert line.fitted.data == "embedded/refcoco+ val"


def test_the_numbers_are_those_of_asking_about_every_phrase(calibrated, scenes):
    said = json.loads((calibrated / "present.json").read_text())
    (held_out,) = said["held_out"]
    assert held_out["data"] == "embedded/refcoco+ testA"
    assert held_out["with_target"] > 30 and held_out["wrong_images"] > 30
    assert held_out["wrong_images"] == held_out["without_target"]
    assert said["fitted"]["auc"] > 0.85 and held_out["auc"] > 0.85
    assert held_out["interval"][0] <= held_out["accuracy"] <= held_out["interval"][1]
    grounder = Grounder.load(calibrated, device="cpu")
    right = total = 0
    for number in range(10):
        scene = scene_of(scenes, number)
        texts = [e["text"] for e in scene["expressions"] if e["kind"] in ("attribute", "none")]
        truth = [bool(e["targets"]) for e in scene["expressions"]
                 if e["kind"] in ("attribute", "none")]  # fmt: skip
        found = grounder.ground(scenes / "images" / scene["image"], texts)
        right += sum(one.is_there == there for one, there in zip(found, truth, strict=True))
        total += len(texts)
    assert right > 0.9 * total


def test_the_draw_and_the_fit_are_repeated(calibrated, scenes, tmp_path):
    again = copied(tmp_path / "again")
    calibrate.main(arguments(again, scenes, "--wrong-images", "--evaluate-on", "testA"))
    assert (again / "present.json").read_text() == (calibrated / "present.json").read_text()


def test_annotated_no_targets_need_no_other_images(scenes, tmp_path):
    folder = copied(tmp_path / "model")
    found = calibrate.main(arguments(folder, scenes, config="tiny/alvg/grefcoco"))
    assert found.fitted.wrong_images == 0
    assert found.fitted.data == "embedded/grefcoco val"
    assert found.fitted.without_target == 10, "one phrase of nothing in each scene"
    assert found.fitted.auc > 0.9
    assert "phrases of other images" not in str(found)


@pytest.mark.parametrize("kind", KINDS)
def test_every_system_says_what_its_evidence_is_on_the_scale_of_log_odds(kind, embedded, tmp_path):
    grounder = Grounder.load(write_checkpoint(kind, tmp_path / "own.pth"), device="cpu")
    image = sorted((embedded / "images" / "test").glob("*.jpg"))[0]
    found = grounder.ground(image, ["the red circle", "a blue star"])
    if grounder.evidence is None:
        assert kind.startswith("reftr") and all(one.evidence is None for one in found)
    for one in found if grounder.evidence else ():
        probability = expit(one.evidence)
        if grounder.evidence in ("query", "objectness"):
            assert one.score == pytest.approx(probability, rel=1e-5)
        elif grounder.evidence == "similarity":
            assert one.score == one.evidence
        else:
            assert grounder.evidence == "match" and 0 < probability < 1
        assert np.isfinite(one.evidence) and one.present is None


def test_a_split_without_no_targets_is_refused_with_the_remedy(scenes, tmp_path):
    call = arguments(SHIPPED, scenes)
    assert "--wrong-images" in error_of(lambda: calibrate.main(call))
    call = arguments(SHIPPED, scenes, "--split", "test", "--wrong-images")
    assert "evaluates val, testA, testB" in error_of(lambda: calibrate.main(call))
    reftr = write_checkpoint("reftr", tmp_path / "reftr.pth")
    call = arguments(reftr, scenes, "--wrong-images")
    assert "nothing to calibrate" in error_of(lambda: calibrate.main(call))
    assert not (tmp_path / "reftr.present.json").exists()


def test_a_calibration_of_other_weights_or_of_other_evidence_is_refused(calibrated, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(calibrated, other)
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match=r"present.json calibrates other weights .*calibrate"):
        Grounder.load(other, device="cpu")
    with pytest.raises(ValueError, match="calibrates the evidence 'match', .* 'similarity'"):
        Grounder.load(calibrated, device="cpu", overrides=["model.explanation.mode=itc"])
    (other / "present.json").write_text('{"slope": 1}')
    with pytest.raises(ValueError, match=r"present.json: .*missing"):
        Grounder.load(other, device="cpu")
    (other / "present.json").write_text("{")
    with pytest.raises(ValueError, match=r"present\.json is not valid JSON"):
        Grounder.load(other, device="cpu")


def test_a_file_has_its_calibration_beside_it_and_a_saved_folder_takes_it_along(tmp_path):
    file = write_checkpoint("albef", tmp_path / "run" / "own.pth")
    beside = file.with_name("own.present.json")
    kept = json.loads((SHIPPED / "present.json").read_text())
    beside.write_text(json.dumps(kept | {"weights": content_hash(file)}))
    grounder = Grounder.load(file, device="cpu")
    saved = grounder.save_pretrained(tmp_path / "saved")
    again = Grounder.load(saved, device="cpu")
    assert again.calibration.slope == grounder.calibration.slope
    assert again.calibration.weights == content_hash(saved / "model.safetensors")
    assert "## Is it there?" in (saved / "README.md").read_text()
    # Saved again without one, neither file nor card has it.
    beside.unlink()
    (saved / "README.md").unlink()
    Grounder.load(file, device="cpu").save_pretrained(saved)
    assert not (saved / "present.json").exists()
    assert "## Is it there?" not in (saved / "README.md").read_text()


def test_the_card_tells_of_the_newest_calibration_once(calibrated):
    card = (calibrated / "README.md").read_text()
    assert card.count("## Is it there?") == 1 and card.count("## Licence") == 1
    fitted = json.loads((calibrated / "present.json").read_text())["fitted"]
    assert f"{fitted['with_target']:,} phrases with target" in card
    shipped = json.loads((SHIPPED / "present.json").read_text())["fitted"]
    assert f"{shipped['with_target']:,} phrases with target" not in card


def test_the_shipped_model_has_the_numbers_that_the_docs_quote():
    calibration = Grounder.load(SHIPPED, device="cpu").calibration
    docs = (SHIPPED.parents[1] / "docs" / "use.md").read_text()
    for line in str(calibration).splitlines():
        assert line in docs


def test_predict_says_not_there_and_its_exports_leave_it_out(calibrated, scenes, tmp_path, capsys):
    scene = scene_of(scenes, 0)
    grounder = Grounder.load(calibrated, device="cpu")
    image = scenes / "images" / scene["image"]
    texts = [e["text"] for e in scene["expressions"]]
    found = {one.phrase: one for one in grounder.ground(image, texts)}
    absent = min(found.values(), key=lambda one: one.present)
    present = max(found.values(), key=lambda one: one.present)
    assert absent.present < absent.threshold < present.present
    out = tmp_path / "out"
    predict.main(
        [str(image), present.phrase, absent.phrase, "--checkpoint", str(calibrated), "--out",
         str(out), "--device", "cpu", "--write", "coco", "yolo"]
    )  # fmt: skip
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [row["there"] for row in rows] == [True, False]
    for row, one in zip(rows, (present, absent), strict=True):
        assert row["present"] == pytest.approx(one.present, abs=1e-6)
        assert row["threshold"] == one.threshold
    told = capsys.readouterr().out
    assert f": {absent.phrase}: not there, present" in told
    assert f": {present.phrase}: point" in told
    coco = COCO(str(out / "coco" / "model.json"))
    assert [one["name"] for one in coco.dataset["categories"]] == [present.phrase]
    assert len(coco.dataset["annotations"]) == 1
    (labels,) = (out / "yolo" / "model" / "labels").glob("*.txt")
    assert len(labels.read_text().splitlines()) == 1

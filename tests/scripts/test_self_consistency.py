"""The tool that compares a phrase with its paraphrase, and the matching rows beside it."""

import json

import pytest

from groundwork.jobs.matching import matching_rows
from groundwork.report.prediction_files import read_predictions
from groundwork.report.results import predictions_files
from groundwork.tools import self_consistency
from tests.helpers.script_runs import CONFIGS, QUICK, arguments, error_of

CONFIG = "tiny/Grounding_refcoco"
pytestmark = pytest.mark.usefixtures("embedded")


@pytest.fixture
def pairs(embedded, tmp_path):
    """Two splits with the first three pairs of one and the same list."""
    few = json.loads((embedded / "paraphrases_seen.json").read_text())[:3]
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(few))
    return [f"seen={path}", f"heldout={path}"]


def newest(folder):
    return sorted(folder.glob("*.pth"))[-1]


def test_pairs_are_scored_per_split_and_phrases_stand_beside_their_paraphrases(
    trained, pairs, tmp_path
):
    given = ("--checkpoint", newest(trained), "--pairs", *pairs)
    rows = self_consistency.main(arguments(CONFIG, tmp_path / "out", *given))
    found = {(row["split"], row["metric"]): row for row in rows if row["system"] == "ALBEF"}
    for split in ("seen", "heldout"):
        for metric in ("pointing", "paraphrase pointing", "same object", "map correlation"):
            assert found[split, metric]["n"] == 3
            assert found[split, metric]["benchmark"] == "embedded/paraphrases"
    (path,) = predictions_files(tmp_path / "out")
    _, predictions = read_predictions(path)
    expected = json.loads((tmp_path / "pairs.json").read_text())
    said = {(item.phrase, item.paraphrase) for item in predictions}
    assert said == {(pair["phrase"], pair["paraphrase"]) for pair in expected}


def test_a_tokeniser_that_the_model_has_no_words_for_is_refused(trained, pairs, tmp_path):
    given = ("--checkpoint", newest(trained), "--text_encoder", "bert-base-uncased")
    call = arguments(CONFIG, tmp_path / "out", *given, "--pairs", *pairs)
    assert "model.text.vocab_size" in error_of(lambda: self_consistency.main(call))


def test_matching_is_reported_for_every_split_with_its_chance(trained):
    rows = matching_rows(
        str(CONFIGS / f"{CONFIG}.yaml"), newest(trained), [*QUICK, "data.splits=[val]"], "cpu"
    )
    assert [(row["split"], row["metric"]) for row in rows] == [("val", "matching")]
    assert 0 <= rows[0]["value"] <= 100 and rows[0]["note"] == "chance: 50"

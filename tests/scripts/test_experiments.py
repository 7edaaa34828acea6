"""Experiments measure what they name, and say what they measured."""

import json

import pytest

from groundwork.experiments import explanations, phrases_per_image
from groundwork.report.results import read_rows


def test_explanations_are_compared_by_every_score(embedded, tmp_path, capsys):
    rows = explanations.main(
        ["--method", "gradcam", "attention", "perturbation", "--images", "8", "--curves", "5",
         "--data", str(embedded), "--out", str(tmp_path), "--split", "testA", "--device", "cpu"]
    )  # fmt: skip
    assert read_rows(tmp_path / "results.json") == rows
    found = {(row["objective"], row["metric"]): row for row in rows}
    for method in ("gradcam", "attention", "perturbation"):
        assert {metric for name, metric in found if name == method} == set(explanations.SHOWN)
        assert found[method, "deletion"]["n"] == 5 < found[method, "pointing"]["n"]
    for row in rows:
        low, value, high = row["low"], row["value"], row["high"]
        assert 0 <= low <= value + 1e-9 and value <= high + 1e-9 <= 101  # or equal
    energies = {found[method, "map energy"]["value"] for method in ("gradcam", "attention")}
    assert len(energies) == 2
    (line,) = [
        x
        for x in capsys.readouterr().out.splitlines()
        if x.startswith("| quickstart_base | testA | attention")
    ]
    assert f"{found['attention', 'map energy']['value']:.1f} (" in line


@pytest.mark.usefixtures("embedded")
def test_further_phrases_are_measured_against_the_first(tmp_path):
    call = ["--config", "tiny/Grounding_refcoco", "--rounds", "1", "--out", str(tmp_path)]
    ratios = phrases_per_image.main(call)
    written = json.loads((tmp_path / "times.json").read_text())
    assert written["ratios"] == ratios and all(value > 0 for value in ratios.values())
    assert len(written["seconds"]) == 4 and written["processor"]

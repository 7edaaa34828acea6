"""Experiments measure what they name, and say what they measured."""

import json
from pathlib import Path

import pytest

from groundwork.experiments import explanations, phrases_per_image, scale
from groundwork.report.results import read_rows


@pytest.mark.slow
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
    found = phrases_per_image.main(call)
    written = json.loads((tmp_path / "times.json").read_text())
    assert written["processor"] and {name: written[name] for name in found} == found
    for one in found.values():
        assert len(one.pop("seconds")) == 4 and all(ratio > 0 for ratio in one.values())
    counted = [one["50 phrases / one, multiplications"] for one in found.values()]
    assert 1 < counted[0] < counted[1]


def test_the_page_of_scale_holds_what_the_experiment_computes(tmp_path, embedded, capsys):
    page = Path(__file__).parents[2] / "docs" / "scale.md"
    copy = tmp_path / "scale.md"
    copy.write_text(page.read_text())
    scale.main(["--write", str(copy), "--out", str(tmp_path)])
    assert copy.read_text() == page.read_text()
    # Twice the hosts and pairs: as long, less what more GPUs fail more often.
    few, many = (scale.cluster(scale.Given(pairs=n * 1e9), 4 * n) for n in (1, 2))
    assert float(few["training, days"]) == pytest.approx(float(many["training, days"]), rel=0.1)
    one = scale.cluster(scale.Given(train_rate=100.0, gpus=1, pairs=8.64e6), 1)
    assert one["training, days"] == "1.0" and one["labelling, hours"] == "1.0"
    found = scale.main(["--images", str(embedded / "images"), "--train_rate", "500"])
    assert found.train_rate == 500 and 1000 < found.image_bytes < 20_000 and found.decode_rate > 1
    assert "| train rate | 500 |" in capsys.readouterr().out

"""An evaluation in bf16 finds what one in single precision does: the same maps, the same points."""

from pathlib import Path

import numpy as np
import pytest

import test as evaluation
from groundwork.report.prediction_files import predictions_files, read_predictions
from tests.helpers.script_runs import evaluate

TRAINED = Path(__file__).parents[2] / "checkpoints" / "quickstart_base.pth"


def test_maps_and_points_are_those_of_single_precision(embedded, tmp_path):
    found = {}
    for precision in ("fp32", "bf16"):
        chosen = [f"precision={precision}", "batch_size=16", f"roots.embedded={embedded}"]
        out = tmp_path / precision
        evaluate(evaluation, "tiny/Grounding_refcoco", TRAINED, out, overrides=chosen)
        (file,) = predictions_files(out)
        _, found[precision] = read_predictions(file)
    pairs = list(zip(found["fp32"], found["bf16"], strict=True))
    assert len(pairs) > 50 and all(one.id == other.id for one, other in pairs)
    alike = [np.corrcoef(a.heatmap.ravel(), b.heatmap.ravel())[0, 1] for a, b in pairs]
    assert np.mean(alike) > 0.99
    assert any((a.heatmap != b.heatmap).any() for a, b in pairs), "computed in another precision"
    hits = [np.mean([prediction.hit for prediction in half]) for half in zip(*pairs, strict=True)]
    assert 100 * hits[1] == pytest.approx(100 * hits[0], abs=0.2)

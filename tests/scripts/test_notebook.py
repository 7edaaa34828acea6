"""docs/notebook.ipynb runs from above to below, and shows what its text says."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from groundwork.models.common.explain import METHODS

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def shown(source: str, names: dict[str, object]) -> object:
    """Runs a cell as Jupyter does; returns the value of its last line if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names)


@pytest.fixture(scope="module")
def run() -> tuple[dict[str, object], list[object]]:
    """The names that the cells leave, and what they show."""
    names: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(NOTEBOOK.parent)  # where Jupyter starts it
        values = [shown(source, names) for source in CODE]
    return names, [value for value in values if value is not None]


def test_it_is_stored_without_outputs():
    for cell in CELLS:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


def test_images_of_one_and_of_two_models_and_of_all_explanations_are_shown(run):
    names, values = run
    one, explanations, two = values
    assert all(isinstance(image, Image.Image) for image in values)
    assert two.height > one.height, "a row per phrase"
    assert explanations.width > 2 * explanations.height, "a column per method"
    assert [answer.system for answer in names["explanations"]] == list(METHODS)
    maps = [answer.groundings[0].heatmap for answer in names["explanations"]]
    assert all(np.ptp(heat) > 0 for heat in maps)
    assert not any(np.array_equal(maps[0], other) for other in maps[1:])


def test_the_model_that_learnt_from_boxes_points_better(run):
    names, _ = run
    amc, base = names["hits"]
    assert len(names["rows"]) > 100 and amc > base > 10


def test_what_the_image_does_not_show_is_found_less_probable(run):
    names, _ = run
    there = np.mean([one.present for one in names["found"]])
    assert names["not_there"] and there > np.mean([one.present for one in names["not_there"]])

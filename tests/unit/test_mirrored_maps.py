"""The map of a mirrored image is the mirrored map, of the small AMC that ships."""

import pytest
import torch

from groundwork.dataset.synthetic import write_dataset
from groundwork.jobs.forms import FORMS
from groundwork.jobs.recognition import load_system
from groundwork.settings import load_config
from tests.helpers.script_runs import CONFIGS

AMC = CONFIGS.parent / "checkpoints" / "quickstart_amc"
# Words whose meaning a mirrored image changes, by the axis it is mirrored along.
PLACES = {
    -1: {"left", "right", "leftmost", "rightmost"},
    -2: {"top", "bottom", "above", "below", "over", "under", "upper", "lower", "topmost"}
    | {"bottommost", "highest", "lowest"},
}


def centre(maps: torch.Tensor, axis: int) -> torch.Tensor:
    """(T,) centre of mass of (T, h, w) maps along an axis, in cells."""
    profile = maps.clamp(min=0).sum(-1 if axis == -2 else -2)
    return profile @ torch.arange(profile.shape[1]).float() / profile.sum(1)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_dataset(folder, scenes=300, seed=3, trees=False)
    return folder


@pytest.mark.parametrize("axis", [-1, -2], ids=["left and right", "up and down"])
def test_the_map_of_a_mirrored_image_is_the_mirrored_map(axis, scenes):
    root = [f"roots.embedded={scenes}", "data.splits=[val]", "data.workers=0"]
    config = load_config(CONFIGS / "tiny/Grounding_refcoco.yaml", root, purpose="evaluation")
    shipped = load_system(AMC, device=torch.device("cpu"))
    explainer = shipped.parts.evaluated
    evaluation = FORMS["image_text"].evaluation(config, config.evaluated_splits, shipped.tokenizer)
    shifts = []
    for batch in evaluation.loader:
        maps = explainer(batch)["heatmaps"]
        mirrored = explainer(batch | {"image": batch["image"].flip(axis)})["heatmaps"].flip(axis)
        same = torch.tensor([not PLACES[axis] & set(text.split()) for text in batch["phrase"]])
        # What moves every map to one side moves the two to opposite sides.
        shifts.append(((centre(maps, axis) - centre(mirrored, axis)) / 2)[same])
    shift = torch.cat(shifts)
    assert len(shift) > 50
    assert shift.nanmean().abs() < 0.1, shift.nanmean()

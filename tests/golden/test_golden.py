"""Every golden file is repeated: published implementations, weights made from key names.

    pytest tests/test_golden.py --golden-dir DIR -k amc_tiny

runs over the `.npz` files of DIR (default: tests/golden); each describes itself in its `meta`.
"""

import numpy as np
import pytest
import torch

from tests.golden import (
    golden_alvg_checks,
    golden_alvg_parts,
    golden_refclip_checks,
    golden_refclip_data,
    golden_reftr,
    golden_reftr_checks,
    golden_reftr_data,
    golden_simrec,
)
from tests.golden.golden_albef import GoldenALBEF, assert_close, assert_scalar
from tests.golden.golden_alvg import GoldenALVG
from tests.golden.golden_evaluation import check_pointing
from tests.golden.golden_refclip import GoldenRefCLIP
from tests.golden.golden_reftr import GoldenRefTR
from tests.golden.golden_simrec import GoldenSimREC

OBJECTIVES = {"amc": ("itc_itm_mlm", "amc"), "selfeq": ("selfeq",)}


@pytest.fixture(scope="module")
def albef(albef_golden) -> GoldenALBEF:
    return GoldenALBEF(*albef_golden)


@pytest.fixture(scope="module")
def trained(albef):
    return albef.train_once(OBJECTIVES[albef.meta["objective"]])


def test_image_and_text_features_are_the_published_ones(albef):
    model = albef.training_model()
    ids, mask = albef.tensor("text_ids"), albef.tensor("text_mask")
    with torch.no_grad():
        tokens = model.visual_encoder(albef.image)
        states = model.text_encoder.bert.text(ids, mask)
        assert_close("vit_256", tokens[:, ::9], albef.arrays["vit_256"])
        assert_close("text_embeds", states, albef.arrays["text_embeds"])
        assert_close("image_feat", model.embed_image(tokens), albef.arrays["image_feat"])
        assert_close("text_feat", model.embed_text(states), albef.arrays["text_feat"])


def test_every_loss_is_the_published_one(albef, trained):
    _, losses = trained
    named = [name for name in albef.arrays if name.startswith("loss_") and name != "loss_syn"]
    assert "loss_total" in named
    for name in named:
        assert_scalar(name, losses[name], float(albef.arrays[name]))


def test_gradients_have_the_published_norms(albef, trained):
    model, _ = trained
    check_gradients(albef, model, "gradnorm/")


def test_the_explanation_loss_alone_has_the_published_second_order_gradients(albef):
    if any(name.startswith("gradnorm_amc_only/") for name in albef.arrays):
        model, _ = albef.train_once(("amc",))
        check_gradients(albef, model, "gradnorm_amc_only/")
    else:
        assert albef.meta["objective"] != "amc"


def check_gradients(albef, model, prefix):
    parameters = dict(model.named_parameters())
    named = [name for name in albef.arrays if name.startswith(prefix)]
    assert named
    for name in named:
        gradient = parameters[name.removeprefix(prefix)].grad
        golden = float(albef.arrays[name])
        if golden == -1:
            assert gradient is None, f"{name} has a gradient, the published model has none"
        else:
            assert_scalar(name, gradient.norm().item(), golden)


def test_queues_and_momentum_twin_move_as_published(albef, trained):
    model, _ = trained
    assert (
        model.queue_ptr_img.item()
        == model.queue_ptr_txt.item()
        == int(albef.arrays["queue_ptr_img"])
    )
    assert_close("image_queue", model.image_queue[:, :6], albef.arrays["image_queue_after"])
    assert_close("text_queue", model.text_queue[:, :6], albef.arrays["text_queue_after"])
    name = "vision_proj_m.weight"
    assert_close(name, model.vision_proj_m.weight, albef.arrays[f"momentum_after/{name}"])


@pytest.mark.parametrize("side", [384, 256])
@pytest.mark.parametrize("mode", ["itm", "itc"])
def test_evaluation_heat_maps_and_scores_are_the_published_ones(albef, mode, side):
    heatmaps, scores = albef.evaluate(mode, side)
    assert_close("heat maps", heatmaps, albef.arrays[f"gradcam_{mode}_{side}"])
    assert_close("scores", scores, albef.arrays[f"score_{mode}_{side}"])


@pytest.fixture(scope="module")
def reftr(reftr_golden) -> GoldenRefTR:
    return GoldenRefTR(*reftr_golden)


@pytest.mark.parametrize("objective", golden_reftr.OBJECTIVES)
@pytest.mark.parametrize("part", ["forward", "losses", "gradients", "postprocessing"])
def test_reftr_gives_the_published_numbers(reftr, objective, part):
    if not reftr.has(objective):
        pytest.skip(f"the file has no arrays of {objective}")
    checked = getattr(golden_reftr_checks, f"check_{part}")(reftr, objective)
    if not checked:
        pytest.skip(f"the file has no {part} of {objective}")


def test_every_array_of_reftr_has_its_rule(reftr):
    """Those of data and metrics have theirs in tests/golden_reftr_data.py."""
    golden_reftr_checks.check_coverage(reftr)


def test_reftr_is_optimised_as_published(reftr):
    golden_reftr_checks.check_optimisation(reftr)


def test_reftr_treats_odd_inputs_as_documented(reftr):
    golden_reftr_checks.check_oddities(reftr)


@pytest.fixture
def reftr_data(reftr_golden):
    arrays, *_ = reftr_golden
    if "data/vocab" not in arrays:
        pytest.skip("the file has no arrays of the data side")
    return arrays


def test_reftr_data_and_metrics_are_the_published_ones(reftr_data, tmp_path):
    seen = golden_reftr_data.check_data(reftr_data, tmp_path)
    seen |= golden_reftr_data.check_resize(reftr_data)
    seen |= golden_reftr_data.check_intensity(reftr_data)
    seen |= golden_reftr_data.check_box_metrics(reftr_data)
    seen |= golden_reftr_data.check_mask_metrics(reftr_data)
    unseen = {name for name in reftr_data if name.startswith(("data/", "metric_"))} - seen
    assert not unseen, f"no rule for {sorted(unseen)}"


def test_reftr_samples_that_broke_batching_are_split_or_refused(reftr_data, tmp_path):
    golden_reftr_data.check_limits(reftr_data, tmp_path)


@pytest.fixture(scope="module")
def refclip(refclip_golden) -> GoldenRefCLIP:
    return GoldenRefCLIP(*refclip_golden)


@pytest.mark.parametrize("part", golden_refclip_checks.PARTS)
def test_refclip_gives_the_published_numbers(refclip, part):
    golden_refclip_checks.check(refclip, part)


def test_every_array_of_refclip_has_its_rule(refclip):
    golden_refclip_checks.check_coverage(refclip, golden_refclip_data.is_of_data)


def test_refclip_is_frozen_precise_and_rated_as_published(refclip):
    golden_refclip_checks.check_double_precision(refclip)
    golden_refclip_checks.check_frozen_parts(refclip)
    golden_refclip_checks.check_rates(refclip)


def test_refclip_data_and_scores_are_the_published_ones(refclip, tmp_path):
    files = golden_refclip_data.GoldenFiles(refclip, tmp_path)
    golden_refclip_data.check_words(refclip, files)
    golden_refclip_data.check_vectors(refclip, files)
    golden_refclip_data.check_items(refclip, files)
    golden_refclip_data.check_letterbox(refclip, files)
    golden_refclip_data.check_back_to_the_picture(refclip)
    golden_refclip_data.check_end_to_end(refclip, files)
    golden_refclip_data.check_scores(refclip)


@pytest.fixture(scope="module")
def simrec(simrec_golden) -> GoldenSimREC:
    return GoldenSimREC(*simrec_golden)


@pytest.mark.parametrize("part", golden_simrec.PARTS)
def test_simrec_gives_the_published_numbers(simrec, part):
    golden_simrec.check(simrec, part)


def test_every_array_of_simrec_has_its_rule_and_frozen_parts_stay(simrec):
    golden_simrec.check_coverage(simrec)
    golden_simrec.check_frozen_parts(simrec)


@pytest.fixture(scope="module")
def alvg(alvg_golden) -> GoldenALVG:
    return GoldenALVG(*alvg_golden)


@pytest.mark.parametrize("part", golden_alvg_checks.PARTS)
def test_alvg_gives_the_published_numbers(alvg, part):
    golden_alvg_checks.check(alvg, part)


def test_every_array_of_alvg_has_its_rule(alvg):
    """Those of single modules, predictions and metrics have theirs in golden_alvg_parts.py."""
    golden_alvg_checks.check_coverage(alvg)


@pytest.mark.parametrize("prefix", golden_alvg_parts.PARTS)
def test_alvg_modules_predictions_and_metrics_are_the_published_ones(alvg, prefix):
    if not any(name.startswith(f"{prefix}/") for name in alvg.arrays):
        pytest.skip(f"the file has no arrays of {prefix}")
    golden_alvg_parts.PARTS[prefix](alvg)


def test_pointing_and_proposals_are_decided_as_published(evaluation_golden):
    check_pointing(evaluation_golden)


def test_the_golden_folder_is_not_empty(golden_files):
    assert golden_files, "no .npz file in the golden folder: see --golden-dir"
    assert all(isinstance(np.load(file)["meta"].item(), str) for file in golden_files)

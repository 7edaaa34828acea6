"""Exported networks repeat the golden files: published implementations, weights made from names."""

import pytest
import torch

from groundwork.models.albef.explainer import Explainer
from groundwork.models.simrec.postprocess import objectness
from tests.golden.golden_albef import GoldenALBEF, assert_close
from tests.golden.golden_alvg import GoldenALVG
from tests.golden.golden_refclip import GoldenRefCLIP
from tests.golden.golden_reftr import GoldenRefTR
from tests.golden.golden_simrec import GoldenSimREC
from tests.helpers.onnx_graphs import onnx_answers


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_heat_maps_and_scores_of_albef_are_the_published_ones(albef_golden, tmp_path):
    golden = GoldenALBEF(*albef_golden)
    if golden.meta["objective"] != "amc":
        pytest.skip("at evaluation the network is that of AMC, whose file is repeated")
    batch = {
        "image": golden.image[:2],
        "text_ids": golden.tensor("text_ids")[:2],
        "text_mask": golden.tensor("text_mask")[:2],
    }
    found = onnx_answers(Explainer(golden.evaluation_model(256), layer=8), batch, tmp_path)
    assert_close("heat maps", found["heatmaps"], golden.arrays["gradcam_itm_256"])
    assert_close("scores", found["score"], golden.arrays["score_itm_256"][:, 1])
    assert_close("images", found["image_features"], golden.arrays["image_feat"][:2])
    assert_close("texts", found["text_features"], golden.arrays["text_feat"][:2])


@pytest.mark.slow
def test_boxes_and_masks_of_reftr_are_the_published_ones(reftr_golden, tmp_path):
    golden = GoldenRefTR(*reftr_golden)
    if golden.base:
        pytest.skip("the file of this size holds a part of the masks")
    found = onnx_answers(golden.model("res"), golden.batch("res"), tmp_path, free=True)
    assert_close("boxes", found["pred_boxes"][:, :, None], golden.arrays["res/pred_boxes"])
    # Beside the first image there is no padding, whose codes are sines of very large numbers: each
    # library makes others of them, and the convolutions of the masks see them.
    assert_close("masks", found["pred_masks"][:1, None], golden.arrays["res/pred_masks"][:1])
    assert not golden.batch("res")["image_mask"][0].any()


@pytest.mark.slow
def test_similarities_of_refclip_are_the_published_ones(refclip_golden, tmp_path):
    golden = GoldenRefCLIP(*refclip_golden)
    found = onnx_answers(golden.model(), golden.batch, tmp_path)
    assert_close("similarity", found["similarity"][:, None], golden.arrays["infer/similarity"])
    chosen = found["similarity"].argmax(dim=1)
    boxes = found["cell_boxes"][torch.arange(len(chosen)), chosen]
    assert_close("boxes", boxes, golden.arrays["infer/candidate_boxes_cxcywh"])


@pytest.mark.slow
def test_objectness_of_simrec_is_the_published_one(simrec_golden, tmp_path):
    golden = GoldenSimREC(*simrec_golden)
    found = onnx_answers(golden.model(), golden.batch(), tmp_path)
    assert_close("objectness", objectness(found), golden.arrays["infer/objectness"])


@pytest.mark.slow
def test_boxes_masks_and_attention_of_alvg_are_the_published_ones(alvg_golden, tmp_path):
    golden = GoldenALVG(*alvg_golden)
    found = onnx_answers(golden.model("rec", "released"), golden.batch("rec_mask"), tmp_path)
    for name, values in {
        "logits": found["pred_logits"][None],
        "boxes": found["pred_boxes"][None],
        "attn": found["attention"][-1:],
        "score": found["score"],
        "mask_prob": found["pred_masks"].sigmoid(),
    }.items():
        expected = golden.arrays[f"rec/{name}_released"]
        assert_close(name, values, expected[-1:] if len(values) == 1 else expected)

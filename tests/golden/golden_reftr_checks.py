"""What every array of a RefTR golden file is compared with; an array without a rule is an error."""

import numpy as np
import pytest
import torch

from groundwork import geometry
from groundwork.models.reftr.config import ReftrModelConfig
from groundwork.models.reftr.criterion import RefTRCriterion
from groundwork.models.reftr.postprocess import inside, logits_on_images, outputs_to_groundings
from groundwork.optim import named_groups
from groundwork.scheduler import cosine_factor, multistep_factor
from tests.golden.golden_reftr import (
    OBJECTIVES,
    GoldenPass,
    GoldenRefTR,
    assert_array,
    assert_norm,
    sampled,
    statistics,
    strides,
)
from tests.golden.golden_reftr_data import assert_enlarged

# Numbers of the released evaluation loop that belong to no model: the made-up ids of the images.
NOT_OURS = ("metrics_result_ids",)


def about(value: float | np.ndarray):
    return pytest.approx(float(value), rel=1e-3)


def check_forward(golden: GoldenRefTR, objective: str) -> int:
    """Every array of the forward pass, shapes and statistics included. Returns how many."""
    run, steps, checked = golden.run(objective), strides(objective, golden.base), 0
    maps = run.gave("img_backbone.0")
    others = {f"feat{i}_shape": list(level.features.shape) for i, level in enumerate(maps)}
    others |= {
        f"feat{i}_stats_mean_std_absmean_absmax": statistics(level.features)
        for i, level in enumerate(maps)
    }
    batch, tokens, width = run.arrays["memory"].shape
    others["memory_shape"] = [tokens, batch, width]
    if objective == "res":
        others["feat0_mask_sum"] = maps[0].padding.sum(dim=(1, 2)).tolist()
        others["pred_masks_shape"] = list(run.arrays["pred_masks"].shape)
        others["mask_feat_stats_mean_std_absmean_absmax"] = statistics(run.gave("mask_head"))
    for name, value in of_objective(golden, objective).items():
        if name in run.arrays:
            ours = run.arrays[name]
            assert_array(f"{objective}/{name}", sampled(ours, steps.get(name, (1,))), value)
            checked += 1
        elif name in others:
            assert_array(f"{objective}/{name}", np.array(others[name]), value)
            checked += 1
    return checked


def check_losses(golden: GoldenRefTR, objective: str) -> int:
    """Every loss, the total and the names that enter it."""
    run, checked = golden.run(objective), 0
    for name, value in of_objective(golden, objective).items():
        if name == "loss_terms_in_total":
            assert sorted(run.weights) == sorted(value.tolist())
        elif name.startswith("loss/") or name in ("loss_total", "cem_loss"):
            ours = {"loss_total": run.total, "cem_loss": run.losses.get("loss_cem")}
            loss = ours.get(name, run.losses.get(name.removeprefix("loss/")))
            assert loss.item() == about(value), f"{objective}/{name}"
        else:
            continue
        checked += 1
    return checked


def check_gradients(golden: GoldenRefTR, objective: str) -> int:
    """Gradient norms (-1: none), a sample of one gradient, and counts of parameters."""
    run, checked = golden.run(objective), 0
    parameters = dict(run.model.named_parameters())
    gradients = [p.grad for p in parameters.values() if p.grad is not None]
    total = torch.stack([gradient.norm() for gradient in gradients]).norm().item()
    trainable = [p for p in parameters.values() if p.requires_grad]
    counts = {
        "n_params": len(parameters),
        "n_params_with_grad": len(gradients),
        "n_param_elements_requires_grad": sum(p.numel() for p in trainable),
    }
    step = 8 if golden.base else 4
    for name, value in of_objective(golden, objective).items():
        kind, _, parameter = name.partition("/")
        if kind == "gradnorm":
            _check_gradient(name, parameters[parameter].grad, float(value), total)
        elif kind == "grad_sample":
            assert_array(name, sampled(parameters[parameter].grad, (step, step)), value)
        elif name == "gradnorm_total":
            assert_norm(name, total, float(value), total)
        elif name in counts:
            assert counts[name] == int(value), f"{objective}/{name}"
        elif name == "no_grad_params":
            without = [k for k, p in parameters.items() if p.requires_grad and p.grad is None]
            assert (without or ["<none>"]) == value.tolist()
        else:
            continue
        checked += 1
    return checked


def _check_gradient(name: str, gradient: torch.Tensor | None, golden: float, total: float) -> None:
    if golden == -1:
        assert gradient is None, f"{name} has a gradient, the published model has none"
    else:
        assert gradient is not None, f"{name} has no gradient"
        assert_norm(name, gradient.norm().item(), golden, total)


def check_postprocessing(golden: GoldenRefTR, objective: str) -> int:
    """Boxes and masks in pixels, and the metrics that the released evaluation gives for them."""
    run = golden.run(objective)
    groundings = outputs_to_groundings(run.outputs, run.batch)
    counts = run.outputs["phrase_mask"].sum(dim=1).tolist()
    ends = np.cumsum([0, *counts])
    masked = "pred_masks" in run.outputs
    logits = logits_on_images(run.outputs, run.batch) if masked else []
    masks = [inside(one) for one in logits]
    checked = 0
    for name, value in of_objective(golden, objective).items():
        if name.startswith("post_boxes_xyxy_"):
            scale, row = name.removeprefix("post_boxes_xyxy_").split("_")
            mine = groundings[ends[int(row)] : ends[int(row) + 1]]
            boxes = np.concatenate([g.boxes for g in mine])
            height, width = run.batch["size"][int(row)]
            boxes = boxes / [width, height, width, height] if scale == "norm" else boxes
            assert_array(f"{objective}/{name}", boxes, value)
        elif name.startswith("post_masks_"):
            row = int(name.rsplit("_", 1)[1])
            drawn = geometry.resize_mask(masks[row], tuple(run.batch["size"][row]))
            _check_mask(name, masks[row], drawn, value)
            assert_enlarged(groundings[ends[row]].mask, masks[row])
        elif name.startswith("metrics/"):
            _check_metric(run, name.removeprefix("metrics/"), groundings, masks, float(value))
        elif name not in NOT_OURS and not name.startswith("upsampled_logit"):
            continue
        checked += 1
    return checked


def _check_mask(name: str, resized: np.ndarray, original: np.ndarray, value: np.ndarray) -> None:
    """A share of 1e-3 of the pixels may lie on the other side of the threshold."""
    ours = original if "origin" in name else resized
    if "_shape_" in name:
        assert list(ours.shape) == value.tolist()[-2:]
    elif "_area_" in name:
        allowed = [1e-3 * resized.size, 1e-3 * original.size]
        assert (np.abs(np.array([resized.sum(), original.sum()]) - value) <= allowed).all()
    else:
        expected = np.unpackbits(value, count=ours.size).reshape(ours.shape).astype(bool)
        assert (ours != expected).mean() <= 1e-3, name


def _check_metric(run: GoldenPass, name: str, groundings, masks, value: float) -> None:
    truth = torch.cat(list(run.batch["target_boxes"])).double().numpy()
    counts = [len(boxes) for boxes in run.batch["target_boxes"]]
    sizes = np.repeat(np.array(run.batch["size"]), counts, axis=0)
    overlaps = [
        geometry.iou(g.boxes, geometry.cxcywh01_to_xyxy(box, tuple(size)))[0, 0]
        for g, box, size in zip(groundings, truth, sizes, strict=True)
    ]
    ours = {
        "loss": run.total.item(),
        "accuracy_iou0.5": float(np.mean(np.array(overlaps) > 0.5)),
        "miou": float(np.mean(overlaps)),
    } | {key: loss.item() for key, loss in run.losses.items()}
    if masks:
        cropped = [
            target[:h, :w].bool().numpy()
            for target, (h, w) in zip(run.batch["target_mask"], run.batch["resized"], strict=True)
        ]
        ious = [((m & t).sum() / (m | t).sum()).item() for m, t in zip(masks, cropped, strict=True)]
        ours["seg_miou"] = float(np.mean(ious))
    assert ours[name] == about(value), name


def check_optimisation(golden: GoldenRefTR) -> int:
    """Parameter groups and factors of the learning rate."""
    arrays, checked = golden.arrays, 0
    for objective in ("rec", "res"):
        name = f"optim/{objective}_group_lr_tensors_elements"
        if name in arrays:
            groups = named_groups(golden.model(objective), REFTR_RATES, rest=1e-4)
            facts = [
                [g["lr"], len(g["params"]), sum(p.numel() for p in g["params"])] for g in groups
            ]
            assert np.allclose(facts, arrays[name]), name
            checked += 1
    if "optim/steps" in arrays:
        steps = arrays["optim/steps"].tolist()
        cosine = [cosine_factor(step, total=100, warmup=10) for step in steps]
        multistep = [multistep_factor(step, milestones=(30, 60, 80), warmup=10) for step in steps]
        assert np.allclose(cosine, arrays["optim/cosine_T100_warm10"])
        assert np.allclose(multistep, arrays["optim/multistep_30_60_80_warm10"])
        checked += 3
    return checked


# Odd inputs of the data side and of the metrics, for tests/golden_reftr_data.py.
OF_DATA = (
    "odd/mask_iou_of_two_empty_masks",
    "odd/flickr_17_phrases_phrase_shape",
    "odd/flickr_long_sentence_shape",
)
# Substrings of parameter names and their learning rates, as the release groups them.
REFTR_RATES = {
    ("img_backbone.0",): 1e-5,
    ("lang_backbone",): 1e-5,
    ("bbox_attention", "mask_head"): 1e-4,
}


@torch.no_grad()
def check_oddities(golden: GoldenRefTR) -> int:
    """What the release does with odd inputs, and where ours is right instead."""
    checked = 0
    for name, value in golden.arrays.items():
        if name == "odd/second_image_alone_pred_boxes":
            batch = alone(golden.batch("rec"), 1)
            assert_array(name, golden.model("rec")(batch)["pred_boxes"][:, :, None], value)
        elif name == "odd/empty_sentence_pred_boxes":
            assert np.isnan(value).all()
            batch = golden.batch("rec")
            batch["text_ids"], batch["text_mask"] = empty_like(batch["text_ids"])
            assert golden.model("rec")(batch)["pred_boxes"].isfinite().all()
        elif name == "odd/multi_loss_bbox_if_labels_per_phrase":
            run = golden.run("multi")
            losses = RefTRCriterion(run.weights, box_loss_per="phrase")(run.outputs, run.batch)
            assert losses["loss_bbox"].item() == about(value)
        elif name == "odd/json":
            _check_refused()
        elif not name.startswith("odd/res_pad_position_perturbed"):
            continue
        checked += 1
    return checked


def alone(batch: dict, row: int) -> dict:
    """One image of a single-phrase batch without the padding of the others."""
    height, width = batch["resized"][row]
    one = {key: value[row : row + 1] for key, value in batch.items()}
    return one | {
        "image": one["image"][..., :height, :width],
        "image_mask": one["image_mask"][..., :height, :width],
        "target_mask": one["target_mask"][..., :height, :width],
    }


def empty_like(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask of sentences of [CLS] and [SEP] only."""
    empty = torch.zeros_like(ids)
    empty[:, :2] = torch.tensor([2, 3])
    return empty, (empty > 0).long()


def _check_refused() -> None:
    """More queries or levels crash in the release; here the configuration says so."""
    for option in ({"queries_per_phrase": 2}, {"feature_levels": 4}):
        try:
            ReftrModelConfig(**option)
        except ValueError as error:
            assert next(iter(option)) in str(error)
        else:
            raise AssertionError(f"{option} was accepted")


def check_coverage(golden: GoldenRefTR) -> None:
    """Every array of an objective is looked at by exactly one of the checks above."""
    checks = (check_forward, check_losses, check_gradients, check_postprocessing)
    for objective in OBJECTIVES:
        if golden.has(objective):
            checked = sum(check(golden, objective) for check in checks)
            assert checked == len(of_objective(golden, objective)), objective
    odd = [k for k in golden.arrays if k.startswith("odd/") and k not in OF_DATA]
    assert check_oddities(golden) == len(odd)
    assert check_optimisation(golden) == sum(k.startswith("optim/") for k in golden.arrays)


def of_objective(golden: GoldenRefTR, objective: str) -> dict[str, np.ndarray]:
    """The arrays of one objective under their names without prefix."""
    prefix = f"{objective}/"
    return {k.removeprefix(prefix): v for k, v in golden.arrays.items() if k.startswith(prefix)}

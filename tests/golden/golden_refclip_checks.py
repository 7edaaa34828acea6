"""What every network array of a RefCLIP golden file is compared with; one without a rule is an
error. Those of the data side are in `golden_refclip_data`."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from groundwork.engine.average import WeightAverage
from groundwork.models.common.letterbox import margins
from groundwork.models.refclip.criterion import anchor_logits
from groundwork.models.refclip.postprocess import choose
from groundwork.optim import create_optimizer
from groundwork.scheduler import climb_and_fall
from groundwork.settings.optimisation import OptimizerConfig
from tests.golden.golden_refclip import GoldenRefCLIP, GoldenRun

STRIDES = ("s32", "s16", "s8")
UNUSED = ("multi_scale_manner.mid_proj.", "multi_scale_manner.bot_proj.")
CLIP, RATES = 0.15, {"lr": 1e-4, "weight_decay": 0.0, "betas": (0.9, 0.98), "eps": 1e-9}


def check(golden: GoldenRefCLIP, part: str) -> None:
    """Every array of a part: `visual_eval`, `infer`, `train_original`, ..."""
    ours = PARTS[part](golden)
    names = names_of(golden, part)
    unknown = [name for name in names if name not in ours]
    assert names and not unknown, f"no rule for {unknown}"
    for name in names:
        _compare(f"{part}/{name}", ours[name], golden.arrays[f"{part}/{name}"], golden.base)


def names_of(golden: GoldenRefCLIP, part: str) -> list[str]:
    return [name.removeprefix(f"{part}/") for name in golden.arrays if name.startswith(f"{part}/")]


def check_coverage(golden: GoldenRefCLIP, data_side: Callable[[str], bool]) -> None:
    known = (*(f"{part}/" for part in PARTS), "float64/")
    single = {"frozen_prefixes", "n_params_frozen_trainable", "n_tensors_frozen_trainable",
              "image_seed", "image_corner", "ids", "token_size", "meta"}  # fmt: skip
    left = [
        name
        for name in golden.arrays
        if not name.startswith(known) and name not in single and not data_side(name)
    ]
    assert not left, f"no rule for {left}"


# --- comparing ------------------------------------------------------------------------------------


def _compare(name: str, ours, value: np.ndarray, base: bool) -> None:
    if ours is None:
        return  # compared by another rule, which the part's function applies itself
    ours = ours.detach().numpy() if isinstance(ours, torch.Tensor) else np.asarray(ours)
    if value.dtype.kind in "biU":
        assert ours.shape == value.shape and (ours == value).all(), name
        return
    relative, absolute = _tolerance(name, base)
    if "box" not in name:  # the general rule: relative to the largest value of the array
        absolute = max(absolute, relative * np.abs(value).max(initial=0))
    assert ours.shape == value.shape, f"{name}: shape {ours.shape}, golden {value.shape}"
    np.testing.assert_allclose(ours, value, rtol=relative, atol=absolute, err_msg=name)


def _tolerance(name: str, base: bool) -> tuple[float, float]:
    batch = name.startswith(("train_original", "calib"))
    if "box" in name:
        return (1e-3, 0.1) if batch else (1e-4, 0.05 if base else 0.01)
    if "gradnorm" in name:
        return (1e-2 if batch else 2e-3), 1e-7
    if "after_step/" in name:
        return 0.0, 2e-6
    # A difference of two similarities has their absolute error.
    if "margin" in name:
        return 1e-3, (5e-3 if batch else 5e-4)
    return (1e-3, 1e-3) if batch else (1e-4, 1e-5)


def _thin(maps: torch.Tensor, golden: GoldenRefCLIP, tiny: tuple = (1, 1, 1)) -> torch.Tensor:
    """Maps as the file samples them: every 32nd channel and 4th cell each way, or by `tiny`."""
    channel, row, column = (32, 4, 4) if golden.base else tiny
    return maps[:, ::channel, ::row, ::column]


# --- parts ----------------------------------------------------------------------------------------


def _selection(run: GoldenRun, wanted: torch.Tensor) -> dict:
    boxes, count = run.detection.boxes, run.model.cells
    mean = boxes[..., 4].mean(dim=-1)
    order = mean.sort(dim=1, descending=True, stable=True)
    best = order.indices[:, :count]
    # Cells that tie but for rounding may come in either order.
    tied = (mean.gather(1, best) - mean.gather(1, wanted)).abs() < 1e-5
    return {
        "mean_objectness_s32": mean,
        "selected_topk_order": torch.where(tied, wanted, best),
        "selected_grid_order": run.outputs["cell_index"],
        "select_margin": order.values[:, count - 1] - order.values[:, count],
    }


def visual_eval(golden: GoldenRefCLIP) -> dict:
    run, ours = golden.run("infer"), {}
    boxes = run.head_boxes()
    maps = dict(zip(STRIDES, (run.detection.s32, run.detection.s16, run.detection.s8), strict=True))
    cells = (3, 29, 113) if golden.base else (1, 1, 4)
    for stride, every in zip(STRIDES, cells, strict=True):
        tiny = (4, 1, 1) if stride == "s8" else (1, 1, 1)
        ours[f"feat_{stride}"] = _thin(maps[stride], golden, tiny)
        ours[f"feat_{stride}_absmean"] = maps[stride].abs().mean()
        classes = 8 if golden.base else None
        ours[f"boxes_{stride}"] = boxes[stride][:, ::every, :, :classes]
    by_box = torch.cat([boxes[stride].transpose(1, 2).flatten(1, 2) for stride in STRIDES], dim=1)
    rows = [0, 1, boxes["s32"].shape[1], -1]
    ours |= {
        "boxes_all_shape": np.array(by_box.shape),
        "boxes_all_first": by_box[:, rows, :7],
    }
    return ours | _selection(run, _order(golden, "visual_eval"))


def _order(golden: GoldenRefCLIP, part: str) -> torch.Tensor:
    return golden.tensor(f"{part}/selected_topk_order")


def fusion_eval(golden: GoldenRefCLIP) -> dict:
    run = golden.run("infer")
    fused = run.fused[:, ::16, ::2, ::2] if golden.base else run.fused
    return {"s32": fused} | _unused_fusions(run, "")


def _unused_fusions(run: GoldenRun, prefix: str) -> dict:
    middle, fine = run.unused_fusions()
    return {
        f"{prefix}s16_absmean": middle.abs().mean(),
        f"{prefix}s8_absmean": fine.abs().mean(),
    }


def lang(golden: GoldenRefCLIP) -> dict:
    every, encoder = (8 if golden.base else 1), golden.run("infer").model.lang_encoder
    with torch.no_grad():
        sentence = encoder(golden.tensor("ids"))
        nothing = encoder(torch.zeros_like(golden.tensor("ids")[:1]))
    return {
        "flat_lang_feat": sentence.vector,
        "lang_feat": sentence.words[..., ::every],
        "gru_out": sentence.gru[..., ::every],
        "mask": sentence.padding[:, None, None],
        "flat_all_padding": nothing.vector,
    }


def _choice(run: GoldenRun) -> dict:
    cell, which = choose(run.outputs)
    rows = torch.arange(len(cell))
    boxes = run.outputs["cell_boxes"][rows, cell]
    box = boxes[rows, which]
    corners = [box[:, :2] - box[:, 2:4] / 2, box[:, :2] + box[:, 2:4] / 2, box[:, 4:]]
    return {
        "similarity": run.outputs["similarity"][:, None],
        "similarity_margin": margins(run.outputs["similarity"]),
        "selected_slot": cell,
        "selected_grid": run.outputs["cell_index"][rows, cell],
        "candidate_boxes_cxcywh": boxes,
        "which_of_4": which,
        "box_xyxy_obj": torch.cat(corners, dim=1)[:, None],
    }


def infer(golden: GoldenRefCLIP) -> dict:
    run, every = golden.run("infer"), 4 if golden.base else 1
    text = run.outputs["text_features"][:, None]
    return {
        "anchor_embed": run.outputs["cell_features"][..., ::every],
        "text_embed": text if text.shape == golden.arrays["infer/text_embed"].shape
        else text[..., ::every],
    } | _choice(run)  # fmt: skip


def calib(golden: GoldenRefCLIP) -> dict:
    run, boxes = golden.run("calib"), golden.run("calib").head_boxes()
    seen, wide = run.detection, 32 if golden.base else 4
    ours = {
        "feat_s32": _thin(seen.s32, golden),
        "feat_s16": seen.s16[:, ::wide, ::2, ::2],
        "feat_s8": seen.s8[:, ::wide, ::4, ::4],
        "fusion_s32": run.fused[:, ::32, ::2, ::2] if golden.base else run.fused,
    }
    cells = (3, 29, 113) if golden.base else (1, 5, 23)
    for stride, every in zip(STRIDES, cells, strict=True):
        ours[f"boxes_{stride}"] = boxes[stride][:, ::every, :, :8]
    ours |= _unused_fusions(run, "fusion_") | _selection(run, _order(golden, "calib"))
    return ours | _choice(run)


def train_evalbn(golden: GoldenRefCLIP) -> dict:
    return _training(golden, "train_evalbn")


def train_original(golden: GoldenRefCLIP) -> dict:
    run, seen = golden.run("train_original"), golden.run("train_original").detection
    buffers = dict(run.model.named_buffers())
    ours = {f"buffer_after/{name}": value for name, value in buffers.items()}
    ours |= {
        f"feat_{stride}_absmean": maps.abs().mean()
        for stride, maps in zip(STRIDES, (seen.s32, seen.s16, seen.s8), strict=True)
    }
    for stride, maps in zip(STRIDES, (seen.s32, seen.s16, seen.s8), strict=True):
        # The golden text does not say how these are thinned; their shapes do.
        shape = golden.arrays.get(f"train_original/feat_{stride}", maps).shape
        choices = [maps[:, ::c, ::s, ::s] for c, s in ((1, 1), (4, 1), (32, 4), (32, 2))]
        ours[f"feat_{stride}"] = next((one for one in choices if one.shape == shape), maps)
    ours["visual_encoder_training_flag"] = np.array(run.model.visual_encoder.training)
    return ours | _training(golden, "train_original")


def _training(golden: GoldenRefCLIP, kind: str) -> dict:
    run = golden.run(kind)
    similarity = torch.einsum(
        "bd,akd->bak", run.outputs["text_features"], run.outputs["cell_features"]
    )
    own = torch.arange(len(similarity))
    best = similarity.topk(3, dim=-1).values
    ours: dict = {
        "loss": run.loss.double(),
        "similarity_baqv": similarity[:, :, None],
        "logits": anchor_logits(similarity, own),
        "targets": own,
        "top3_margin": (best[..., :-1] - best[..., 1:]).min().double(),
    }
    ours |= _selection(run, _order(golden, kind))
    return ours | _gradients(golden, kind) | _step(golden, kind)


def _gradients(golden: GoldenRefCLIP, kind: str) -> dict:
    run, ours = golden.run(kind), {}
    parameters = dict(run.model.named_parameters())
    for name in names_of(golden, kind):
        if name.startswith("gradnorm/"):
            gradient = parameters[name.removeprefix("gradnorm/")].grad
            norm = -1.0 if gradient is None else gradient.double().norm().item()
            # The gradient of this bias is zero but for rounding.
            zero = name == "gradnorm/linear_vs.bias"
            assert not zero or abs(norm) < 1e-4
            ours[name] = None if zero else np.float64(norm)
    ours["n_trainable_without_grad"] = np.array([
        name for name, p in parameters.items()
        if p.grad is None and (p.requires_grad or name.startswith(UNUSED))
    ])  # fmt: skip
    return ours


def _step(golden: GoldenRefCLIP, kind: str) -> dict:
    """One optimiser step from there, and one of the running mean. Changes the run's model."""
    run = golden.run(kind)
    if not hasattr(run, "stepped"):
        model = run.model
        # The file's mean began after the forward, which moved the buffers.
        average = WeightAverage(model, 0.9997)
        optimizer = create_optimizer(OptimizerConfig(**RATES), model)
        total = nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        gradient = model.linear_ts.bias.grad.clone()
        optimizer.step()
        average.update(model)
        run.stepped = (total, gradient, model.linear_ts.bias.detach().clone(), average)
    total, gradient, bias, average = run.stepped
    counter = "visual_encoder.module_list.0.batch_norm.num_batches_tracked"
    ours = {
        "total_gradnorm_before_clip": total.double(),
        "buffer_after_ema/num_batches_tracked": average.mean[counter],
    }
    # Adam's first step is the sign of the gradient: where that is rounding, so is the step.
    clear = (gradient.abs() > 1e-3 * gradient.abs().max()).numpy()
    for name, value in {"linear_ts.bias": bias, "ema_linear_ts.bias": None}.items():
        value = average.mean["linear_ts.bias"] if value is None else value
        wanted = golden.arrays[f"{kind}/after_step/{name}"]
        np.testing.assert_allclose(value.numpy()[clear], wanted[clear], rtol=0, atol=2e-6)
        ours[f"after_step/{name}"] = None
    return ours


PARTS: dict[str, Callable[[GoldenRefCLIP], dict]] = {
    "visual_eval": visual_eval,
    "fusion_eval": fusion_eval,
    "lang": lang,
    "infer": infer,
    "calib": calib,
    "train_evalbn": train_evalbn,
    "train_original": train_original,
}


def check_double_precision(golden: GoldenRefCLIP) -> None:
    """Our single precision against the published network's double precision."""
    box = _choice(golden.run("infer"))["box_xyxy_obj"].numpy()
    wanted = golden.arrays["float64/box_xyxy_obj"]
    np.testing.assert_allclose(box, wanted, rtol=1e-4, atol=0.05)
    for kind, name in (("train_evalbn", "loss_evalbn"), ("train_original", "loss_original")):
        loss = golden.run(kind).loss.item()
        assert loss == pytest.approx(float(golden.arrays[f"float64/{name}"]), rel=1e-3)


def check_frozen_parts(golden: GoldenRefCLIP) -> None:
    """What the published training leaves alone; the projections that it never reaches are frozen
    here and count as trained there."""
    parameters = dict(golden.model().named_parameters())
    frozen = {
        name: p.numel()
        for name, p in parameters.items()
        if not (p.requires_grad or name.startswith(UNUSED))
    }
    prefixes = tuple(golden.arrays["frozen_prefixes"].tolist())
    assert all(name.startswith(prefixes) == (name in frozen) for name in parameters)
    every = sum(p.numel() for p in parameters.values())
    sizes, counts = sum(frozen.values()), len(frozen)
    wanted = golden.arrays["n_params_frozen_trainable"].tolist()
    assert [sizes, every - sizes] == wanted
    wanted = golden.arrays["n_tensors_frozen_trainable"].tolist()
    assert [counts, len(parameters) - counts] == wanted


def check_rates(golden: GoldenRefCLIP) -> None:
    """The learning rate of every step of 25 epochs of 10 steps."""
    wanted = golden.arrays["lr_per_step_10_iters_25_epochs"]
    rates = (1e-7, 1e-4, 1e-6)
    ours = [
        climb_and_fall(n, total=len(wanted), warmup=30, rates=rates) for n in range(len(wanted))
    ]
    np.testing.assert_allclose(ours, wanted, rtol=1e-9)

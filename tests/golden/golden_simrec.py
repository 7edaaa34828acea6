"""Runs SimREC golden files: builds the model from a file's shapes; every array has a rule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from groundwork.models.common.checkpoint import LoadReport
from groundwork.models.common.letterbox import margins
from groundwork.models.common.word_system import fill
from groundwork.models.simrec.build import build_criterion, build_model
from groundwork.models.simrec.config import (
    SimrecBackboneConfig,
    SimrecModelConfig,
    SimrecTextConfig,
)
from groundwork.models.simrec.criterion import assign
from groundwork.models.simrec.model import SimREC
from groundwork.models.simrec.postprocess import choose, objectness
from tests.golden.named_weights import fill_state_dict

# Neither `meta` nor a shape tells: the golden text does. By `widths_divided_by`.
TEXT_HEADS = {16: 4, 1: 8}
UNUSED = ("multi_scale_manner.mid_proj.", "multi_scale_manner.bot_proj.", "attention_manner.w_m.")
SINGLE = {"image_seed", "image_corner", "ids", "box_target_cxcywh_rel", "frozen_modules", "meta",
          "n_tensors_frozen_trainable", "n_params_frozen_trainable"}  # fmt: skip
WORDS = "lang_encoder.embedding.weight"
# Every n-th channel, row and column that a file may hold of a map; which, its shape says.
THINNED = ((1, 1), (4, 2), (16, 2), (32, 4), (32, 2), (16, 4))


def config_of(keys: dict[str, list[int]], *, text_heads: int, bn: str) -> SimrecModelConfig:
    """The configuration whose model has these keys, as released."""
    layers = {key.split(".")[2] for key in keys if key.startswith("lang_encoder.sa_list.")}
    stages = [f"visual_encoder.model.{layer}.m." for layer in (2, 4, 6, 8)]
    repeats = (len({k.split(".")[4] for k in keys if k.startswith(stage)}) for stage in stages)
    return SimrecModelConfig(
        backbone=SimrecBackboneConfig(
            width=keys["visual_encoder.model.0.conv.weight"][0],
            repeats=tuple(repeats),
            batch_norm=bn,
        ),
        text=SimrecTextConfig(
            word_width=keys[WORDS][1],
            layers=len(layers),
            heads=text_heads,
            ffn=keys["lang_encoder.sa_list.0.ffn.mlp.fc.linear.weight"][0],
            dropout=0.0,
        ),
        width=keys["attention_manner.w_qs.weight"][0],
        head_width=keys["head.stems.0.conv.weight"][0],
        transposed=True,
        across_processes=False,
    )


class GoldenSimREC:
    """One golden file with the models and the inputs that belong to it.

    Args:
        keys: state-dict layout of its size (key -> shape).
    """

    def __init__(self, arrays: dict[str, np.ndarray], meta: dict, keys: dict[str, list[int]]):
        self.arrays, self.meta, self.keys = arrays, meta, keys
        self.base = meta["size"].startswith("base")
        self.runs: dict[str, GoldenRun] = {}

    def model(self, bn: str = "eval") -> SimREC:
        """With the weights of the golden file, without dropout, in evaluation mode."""
        heads = TEXT_HEADS[self.meta["config"].get("widths_divided_by", 1)]
        model = build_model(config_of(self.keys, text_heads=heads, bn=bn), self.keys[WORDS][0])
        weights = fill_state_dict(
            {k: v for k, v in self.keys.items() if not k.endswith("num_batches_tracked")},
            salt=self.meta["salt"],
        )
        fill(model, weights, LoadReport("golden"))
        return model.eval()

    def batch(self) -> dict:
        stream = np.random.RandomState(int(self.arrays["image_seed"]))
        rows, side = len(self.arrays["ids"]), self.meta["config"]["image_size"]
        low = stream.standard_normal((rows, 3, side // 16, side // 16)).astype(np.float32)
        high = stream.standard_normal((rows, 3, side, side)).astype(np.float32)
        image = low.repeat(16, axis=2).repeat(16, axis=3) + np.float32(0.25) * high
        corner = self.arrays["image_corner"]
        np.testing.assert_allclose(image[:, :, :3, :3], corner, rtol=1e-6, atol=1e-6)
        return {
            "image": torch.from_numpy(image),
            "text_ids": torch.from_numpy(self.arrays["ids"]),
            "target_boxes": list(torch.from_numpy(self.arrays["box_target_cxcywh_rel"])),
            "resized": [(side, side)] * rows,
            "offset": [(0, 0)] * rows,
        }

    def run(self, kind: str) -> GoldenRun:
        """`infer`, `calib`, `train_evalbn` or `train_original`, done once."""
        if kind not in self.runs:
            self.runs[kind] = GoldenRun(self, kind)
        return self.runs[kind]


class GoldenRun:
    """One forward of the model, backwards too in training, with what its parts gave on the way."""

    def __init__(self, golden: GoldenSimREC, kind: str):
        self.model = golden.model("train" if kind in ("train_original", "calib") else "eval")
        self.seen: dict = {}
        self.batch = golden.batch()
        if kind == "calib":
            self._calibrate()
        model = self.model
        parts = {"visual": model.visual_encoder, "lang": model.lang_encoder,
                 "multiscale": model.multi_scale_manner, "given": model.attention_manner.w_o,
                 "garan": model.attention_manner}  # fmt: skip
        parts |= {f"fused_{i}": part for i, part in enumerate(model.fusion_manner)}
        hooks = [part.register_forward_hook(self._keep(name)) for name, part in parts.items()]
        model.train(kind == "train_original")
        training = kind.startswith("train")
        with torch.set_grad_enabled(training):
            self.outputs = model(self.batch)
        for hook in hooks:
            hook.remove()
        if training:
            criterion = build_criterion(SimrecModelConfig())
            self.losses = criterion(self.outputs, self.batch)
            self.loss = sum(criterion.weights[name] * loss for name, loss in self.losses.items())
            self.loss.backward()

    def _keep(self, name: str):
        def hook(_module, _inputs, output):
            self.seen[name] = output

        return hook

    def _calibrate(self) -> None:
        norms = [m for m in self.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            self.model.train()(self.batch)


def names_of(golden: GoldenSimREC, part: str) -> list[str]:
    return [name.removeprefix(f"{part}/") for name in golden.arrays if name.startswith(f"{part}/")]


def check(golden: GoldenSimREC, part: str) -> None:
    """Every array of a part: `visual`, `infer`, `train_original`, ..."""
    ours, names = PARTS[part](golden), names_of(golden, part)
    unknown = [name for name in names if name not in ours]
    assert names and not unknown, f"no rule for {unknown}"
    for name in names:
        _compare(f"{part}/{name}", ours[name], golden.arrays[f"{part}/{name}"], golden.base)


def check_coverage(golden: GoldenSimREC) -> None:
    known = tuple(f"{part}/" for part in PARTS)
    left = [n for n in golden.arrays if not n.startswith(known) and n not in SINGLE]
    assert not left, f"no rule for {left}"


def _compare(name: str, ours, value: np.ndarray, base: bool) -> None:
    ours = ours.detach().numpy() if isinstance(ours, torch.Tensor) else np.asarray(ours)
    if value.dtype.kind in "biU":
        assert ours.shape == value.shape and (ours == value).all(), name
        return
    if ours.ndim == 4 and ours.shape != value.shape:
        thinned = (ours[:, ::channel, ::cell, ::cell] for channel, cell in THINNED)
        ours = next((one for one in thinned if one.shape == value.shape), ours)
    assert ours.shape == value.shape, f"{name}: shape {ours.shape}, golden {value.shape}"
    relative, absolute = _tolerance(name, base)
    np.testing.assert_allclose(ours, value, rtol=relative, atol=absolute, err_msg=name)


def _tolerance(name: str, base: bool) -> tuple[float, float]:
    batch = name.startswith(("train_original", "calib"))
    if "box_" in name:
        return (1e-3, 0.3) if batch else (1e-4, 0.05 if base else 0.01)
    if "gradnorm" in name:
        return (1e-2 if batch else 2e-3), 1e-7
    # A difference of two numbers has their absolute error.
    if "margin" in name:
        return 1e-3, (1e-3 if batch else 1e-5)
    return (1e-3, 1e-3) if batch else (1e-4, 1e-5)


# --- parts ----------------------------------------------------------------------------------------


def visual(golden: GoldenSimREC) -> dict:
    maps = dict(zip(("s8", "s16", "s32"), golden.run("infer").seen["visual"], strict=True))
    return maps | {f"{name}_absmean": one.abs().mean() for name, one in maps.items()}


def lang(golden: GoldenSimREC) -> dict:
    return {"flat": golden.run("infer").seen["lang"].vector}


def fused(golden: GoldenSimREC) -> dict:
    return {"s32": golden.run("infer").seen["fused_2"]}


def multiscale(golden: GoldenSimREC) -> dict:
    run = golden.run("infer")
    fusion = run.model.multi_scale_manner
    with torch.no_grad():
        fine, _, _ = fusion.exchanged(*(run.seen[f"fused_{i}"] for i in range(3)))
        unused = fusion.bot_proj(fine)
    return {"top": run.seen["multiscale"], "bot_absmean": unused.abs().mean()}


def garan(golden: GoldenSimREC) -> dict:
    run = golden.run("infer")
    with torch.no_grad():  # of the convolution that nothing uses
        unused = run.model.attention_manner.w_m(run.seen["given"])
    return {
        "top": run.seen["garan"],
        "attn_map": unused.flatten(1),
        "attn_absmean": run.seen["given"].abs().mean(),
    }


def _choice(run: GoldenRun) -> dict:
    cell, box, score = choose(run.outputs)
    return {
        "box_xyxy_obj": torch.cat([box, score[:, None]], dim=1),
        "objectness": run.outputs["cells"][..., 4].flatten(1).sigmoid(),
        "objectness_margin": margins(objectness(run.outputs)),
        "winner_cell": cell,
    }


def infer(golden: GoldenSimREC) -> dict:
    run = golden.run("infer")
    image = run.batch["image"]
    # The published network has a mask, which is empty always; ours has none.
    empty = {"mask_shape": np.array([len(image), *image.shape[2:]]), "mask_max": 0.0}
    return _choice(run) | empty


def calib(golden: GoldenSimREC) -> dict:
    run = golden.run("calib")
    return {
        "visual_s32": run.seen["visual"][2],
        "fused_s32": run.seen["fused_2"],
        "multiscale_top": run.seen["multiscale"],
        "garan_attn": run.seen["given"],
        "garan_top": run.seen["garan"],
    } | _choice(run)


def _training(golden: GoldenSimREC, kind: str) -> dict:
    run, parameters = golden.run(kind), dict(golden.run(kind).model.named_parameters())
    cells = run.outputs["cells"].detach()
    target = torch.cat(run.batch["target_boxes"]) * run.batch["image"].shape[-1]
    positive = assign(cells[..., :4], target).flatten(1)
    ours = {
        "loss": run.loss.double(),
        "loss_det": run.loss.double(),
        "loss_seg": 0.0,  # of the empty mask
        "num_foreground": positive.sum(),
        "loss_iou": run.losses["loss_iou"].double(),
        "loss_obj": run.losses["loss_obj"].double(),
        "label_after": target[:, None],
        "foreground_cells": positive,
        "trainable_without_grad": np.array([
            name for name, p in parameters.items()
            if p.grad is None and (p.requires_grad or name.startswith(UNUSED))
        ]),
    }  # fmt: skip
    for name in names_of(golden, kind):
        if name.startswith("gradnorm/"):
            gradient = parameters[name.removeprefix("gradnorm/")].grad
            ours[name] = np.float64(-1 if gradient is None else gradient.double().norm())
    return ours


def train_evalbn(golden: GoldenSimREC) -> dict:
    return _training(golden, "train_evalbn")


def train_original(golden: GoldenSimREC) -> dict:
    return _training(golden, "train_original")


def match(golden: GoldenSimREC) -> dict:
    """Assignment and loss of crafted predictions; the third image has no object."""
    ours, criterion = {}, build_criterion(SimrecModelConfig())
    cells = torch.from_numpy(golden.arrays["match/outputs_cxcywh_px_objlogit"])
    labels = torch.from_numpy(golden.arrays["match/labels_cxcywh_px"])
    ours |= {"outputs_cxcywh_px_objlogit": cells, "labels_cxcywh_px": labels}
    rows = int(cells.shape[1] ** 0.5)
    for name, count in (("all", 3), ("two", 2)):
        grid = cells[:count].clone().requires_grad_()
        target = labels[:count, 0]
        losses = criterion.losses(grid.unflatten(1, (rows, -1)), target)
        loss = sum(criterion.weights[key] * value for key, value in losses.items())
        loss.backward()
        found = assign(grid.detach().unflatten(1, (rows, -1))[..., :4], target).flatten(1)
        ours |= {
            f"{name}_loss": loss.double(),
            f"{name}_grad_outputs": grid.grad,
            f"{name}_foreground": found[target.any(dim=1)],
        }
    return ours


PARTS: dict[str, Callable[[GoldenSimREC], dict]] = {
    part.__name__: part
    for part in (
        visual, lang, fused, multiscale, garan, infer, calib, train_evalbn, train_original, match,
    )
}  # fmt: skip


def check_frozen_parts(golden: GoldenSimREC) -> None:
    """What the published training leaves alone; the projections that it never reaches are frozen
    here and count as trained there."""
    parameters = dict(golden.model().named_parameters())
    frozen = {
        name: p.numel()
        for name, p in parameters.items()
        if not (p.requires_grad or name.startswith(UNUSED))
    }
    modules = golden.arrays["frozen_modules"].tolist()
    inside = tuple(f"{name}." for name in modules if name not in parameters)
    for name in parameters:
        assert (name.startswith(inside) or name in modules) == (name in frozen), name
    every = sum(p.numel() for p in parameters.values())
    sizes, counts = sum(frozen.values()), len(frozen)
    wanted = golden.arrays["n_params_frozen_trainable"].tolist()
    assert [sizes, every - sizes] == wanted
    wanted = golden.arrays["n_tensors_frozen_trainable"].tolist()
    assert [counts, len(parameters) - counts] == wanted

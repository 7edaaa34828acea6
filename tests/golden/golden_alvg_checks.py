"""What a run of ALVG must repeat of its golden file."""

from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
import torch

from groundwork.geometry import clip_boxes, cxcywh01_to_xyxy
from groundwork.models.alvg.criterion import RELEASED_CANVAS, ALVGCriterion, Regions
from groundwork.models.alvg.matching import cost_matrix, match
from groundwork.models.alvg.model import ALVG
from groundwork.models.alvg.postprocess import ranked
from groundwork.models.alvg.regions import coverage, rasterise
from tests.golden.golden_alvg import SCENARIOS, VARIANTS, GoldenALVG, GoldenPass

LOSSES = {
    "class": "loss_class",
    "bbox": "loss_bbox",
    "giou": "loss_giou",
    "mask": "loss_mask",
    "dice": "loss_dice",
}
GRADIENTS = {
    "gradnorm": None,
    "gradnorm_decoder_attention": "loss_decoder_attention",
    "gradnorm_score_attention": "loss_score_attention",
}


def close(golden: GoldenALVG, name: str, ours: Any, *, relative: float | None = None) -> None:
    """Compare with the file; integers exactly."""
    value = golden.arrays[name]
    ours = ours.detach().numpy() if isinstance(ours, torch.Tensor) else np.asarray(ours)
    assert ours.shape == value.shape, f"{name}: shape {ours.shape}, golden {value.shape}"
    if value.dtype.kind in "biu":
        assert (ours == value).all(), name
        return
    scale = max(float(np.abs(value).max(initial=0)), 1e-3)
    tolerance = relative or (1e-3 if golden.base else 1e-4)
    np.testing.assert_allclose(ours, value, rtol=tolerance, atol=tolerance * scale, err_msg=name)


def thinned(golden: GoldenALVG, name: str, ours: torch.Tensor) -> torch.Tensor:
    """The part of a map that the base files hold."""
    if not golden.base:
        return ours
    if name.startswith(("img_proj", "enhanced")):
        return ours[:, ::16]
    return ours[:, ::4, ::4] if name.startswith("mask_") else ours


# --- encoder --------------------------------------------------------------------------------------


def check_encoder(golden: GoldenALVG) -> set[str]:
    batch, encoder = golden.batch("rec_box"), golden.model("rec", "fixed").encoder
    seen: set[str] = set()
    with torch.no_grad():
        for suffix in ("", "_nopad"):
            padding = golden.tensor("text_pad").bool() & (suffix == "")
            found = _encode(encoder, batch["image"], batch["text_ids"], padding)
            for name, value in found.items():
                if f"enc/{name}{suffix}" in golden.arrays:
                    close(golden, f"enc/{name}{suffix}", _thin_tokens(golden, name, value))
                    seen.add(f"enc/{name}{suffix}")
    return seen


def _encode(encoder, image, ids, padding) -> dict[str, torch.Tensor]:
    kept: dict[str, torch.Tensor] = {}
    hooks = [
        encoder.encoder.layers[0].register_forward_hook(lambda *a: kept.update(first=a[2])),
        encoder.encoder.register_forward_hook(lambda *a: kept.update(last=a[2])),
    ]
    encoded = encoder(image, ids, padding)
    for hook in hooks:
        hook.remove()
    return {
        "image_tokens": encoded.image.flatten(2).transpose(1, 2),
        "text_tokens": encoded.text,
        "cls": kept["last"][:, 0],
        "layer0_tokens": kept["first"],
    }


def _thin_tokens(golden: GoldenALVG, name: str, value: torch.Tensor) -> torch.Tensor:
    if not golden.base or name == "cls":
        return value
    return value[:, ::37, ::8] if name in ("image_tokens", "layer0_tokens") else value[..., ::8]


def check_interpolation(golden: GoldenALVG) -> set[str]:
    seen: set[str] = set()
    cases = {name.split("/")[0] for name in golden.arrays if name.startswith("interp")}
    assert cases
    for case in sorted(cases):
        side, patch = map(int, case.removeprefix("interp").split("_"))
        encoder, report = golden.encoder(side, patch)
        image = golden.image[:2]
        if side != golden.sizes["image_size"]:
            image = golden.random_image(side, 2, f"image{side}")
        padding = golden.tensor("text_pad")[:2].bool()
        with torch.no_grad():
            found = _encode(encoder, image, golden.tensor("text_ids")[:2], padding)
        found["positions"] = encoder.encoder.embed_positions.A.weight
        found["patch_kernel"] = encoder.vision_embed.proj.weight
        large = not golden.base and found["image_tokens"].shape[1] > 70
        for name in ("image_tokens", "text_tokens", "cls", "positions", "patch_kernel"):
            key, value = f"{case}/{name}", found[name]
            if key not in golden.arrays:
                assert name == "patch_kernel" and patch == 16
                continue
            close(golden, key, _thin_resized(golden, name, value, large=large))
            seen.add(key)
        seen.add(f"{case}/image_seed")
        assert (patch == 16) == ("kernel" not in str(report))
    return seen


def _thin_resized(golden: GoldenALVG, name: str, value: torch.Tensor, *, large: bool):
    if golden.base:
        parts = {"positions": np.s_[::13, ::8], "patch_kernel": np.s_[::96, :, ::3, ::3]}
        return value[parts[name]] if name in parts else _thin_tokens(golden, name, value)
    if name == "patch_kernel":
        return value[::16]
    if large and name in ("image_tokens", "positions"):
        return value[:, ::9] if name == "image_tokens" else value[::9]
    return value


# --- forward --------------------------------------------------------------------------------------


def forward_arrays(run: GoldenPass) -> dict[str, torch.Tensor]:
    outputs, seen = run.outputs, run.seen
    grid = outputs["score"].shape[-2:]
    return {
        "img_proj": seen["img_proj"],
        "text_proj": seen["text_proj"],
        "pooled": seen["pooled"][:, None],
        "tqg": seen["tqg"],
        "query_embed": seen["queries"],
        "score": outputs["score"],
        "enhanced": seen["enhanced"][0].transpose(1, 2).unflatten(-1, grid),
        "hidden": seen["hidden"][0],
        "attn": outputs["attention"],
        "logits": outputs["layer_logits"],
        "boxes": outputs["layer_boxes"],
        "mask_prob": outputs["pred_masks"].sigmoid(),
        "mask_logits": outputs["pred_masks"],
    }


def check_forward(golden: GoldenALVG, task: str) -> set[str]:
    seen: set[str] = set()
    for variant in VARIANTS:
        ours = forward_arrays(golden.run(task, variant))
        for name, value in ours.items():
            for key in (f"{task}/{name}_{variant}", f"{task}/{name}"):
                if key in golden.arrays:
                    close(golden, key, thinned(golden, name, value))
                    seen.add(key)
    return seen


# --- losses ---------------------------------------------------------------------------------------


class GoldenLosses:
    """The losses of one scenario and what they are made of."""

    def __init__(self, golden: GoldenALVG, scenario: str, variant: str):
        self.run = golden.run(scenario.split("_")[0], variant)
        self.criterion: ALVGCriterion = self.run.criterion
        self.batch, outputs = golden.batch(scenario), self.run.outputs
        self.losses = self.criterion(outputs, self.batch)
        targets = self.batch["target_boxes"]
        layers = zip(outputs["layer_logits"], outputs["layer_boxes"], strict=True)
        self.matches = [match(*layer, targets, self.criterion.costs) for layer in layers]
        grid = tuple(outputs["attention"].shape[-2:])
        self.regions: Regions = self.criterion.regions(self.batch, targets, grid)

    def weighted(self, names: list[str]) -> torch.Tensor:
        zero = self.run.outputs["pred_logits"].new_zeros(())
        weights = self.criterion.weights
        return sum((self.losses[n] * weights[n] for n in names if n in self.losses), zero)

    def scalars(self) -> dict[str, torch.Tensor]:
        losses, zero = self.losses, torch.zeros(())
        of_set = [n for n in losses if n.startswith(("loss_class", "loss_bbox", "loss_giou"))]
        raw = {
            f"raw_loss_{name}{layer}": losses.get(f"{ours}{layer}", zero)
            for name, ours in LOSSES.items()
            for layer in ("", "_0", "_1")
        }
        attention = {
            name: self.weighted([f"loss_{name}"])
            for name in ("decoder_attention", "score_attention")
        }
        boxes, mask = self.weighted(of_set), self.weighted(["loss_mask", "loss_dice"])
        total = boxes + sum(attention.values())
        return raw | {
            "loss_dgt": boxes,
            "loss_mask": mask,
            "decoder_attention_raw": losses["loss_decoder_attention"],
            "score_attention_raw": losses["loss_score_attention"],
            "decoder_attention_loss": attention["decoder_attention"],
            "score_attention_loss": attention["score_attention"],
            "loss_total": total,
            "optimised": total + mask,
        }

    def mean_ratio(self) -> torch.Tensor:
        criterion, before = self.criterion, self.criterion.single_query
        criterion.single_query = "mean"
        found = criterion.attention_losses(self.run.outputs, self.regions, self.matches[-1])
        criterion.single_query = before
        return found["loss_decoder_attention"]

    def margin(self) -> float:
        """Smallest gap between the cost of the best assignment and the second-best one."""
        gaps, outputs = [], self.run.outputs
        for layer, pairs in enumerate(self.matches):
            for row, target in enumerate(self.batch["target_boxes"]):
                if not len(target):
                    continue
                parts = (outputs["layer_logits"][layer][row], outputs["layer_boxes"][layer][row])
                cost = cost_matrix(*parts, target, self.criterion.costs).detach().double()
                gaps.append(_second_best(cost) - _cost_of(cost, pairs[row]))
        return min(gaps)


def _cost_of(cost: torch.Tensor, pair) -> float:
    return float(cost[pair[0], pair[1]].sum())


def _second_best(cost: torch.Tensor) -> float:
    queries, targets = cost.shape
    every = sorted(
        float(sum(cost[q, t] for t, q in enumerate(choice)))
        for choice in permutations(range(queries), targets)
    )
    return every[1]


def check_losses(golden: GoldenALVG, scenario: str) -> set[str]:
    seen: set[str] = set()
    for variant in VARIANTS:
        if f"{scenario}/optimised_{variant}" not in golden.arrays:
            continue
        found = GoldenLosses(golden, scenario, variant)
        ours: dict[str, Any] = found.scalars() | _inspected(golden, found, scenario)
        for name, value in ours.items():
            key = f"{scenario}/{name}_{variant}"
            if key in golden.arrays:
                scalar = golden.arrays[key].ndim == 0
                close(golden, key, value, relative=1e-3 if scalar else None)
                seen.add(key)
        seen |= check_gradients(golden, found, scenario, variant)
    return seen


def _inspected(golden: GoldenALVG, found: GoldenLosses, scenario: str) -> dict[str, Any]:
    """Matches, regions, targets of the mask and predictions."""
    batch, task = found.batch, scenario.split("_")[0]
    rows = [
        (layer, row, int(query), int(target))
        for layer, pairs in enumerate(found.matches)
        for row, pair in enumerate(pairs)
        for query, target in zip(*pair, strict=True)
    ]
    grid = tuple(found.regions.overlap.shape[-2:])
    focus = [_with_dummy(part, found, grid) for part in found.regions.focus]
    ours: dict[str, Any] = {
        "num_boxes": sum(map(len, batch["target_boxes"])),
        "match": np.array(rows, dtype=np.int64).reshape(-1, 4),
        "region_overlap": found.regions.overlap,
        "region_focus": torch.cat(focus),
        "region_focus_count": [len(part) for part in focus],
    }
    if task == "rec":
        ours["decoder_attention_meanratio"] = found.mean_ratio()
    elif rows:
        ours["match_margin"] = found.margin()
    if "target_mask" in batch:
        size = tuple(found.run.outputs["pred_masks"].shape[-2:])
        target = found.criterion.mask_target(batch["target_mask"], size)
        ours["mask_target_packed"] = np.packbits(target.numpy(), axis=-1)
    return ours | _predictions(found, task, golden.sizes["image_size"])


def _with_dummy(part: torch.Tensor, found: GoldenLosses, grid: tuple[int, int]) -> torch.Tensor:
    """The release counts an entry for "no target": without mask, or with a box of zeros."""
    if len(part) or "target_mask" in found.batch:
        return part if len(part) else torch.zeros(1, *grid)
    side = found.batch["image"].shape[-1]
    canvas = RELEASED_CANVAS if found.criterion.fixed_canvas else side
    return coverage(rasterise(torch.zeros(1, 4), side, canvas), grid)


def _predictions(found: GoldenLosses, task: str, side: int) -> dict[str, Any]:
    outputs = found.run.outputs
    scores = outputs["pred_logits"].detach().softmax(dim=-1)[..., 0].double().numpy()
    boxes = cxcywh01_to_xyxy(outputs["pred_boxes"].detach().double().numpy(), (side, side))
    boxes = clip_boxes(boxes, (side, side))
    if task == "rec":
        best = [ranked(b, s)[0] for b, s in zip(boxes, scores, strict=True)]
        chosen = np.stack([b[i] for b, i in zip(boxes, best, strict=True)])
        return {"pred_bboxes": chosen, "pred_classes": np.zeros(len(chosen), dtype=np.int64)}
    kept = [np.sort(ranked(b, s)) for b, s in zip(boxes, scores, strict=True)]
    return {
        "pred_bboxes": np.concatenate([b[k] for b, k in zip(boxes, kept, strict=True)]),
        "pred_scores": np.concatenate([s[k] for s, k in zip(scores, kept, strict=True)]),
        "pred_count": np.array([len(k) for k in kept]),
    }


def check_gradients(
    golden: GoldenALVG, found: GoldenLosses, scenario: str, variant: str
) -> set[str]:
    seen: set[str] = set()
    model: ALVG = found.run.model
    parameters = dict(model.named_parameters())
    for kind, loss in GRADIENTS.items():
        prefix = f"{scenario}/{kind}_{variant}/"
        named = [name for name in golden.arrays if name.startswith(prefix)]
        if not named:
            continue
        value = found.losses[loss] if loss else found.scalars()["optimised"]
        gradients = dict(
            zip(
                parameters,
                torch.autograd.grad(
                    value, list(parameters.values()), retain_graph=True, allow_unused=True
                ),
                strict=True,
            )
        )
        for name in named:
            gradient, wanted = gradients[name.removeprefix(prefix)], float(golden.arrays[name])
            if wanted in (0.0, -1.0):
                assert gradient is None or not gradient.any(), name
            else:
                norm = gradient.double().norm()
                close(golden, name, norm, relative=1e-2 if golden.base else 1e-3)
            seen.add(name)
        total = f"{scenario}/gradnorm_all_{variant}"
        if loss is None and total in golden.arrays:
            norms = [g.double().norm() for g in gradients.values() if g is not None]
            norm = torch.stack(norms).norm()
            close(golden, total, norm, relative=1e-2 if golden.base else 1e-3)
            seen.add(total)
    return seen


PARTS = {
    "encoder": check_encoder,
    "interpolation": check_interpolation,
    **{task: partial(check_forward, task=task) for task in ("rec", "grec")},
    **{name: partial(check_losses, scenario=name) for name in SCENARIOS},
}


def check(golden: GoldenALVG, part: str) -> None:
    """Compare a part once, and remember the names."""
    if part not in golden.seen:
        golden.seen[part] = PARTS[part](golden)


def check_coverage(golden: GoldenALVG) -> None:
    """Every array of encoder, forward pass and losses is compared."""
    for part in PARTS:
        check(golden, part)
    inputs = {"image_seed", "image_sub", "text_ids", "text_pad", "gt_boxes", "gt_masks_packed",
              "meta"}  # fmt: skip
    known = set.union(inputs, *golden.seen.values())
    elsewhere = ("iso/", "post/", "metric/")
    left = [n for n in golden.arrays if not n.startswith(elsewhere) and n not in known]
    assert not left, f"no rule for {left}"

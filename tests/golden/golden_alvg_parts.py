"""The isolated modules, predictions and metrics of an ALVG golden file."""

import numpy as np
import torch
from torch import Tensor

from groundwork import metrics
from groundwork.geometry import clip_boxes, cxcywh01_to_xyxy, scale_boxes, xyxy_to_cxcywh01
from groundwork.metrics import several
from groundwork.models.alvg.build import build_criterion
from groundwork.models.alvg.matching import match
from groundwork.models.alvg.postprocess import Postprocess, ranked
from groundwork.models.alvg.queries import pool_text
from groundwork.models.common.positions import cell_positions, token_positions
from tests.golden.golden_alvg import VARIANTS, GoldenALVG
from tests.golden.golden_alvg_checks import close

THRESHOLD = 0.7


class Compared:
    """Compares and remembers the names."""

    def __init__(self, golden: GoldenALVG, prefix: str):
        self.golden, self.prefix, self.seen = golden, prefix, set()

    def __call__(self, name: str, ours, **options) -> None:
        close(self.golden, f"{self.prefix}/{name}", ours, **options)
        self.seen.add(f"{self.prefix}/{name}")

    def given(self, name: str) -> Tensor:
        self.seen.add(f"{self.prefix}/{name}")
        return self.golden.tensor(f"{self.prefix}/{name}")

    def finish(self) -> None:
        names = {n for n in self.golden.arrays if n.startswith(f"{self.prefix}/")}
        assert not names - self.seen, f"no rule for {sorted(names - self.seen)}"


@torch.no_grad()
def check_modules(golden: GoldenALVG) -> None:
    compare = Compared(golden, "iso")
    _enhancement(golden, compare)
    _decoder(golden, compare)
    _queries(golden, compare)
    _positions(compare)
    _mask_head(golden, compare)
    _mask_losses(golden, compare)
    for queries in (1, 5):
        _attention_losses(golden, compare, queries)
    compare.finish()


def _enhancement(golden: GoldenALVG, compare: Compared) -> None:
    module = golden.model("rec", "fixed").head.transformer.img_enhance
    cells, position, text = (compare.given(f"enh_{name}") for name in ("x", "pos", "text"))
    for suffix, offset in (("", 0.0), ("_beta0.3", 0.3)):
        module.offset = offset
        enhanced, score = module(cells, position, text[:, 0])
        compare(f"enh_y{suffix}", enhanced)
        compare(f"enh_score{suffix}", score[..., None])
    module.offset = 0.0


def _decoder(golden: GoldenALVG, compare: Compared) -> None:
    inputs = [compare.given(f"dec_{name}") for name in ("query_pos", "memory", "pos", "pad")]
    for variant in VARIANTS:
        decoder = golden.model("grec", variant).head.transformer.decoder
        for suffix, residual in (("", "query"), ("_contentres", "content")):
            for layer in decoder.layers:
                layer.residual = residual
            hidden, attention = decoder(*inputs)
            compare(f"dec_hidden_{variant}{suffix}", hidden)
            compare(f"dec_attn_{variant}{suffix}", attention)
        for layer in decoder.layers:
            layer.residual = "query"


def _queries(golden: GoldenALVG, compare: Compared) -> None:
    text, padding = compare.given("text"), compare.given("text_pad").bool()
    for variant in VARIANTS:
        head = golden.model("grec", variant).head
        integer = head.integer_positions
        place = token_positions(text.shape[1], text.shape[2], integer=integer, like=text)
        compare(f"pos1d_{variant}", place)
        compare(f"pooled_{variant}", pool_text(text, padding, last_rows=head.pool_last_rows))
        generator = head.text_guided_query_generation_transformer
        compare(f"tqg_{variant}", generator(head.query_embed.weight, text, place, padding))


def _positions(compare: Compared) -> None:
    width = compare.given("pos2d_4x4").shape[1]
    part = torch.ones(1, 4, 4, dtype=torch.bool)
    part[:, :3, :2] = False
    compare("pos2d_4x4", cell_positions(torch.zeros_like(part), width))
    compare("pos2d_3x5", cell_positions(torch.zeros(1, 3, 5, dtype=torch.bool), width))
    compare("pos2d_4x4_valid3x2", cell_positions(part, width))


def _mask_head(golden: GoldenALVG, compare: Compared) -> None:
    head = golden.model("rec", "fixed").head.mask_head
    inputs = [compare.given(f"maskhead_{name}") for name in ("x", "pos")]
    compare("maskhead_prob", head(*inputs).sigmoid())
    before = {key: value.clone() for key, value in head.state_dict().items()}
    compare("maskhead_prob_trainbn", head.train()(*inputs).sigmoid())
    head.eval().load_state_dict(before)


def _mask_losses(golden: GoldenALVG, compare: Compared) -> None:
    logits = compare.given("maskloss_logits")
    union = golden.masks[: len(logits)]
    for name, double, truncated in (
        ("released", True, True),
        ("sigmoidfixed", False, True),
        ("targetfixed", True, False),
        ("fixed", False, False),
    ):
        criterion = build_criterion(golden.config("rec", "fixed"))
        criterion.double_sigmoid, criterion.truncated_masks = double, truncated
        losses = criterion._mask_losses(logits, union, 3)
        compare(f"maskloss_focal_{name}", losses["loss_mask"], relative=1e-3)
        compare(f"maskloss_dice_{name}", losses["loss_dice"], relative=1e-3)


def _attention_losses(golden: GoldenALVG, compare: Compared, queries: int) -> None:
    side, prefix = 640, f"attn640_q{queries}"
    boxes = compare.given("attn640_gt_boxes").double().numpy()
    y, x = np.mgrid[:side, :side] + 0.5
    ellipses = [
        ((x - (x1 + x2) / 2) / ((x2 - x1) / 2)) ** 2 + ((y - (y1 + y2) / 2) / ((y2 - y1) / 2)) ** 2
        <= 1
        for x1, y1, x2, y2 in boxes
    ]
    rows = [[0], [1], [2]] if queries == 1 else [[0, 3], [1], []]
    masks = [torch.tensor(np.array([ellipses[i] for i in r]).reshape(-1, side, side)) for r in rows]
    relative = torch.from_numpy(xyxy_to_cxcywh01(boxes, (side, side))).float()
    targets = [relative[r] for r in rows]
    outputs = {
        "attention": compare.given(f"{prefix}_attn"),
        "score": compare.given("attn640_score"),
    }
    logits, found = compare.given(f"{prefix}_logits"), compare.given(f"{prefix}_boxes")
    criterion = build_criterion(golden.config("rec", "fixed"))
    pairs = match(logits[-1], found[-1], targets, criterion.costs)
    flat = [
        (row, int(q), int(t)) for row, pair in enumerate(pairs) for q, t in zip(*pair, strict=True)
    ]
    for kind in ("mask", "box"):
        batch = {"image": torch.zeros(1, 3, side, side)}
        if kind == "mask":
            batch |= {"target_mask": torch.zeros(1), "target_masks": masks}
        regions = criterion.regions(batch, targets, tuple(outputs["score"].shape[-2:]))
        losses = criterion.attention_losses(outputs, regions, pairs)
        compare(f"{prefix}_{kind}_decoder", losses["loss_decoder_attention"], relative=1e-3)
        compare(f"{prefix}_{kind}_score", losses["loss_score_attention"], relative=1e-3)
        # The ellipses are not stored: a pixel on the edge may lie on its other side.
        compare(f"{prefix}_{kind}_overlap", regions.overlap, relative=2e-3)
        compare(f"{prefix}_{kind}_match", np.array(flat))


# --- predictions ----------------------------------------------------------------------------------


def check_predictions(golden: GoldenALVG) -> None:
    compare = Compared(golden, "post")
    logits, boxes = compare.given("logits"), compare.given("boxes")
    share, factor = compare.given("mask_prob"), compare.given("scale_factor").numpy()
    side = golden.sizes["image_size"]
    outputs = {
        "pred_logits": logits,
        "pred_boxes": boxes,
        "pred_masks": torch.logit(share.double()).float(),
        "attention": torch.zeros(1, *boxes.shape[:2], 4, 4),
    }
    original = (round(side / factor[1]), round(side / factor[0]))
    batch = {"image": torch.zeros(len(boxes), 3, side, side), "phrase": ["one"] * len(boxes)}
    square = batch | {"size": [(side, side)] * len(boxes)}
    rescaled = batch | {"size": [original] * len(boxes)}
    for suffix, one in (("", square), ("_rescaled", rescaled)):
        compare(f"rec_bboxes{suffix}", np.stack([g.boxes[0] for g in Postprocess()(outputs, one)]))
    single = Postprocess(THRESHOLD)(outputs, square)
    kept = golden.arrays["post/grec_keep_0.7"]
    scores = np.concatenate([g.scores for g in single])
    np.testing.assert_allclose(
        np.sort(scores), np.sort(golden.arrays["post/grec_scores"][kept]), rtol=1e-5
    )
    _every_query(compare, logits, boxes, size=(side, side), original=original)
    masks = np.stack([g.resized_mask for g in single])
    compare("mask_bin_packed", np.packbits(masks, axis=-1))
    compare("grec_mask_nonempty", masks.any(axis=(1, 2)))
    full = torch.nn.functional.interpolate(
        share[:, None], size=(side, side), mode="bilinear", align_corners=False
    )
    compare("mask_full_sub", full[:, 0, ::4, ::4])
    compare("rec_classes", np.zeros_like(golden.arrays["post/rec_classes"]))
    compare.finish()


def _every_query(compare: Compared, logits: Tensor, boxes: Tensor, *, size, original) -> None:
    """All queries with some area in the order of the file, before any threshold."""
    scores = logits.softmax(dim=-1)[..., 0].double().numpy()
    found = clip_boxes(cxcywh01_to_xyxy(boxes.double().numpy(), size), size)
    kept = [np.sort(ranked(b, s)) for b, s in zip(found, scores, strict=True)]
    flat = np.concatenate([b[k] for b, k in zip(found, kept, strict=True)])
    of_all = np.concatenate([s[k] for s, k in zip(scores, kept, strict=True)])
    compare("grec_bboxes", flat)
    compare("grec_bboxes_rescaled", scale_boxes(flat, size, original))
    compare("grec_scores", of_all)
    compare("grec_count", np.array([len(k) for k in kept]))
    compare("grec_keep_0.7", of_all >= THRESHOLD)


# --- metrics --------------------------------------------------------------------------------------


def check_metrics(golden: GoldenALVG) -> None:
    compare = Compared(golden, "metric")
    _single(golden, compare)
    _several(golden, compare)
    compare.finish()


def _unpacked(golden: GoldenALVG, name: str) -> np.ndarray:
    return np.unpackbits(golden.arrays[f"metric/{name}"], axis=-1).astype(bool)


def _single(golden: GoldenALVG, compare: Compared) -> None:
    truth, found = (compare.given(f"rec_{n}_boxes").double().numpy() for n in ("gt", "pred"))
    compare.given("rec_gt_masks_packed"), compare.given("rec_pred_masks_packed")
    masks = zip(_unpacked(golden, "rec_pred_masks_packed"),
                _unpacked(golden, "rec_gt_masks_packed"), strict=True)  # fmt: skip
    overlaps = [metrics.mask_overlap(*pair) for pair in masks]
    ious = np.array([metrics.mask_iou(one) for one in overlaps])
    boxes = np.array([metrics.box_iou(b, t[None]) for b, t in zip(found, truth, strict=True)])
    compare("rec_box_iou", boxes)

    def vector(rows: slice) -> np.ndarray:
        # The published script counts an IoU of exactly 0.5; Acc@0.5 in results.json does not.
        parts = [(boxes[rows] >= 0.5).mean(), ious[rows].mean()]
        parts += [(ious[rows] > t / 10).mean() for t in range(5, 10)]
        return 100 * np.array(parts)

    batches = np.stack([vector(np.s_[:4]), vector(np.s_[4:])])
    compare("rec_per_batch_4_2", batches)
    compare("rec_batchmean_released", batches.mean(axis=0))
    compare("rec_dataset_fixed", vector(np.s_[:]))
    inner, union = np.array(overlaps).sum(axis=0)
    compare("rec_oiou_fixed", 100 * inner / union, relative=1e-5)


class _Several:
    """Predictions and truth of every sample of the file."""

    def __init__(self, golden: GoldenALVG, compare: Compared):
        for name in ("gt_masks_packed", "pred_masks_packed"):
            compare.given(f"grec_{name}")
        self.nothing = compare.given("grec_no_target").numpy().astype(bool)
        ends = compare.given("grec_gt_count").numpy().cumsum()[:-1]
        self.truths = np.split(compare.given("grec_gt_boxes").double().numpy(), ends)
        masks = np.split(_unpacked(golden, "grec_gt_masks_packed"), ends)
        self.truths = [t[:0] if n else t for t, n in zip(self.truths, self.nothing, strict=True)]
        self.true_masks = [m.any(axis=0) for m in masks]
        ends = compare.given("grec_pred_count").numpy().cumsum()[:-1]
        self.found = np.split(compare.given("grec_pred").double().numpy(), ends)
        self.masks = _unpacked(golden, "grec_pred_masks_packed")

    def kept(self, threshold: float) -> list[np.ndarray]:
        return [rows[rows[:, 4] >= threshold, :4] for rows in self.found]

    def boxes(self, rows: slice, threshold: float = THRESHOLD) -> list[float]:
        """[F1 score, N-acc] in percent."""
        pairs = list(zip(self.kept(threshold), self.truths, strict=True))[rows]
        right = np.array([several.all_found(*pair) for pair in pairs])
        nothing = self.nothing[rows]
        return [100 * right.mean(), 100 * right[nothing].mean() if nothing.any() else 0.0]

    def masks_of(self, rows: slice) -> tuple[list[float], np.ndarray]:
        """[gIoU, cIoU] in percent; counts TP, FN of the samples without, FP, TN of those with a
        target, positive meaning "nothing"."""
        pairs = list(zip(self.masks, self.true_masks, strict=True))[rows]
        each = np.mean([metrics.mask_iou(metrics.mask_overlap(*pair)) for pair in pairs])
        inner, union = np.sum([metrics.mask_overlap(*pair) for pair in pairs], axis=0)
        empty, nothing = ~self.masks[rows].any(axis=(1, 2)), self.nothing[rows]
        counts = [nothing & empty, nothing & ~empty, ~nothing & empty, ~nothing & ~empty]
        return [100 * each, 100 * inner / union], np.array([c.sum() for c in counts])


def _released_mask_accuracies(counts: np.ndarray) -> list[float]:
    """T_acc and N_acc as published, with the positives in the place of the negatives and + 1."""
    positive, missed, false, _ = counts.astype(float)
    return [positive / (positive + false + 1), positive / (positive + missed + 1)]


def _several(golden: GoldenALVG, compare: Compared) -> None:
    data = _Several(golden, compare)
    right = [
        several.all_found(b, t) for b, t in zip(data.kept(THRESHOLD), data.truths, strict=True)
    ]
    compare("grec_per_sample_f1_correct", np.array(right, dtype=float))
    batches = []
    for rows in (np.s_[:3], np.s_[3:6], np.s_[6:]):
        overlaps, counts = data.masks_of(rows)
        batches.append([*data.boxes(rows), *overlaps, *_released_mask_accuracies(counts)])
    compare("grec_per_batch_3_3_4", np.array(batches))
    compare("grec_batchmean_released", np.mean(batches, axis=0))
    overlaps, counts = data.masks_of(np.s_[:])
    positive, missed, false, negative = counts
    fixed = [100 * negative / (negative + false), 100 * positive / (positive + missed)]
    compare("grec_dataset_fixed", np.array([*data.boxes(np.s_[:]), *overlaps, *fixed]))
    compare("grec_dataset_maskacc_released", np.array(_released_mask_accuracies(counts)))
    for threshold in (0.5, 0.9):
        compare(f"grec_f1_nacc_thr{threshold}", np.array(data.boxes(np.s_[:], threshold)))


PARTS = {"iso": check_modules, "post": check_predictions, "metric": check_metrics}

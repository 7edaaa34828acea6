"""Comparisons with the recording of a RefTR set; each raises AssertionError where they differ.

Tokens, spans, sizes, true masks and padding are equal; what is computed lies within a tolerance.
"""

from collections.abc import Iterator

import numpy as np

from tests.e2e.reftr_adapter import BATCH, Evaluation, Item

Gold = dict[str, np.ndarray]
PIXEL = 0.03  # a grey level and a half, normalised
SUM = 40.0  # of an image's normalised pixels
STEP = 48  # every 48th pixel is recorded


def tokens(gold: Gold, items: list[Item]) -> None:
    expected = [row[:n].tolist() for row, n in zip(gold["ids"], gold["length"], strict=True)]
    assert [item.tokens for item in items] == expected


def phrases(gold: Gold, items: list[Item]) -> None:
    expected = [
        [
            (gold["phrase"][i, k, : gold["phrase_length"][i, k]].tolist(),
             int(gold["left"][i, k]), int(gold["right"][i, k]))
            for k in range(count)
        ]
        for i, count in enumerate(gold["count"])
    ]  # fmt: skip
    assert [item.phrases for item in items] == expected


def pictures(gold: Gold, items: list[Item]) -> None:
    assert [item.image.shape[1:] for item in items] == list(map(tuple, gold["size"].tolist()))
    start = 0
    for number, (item, total) in enumerate(zip(items, gold["sum"], strict=True)):
        own = item.image[:, ::STEP, ::STEP].ravel()
        recorded, start = gold["px"][start : start + own.size].astype(np.float32), start + own.size
        assert np.abs(own - recorded).max() <= PIXEL, f"picture {number}"
        assert abs(item.image.sum(dtype=np.float64) - total) <= SUM, f"picture {number}"


def true_boxes(gold: Gold, items: list[Item]) -> None:
    scale = np.repeat(gold["size"][:, [1, 0, 1, 0]], gold["count"], axis=0)
    own = _corners(np.concatenate([item.boxes for item in items])) * scale
    np.testing.assert_allclose(own, _corners(gold["target"]) * scale, rtol=0, atol=0.01)


def true_masks(gold: Gold, items: list[Item]) -> None:
    for number, (item, mask) in enumerate(zip(items, _bitmaps(gold, "true_bits"), strict=True)):
        assert np.array_equal(item.mask, mask), f"mask {number}"


def padding(gold: Gold, items: list[Item]) -> None:
    for number, item in enumerate(items):
        assert item.canvas == tuple(gold["canvas"][number // BATCH][2:]), f"sample {number}"
        expected = np.ones(item.canvas, dtype=bool)
        expected[: item.image.shape[1], : item.image.shape[2]] = False
        assert np.array_equal(item.padded, expected), f"sample {number}"


def predicted_boxes(gold: Gold, run: Evaluation, split: str) -> None:
    rows = run.rows[split]
    sizes = np.repeat(gold["orig_size"], gold["count"], axis=0)
    assert [row.size for row in rows] == list(map(tuple, sizes.tolist()))
    np.testing.assert_allclose([row.box for row in rows], gold["pred"], rtol=0, atol=0.05)


def overlaps(gold: Gold, run: Evaluation, split: str) -> None:
    rows = run.rows[split]
    own = _iou(np.array([row.box for row in rows]), np.array([row.truth for row in rows]))
    np.testing.assert_allclose(own, gold["iou"], rtol=0, atol=1e-4)


def metrics(gold: Gold, run: Evaluation, split: str) -> None:
    accuracy, mean = 100 * gold["stats"][:2]
    found = run.metrics[split]
    np.testing.assert_allclose([found["accuracy"], found["box_iou"]], [accuracy, mean], atol=1e-3)


def predicted_masks(gold: Gold, run: Evaluation, split: str) -> None:
    masks = zip(run.rows[split], _bitmaps(gold, "mask_bits"), strict=True)
    for number, (row, mask) in enumerate(masks):
        assert row.mask is not None and row.mask.shape == mask.shape, f"mask {number}"
        assert (row.mask != mask).mean() < 1e-3, f"mask {number}"


def mask_overlaps(gold: Gold, run: Evaluation, split: str) -> None:
    pairs = zip(run.rows[split], _bitmaps(gold, "true_bits"), strict=True)
    each = [(row.mask & true).sum() / max((row.mask | true).sum(), 1) for row, true in pairs]
    np.testing.assert_allclose(each, gold["mask_iou"], rtol=0, atol=2e-3)
    assert abs(run.metrics[split]["mask_iou"] - 100 * gold["stats"][2]) < 1e-2


DATA = {  # stage -> (its comparison, an array that a list has if it was recorded)
    "tokens": (tokens, "ids"),
    "phrases": (phrases, "phrase"),
    "pictures": (pictures, "px"),
    "true_boxes": (true_boxes, "target"),
    "true_masks": (true_masks, "true_bits"),
    "padding": (padding, "canvas"),
}
RESULTS = {
    "predicted_boxes": (predicted_boxes, "pred"),
    "overlaps": (overlaps, "iou"),
    "metrics": (metrics, "stats"),
    "predicted_masks": (predicted_masks, "mask_bits"),
    "mask_overlaps": (mask_overlaps, "mask_iou"),
}


def _corners(boxes: np.ndarray) -> np.ndarray:
    boxes = boxes.astype(np.float64)
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def _iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n, 4) and (n, 4) -> (n,); 0 where neither has an area."""
    low, high = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    inside = np.clip(high - low, 0, None).prod(axis=1)
    both = sum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)) - inside
    return np.divide(inside, both, out=np.zeros_like(inside), where=both > 0)


def _bitmaps(gold: Gold, name: str) -> Iterator[np.ndarray]:
    """The packed masks of a list, each of which begins at a new byte."""
    start = 0
    for height, width in gold["size"].tolist():
        stop = start + -(-height * width // 8)
        bits = np.unpackbits(gold[name][start:stop])
        yield bits[: height * width].reshape(height, width).astype(bool)
        start = stop

"""Golden checks of RefTR's data side and metrics: files in, samples, batches and scores out.

The annotations of a golden file are written as the published lists with images of its formula,
and read by our readers and data set. Every check returns the names of the arrays that it looked at.
"""

import json
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from groundwork import geometry, metrics
from groundwork.dataset.formats import tuples
from groundwork.dataset.record import RecordTable
from groundwork.dataset.referring.collate import ReferringCollate
from groundwork.dataset.referring.dataset import ReferringDataset, ReferringRules
from groundwork.dataset.referring.text import ReferringText
from groundwork.dataset.referring.transforms import (
    ReferringTransform,
    aspect_size,
    change_brightness,
)
from groundwork.dataset.text import load_tokenizer
from groundwork.models.common.losses import giou_loss_of_pairs
from groundwork.models.reftr.criterion import RefTRCriterion
from groundwork.models.reftr.postprocess import inside, logits_on_images, outputs_to_groundings
from groundwork.report.predictions import Prediction, Run
from groundwork.report.results import score_rows

Arrays = dict[str, np.ndarray]
PICTURES = ("a", "b", "g")
SIDE = 96
LISTS = {
    "unc": "annotations_resc/unc/unc_val.pth",
    "flickr": "annotations/flickr/flickr_val.pth",
    "seg": "refcoco/anns/refcoco/refcoco_unc_val.pth",
}
TOKENS = {"unc": 40, "flickr": 90, "seg": 40}
# Our names of the published batch's keys.
KEYS = {
    "img": "image",
    "sentence": "text_ids",
    "sentence_mask": "text_mask",
    "phrase": "phrase_text_ids",
    "phrase_mask": "phrase_text_mask",
    "phrase_pos_l": "phrase_start",
    "phrase_pos_r": "phrase_stop",
}


def formula(height: int, width: int, offset: int) -> np.ndarray:
    """The (H, W, 3) uint8 image of the golden files."""
    y, x, c = np.mgrid[:height, :width, :3]
    return ((37 * y + 59 * x + 83 * c + 11 * ((x * y) % 7) + offset) % 256).astype(np.uint8)


class GoldenFiles:
    """The images, lists and masks of a golden file, written below `folder`."""

    def __init__(self, arrays: Arrays, folder: Path):
        self.arrays, self.folder = arrays, folder
        given = json.loads(str(arrays["data/annotations_json"]))
        self.names = given["image_names"]
        self.sizes = dict(zip(PICTURES, map(tuple, arrays["data/image_sizes_hw"]), strict=True))
        for index, (key, (height, width)) in enumerate(self.sizes.items()):
            picture = formula(height, width, 13 * index)
            picture = picture[..., 0] if key == "g" else picture
            Image.fromarray(picture).save(folder / self.names[key])
        vocabulary = folder / "vocab.txt"
        vocabulary.write_text("\n".join(arrays["data/vocab"].tolist()) + "\n", encoding="utf-8")
        self.tokenizer = load_tokenizer(vocabulary)
        self._write("unc", [(self.names[k], 0, box, text, []) for k, box, text in given["unc"]])
        self._write(
            "flickr",
            [(self.names[k], starts, boxes, phrases, None, sentence)
             for k, starts, boxes, phrases, sentence in given["flickr"]],
        )  # fmt: skip
        self._write("seg", [self._seg(i, *row) for i, row in enumerate(given["seg"])])

    def _seg(self, number: int, key: str, box: list[int], text: str) -> tuple:
        mask = np.zeros(self.sizes[key], dtype=np.uint8)
        x1, y1, x2, y2 = box
        mask[y1:y2, x1:x2] = 1
        mask[y1 + 3 : y1 + 7, x1 + 2 : x1 + 9] = 0
        np.save(self.folder / f"{number}.npy", mask)
        return (self.names[key], f"{number}.npy", box, text)

    def _write(self, name: str, rows: list[tuple]) -> None:
        path = self.folder / LISTS[name]
        path.parent.mkdir(parents=True)
        torch.save(rows, path)

    def dataset(self, name: str) -> tuple[ReferringDataset, ReferringCollate]:
        text = ReferringText(self.tokenizer, name == "flickr", TOKENS[name])
        rules = ReferringRules(
            image_root=str(self.folder),
            mask_root=str(self.folder),
            masks=name == "seg",
            integer_boxes=True,
        )
        records = RecordTable.from_records(tuples.read(self.folder / LISTS[name]))
        dataset = ReferringDataset(records, ReferringTransform(SIDE, SIDE), text, rules)
        collate = ReferringCollate(text, training=False, masks=name == "seg", fixed_length=True)
        return dataset, collate


def check_data(arrays: Arrays, folder: Path) -> set[str]:
    """Every item and the batch of the first two of each of the three lists."""
    files = GoldenFiles(arrays, folder)
    seen = {"data/vocab", "data/annotations_json", "data/image_sizes_hw"}
    for name in LISTS:
        dataset, collate = files.dataset(name)
        assert len(dataset) == int(arrays[f"data/{name}/len"])
        seen.add(f"data/{name}/len")
        for index in range(len(dataset)):
            seen |= _check_item(arrays, f"data/{name}/{index}/", collate([dataset[index]]))
        seen |= _check_batch(arrays, f"data/{name}/", collate([dataset[0], dataset[1]]))
    return seen


def _check_item(arrays: Arrays, prefix: str, batch: dict) -> set[str]:
    image = batch["image"][0]
    (stem,) = (Path(path).stem for path in batch["image_path"])
    height, width = batch["resized"][0]
    ours = {
        "img_shape": image.shape,
        "img_sample": image[:, ::8, ::8],
        "target_image_id": int(stem.rsplit("_", 1)[-1]),
        "target_boxes": batch["target_boxes"][0],
        "target_labels": [0],  # nothing is classified: one zero per image
        "target_dataset_id": int(prefix.split("/")[2]),
        "target_orig_size": batch["size"][0],
        "target_size": (height, width),
        **{key: batch[own][0] for key, own in KEYS.items() if key != "img" and own in batch},
    }
    if "target_mask" in batch:
        mask = batch["target_mask"][0, :height, :width]
        ours["target_masks_packbits"] = np.packbits(mask.numpy())
        ours["target_masks_shape"] = (1, height, width)
    seen = set()
    for name, golden in arrays.items():
        key = name.removeprefix(prefix)
        if not name.startswith(prefix):
            continue
        seen.add(name)
        if key.endswith("_dtype"):
            continue  # ours are always int64 and bool
        value = np.asarray(ours[key])
        assert value.shape == golden.shape, f"{name}: {value.shape} for {golden.shape}"
        tolerance = 0.02 if key == "img_sample" else 1e-6
        difference = np.abs(value.astype(float) - golden.astype(float)).max()
        assert difference <= tolerance, f"{name}: differs by {difference}"
    return seen


def _check_batch(arrays: Arrays, prefix: str, batch: dict) -> set[str]:
    seen = {f"{prefix}collate_{key}" for key in ("img_shape", "img_mask_packbits", "keys")}
    assert batch["image"].shape == tuple(arrays[f"{prefix}collate_img_shape"])
    padding = np.packbits(batch["image_mask"].numpy())
    assert (padding == arrays[f"{prefix}collate_img_mask_packbits"]).all()
    for key in arrays[f"{prefix}collate_keys"].tolist():
        own = KEYS[key]  # a key that we do not know is an error
        name = f"{prefix}collate_{key}_shape_dtype"
        if name in arrays:
            shape = str(arrays[name]).split(") ")[0] + ")"
            assert str(tuple(batch[own].shape)) == shape, name
            seen.add(name)
    assert ("phrase_text_ids" in batch) == ("flickr" in prefix)
    return seen


def check_resize(arrays: Arrays) -> set[str]:
    """The table of sizes before and after."""
    (name,) = (name for name in arrays if name.startswith("data/resize_table"))
    for width, height, *rest in arrays[name].tolist():
        for (shorter, longest), expected in zip(
            ((640, 640), (224, 1333), (800, 1333)), zip(rest[::2], rest[1::2], strict=True),
            strict=True,
        ):  # fmt: skip
            ours = aspect_size((height, width), shorter, longest)
            assert ours == expected[::-1], f"{width}x{height} at {shorter}, {longest}"
    return {name}


def check_intensity(arrays: Arrays) -> set[str]:
    """The brightness; the release draws a factor of saturation before it, which it never uses."""
    random.seed(int(arrays["data/intensity_in_seed"]))
    _saturation, value = random.random(), random.random()
    changed = change_brightness(formula(40, 48, 7), value + 0.5)
    golden = arrays["data/intensity_out"]
    assert np.abs(changed.astype(int) - golden).max() <= 1, cv2.__version__
    return {"data/intensity_in_seed", "data/intensity_out"}


def check_box_metrics(arrays: Arrays) -> set[str]:
    """Made-up boxes of two batches through criterion, postprocess and table."""
    prefix = "metric_box/"
    layout = json.loads(str(arrays[f"{prefix}targets_json"]))
    targets = torch.from_numpy(arrays[f"{prefix}target_boxes"])
    predictions, losses, results = [], [], {}
    for number, items in enumerate(layout):
        boxes = torch.from_numpy(arrays[f"{prefix}pred_boxes_batch{number}"])[:, :, 0]
        mask = arrays.get(f"{prefix}phrase_mask_batch{number}", np.ones(boxes.shape[:2], bool))
        counts = [item["n"] for item in items]
        mine, targets = targets[: sum(counts)].split(counts), targets[sum(counts) :]
        outputs = {"pred_boxes": boxes, "phrase_mask": torch.from_numpy(mask)}
        sizes = [tuple(item["orig_size_hw"]) for item in items]
        batch = {"size": sizes, "target_boxes": list(mine), "phrase": ["x"] * sum(counts)}
        losses.append(_losses(outputs, batch))
        found = iter(outputs_to_groundings(outputs, batch))
        for item, truths, size in zip(items, mine, sizes, strict=True):
            groundings = [next(found) for _ in truths]
            results[str(item["image_id"])] = [one.boxes[0].tolist() for one in groundings]
            corners = geometry.cxcywh01_to_xyxy(truths.double().numpy(), size)
            predictions += [
                _prediction(len(predictions) + place, one, corner)
                for place, (one, corner) in enumerate(zip(groundings, corners, strict=True))
            ]
    rows = {
        row["metric"]: row["value"] / 100
        for row in score_rows(Run("RefTR", "", "", "golden"), predictions)
    }
    ours = {
        "accuracy_iou0.5": rows["Acc@0.5"],
        "miou": rows["box IoU"],
        **{name: np.mean([one[name] for one in losses]) for name in losses[0]},
    }
    _check_values(arrays, f"{prefix}metrics/", ours)
    expected = json.loads(str(arrays[f"{prefix}result_json"]))
    # Published results are filed by image, where later expressions replace earlier ones.
    assert results.keys() == expected.keys()
    for key, boxes in expected.items():
        np.testing.assert_allclose(results[key], boxes, rtol=1e-5)
    _check_pairs(arrays, prefix)
    return {name for name in arrays if name.startswith(prefix)}


def _losses(outputs: dict, batch: dict) -> dict[str, float]:
    names = ["loss_bbox", "loss_giou"] + ["loss_mask", "loss_dice"] * ("pred_masks" in outputs)
    found = RefTRCriterion(dict.fromkeys(names, 1.0))(outputs, batch)
    return {name: found[name].item() for name in names} | {
        "loss": sum(found[name].item() for name in names)
    }


def _prediction(number: int, grounding: geometry.Grounding, truth: np.ndarray) -> Prediction:
    return Prediction(
        id=str(number),
        image=str(number),
        split="val",
        phrase=grounding.phrase,
        size=grounding.size,
        point=grounding.point,
        boxes=(tuple(truth.tolist()),),
        box=tuple(grounding.boxes[0].tolist()),
    )


def _check_values(arrays: Arrays, prefix: str, ours: dict[str, float]) -> None:
    for name, golden in arrays.items():
        if name.startswith(prefix):
            assert ours[name.removeprefix(prefix)] == pytest.approx(float(golden), rel=1e-5), name


def _check_pairs(arrays: Arrays, prefix: str) -> None:
    predicted = np.concatenate(
        [
            arrays[f"{prefix}pred_boxes_batch{n}"][:, :, 0][
                arrays.get(f"{prefix}phrase_mask_batch{n}", np.ones((1, 1), bool))
            ]
            for n in (0, 1)
        ]
    )
    targets = arrays[f"{prefix}target_boxes"]
    # In pixels of a large image, as our IoU does not know normalised boxes from others.
    corners = [
        geometry.cxcywh01_to_xyxy(b.astype(float), (1000, 1000)) for b in (predicted, targets)
    ]
    np.testing.assert_allclose(
        geometry.iou(*corners), arrays[f"{prefix}iou_matrix_pred_x_target"], atol=1e-6
    )
    every = torch.cartesian_prod(torch.arange(len(predicted)), torch.arange(len(targets)))
    pairs = (torch.from_numpy(predicted)[every[:, 0]], torch.from_numpy(targets)[every[:, 1]])
    giou = 1 - giou_loss_of_pairs(*pairs).reshape(len(predicted), len(targets))
    np.testing.assert_allclose(giou, arrays[f"{prefix}giou_matrix_pred_x_target"], atol=1e-5)


def assert_enlarged(mask: np.ndarray, seen: np.ndarray) -> None:
    """A mask in the image's own pixels is that of the network's, whose pixels keep their centres:
    what the four around a pixel agree on holds for it, too."""
    sides = []
    for new, old in zip(mask.shape, seen.shape, strict=True):
        before = np.floor((np.arange(new) + 0.5) * old / new - 0.5).astype(int)
        sides.append([np.clip(before + step, 0, old - 1) for step in (0, 1)])
    around = [seen[rows[:, None], columns] for rows in sides[0] for columns in sides[1]]
    assert not (mask & ~np.any(around, axis=0)).any()
    assert not (~mask & np.all(around, axis=0)).any()


def check_mask_metrics(arrays: Arrays) -> set[str]:
    """Made-up mask logits of two batches through postprocess, criterion and IoU."""
    prefix = "metric_mask/"
    sizes = [tuple(row) for row in arrays[f"{prefix}sizes_hw"].tolist()]
    originals = [tuple(row) for row in arrays[f"{prefix}orig_sizes_hw"].tolist()]
    boxes = [
        arrays["metric_box/pred_boxes_batch0"][:, :1, 0],
        arrays["metric_box/pred_boxes_batch1"][:, :, 0],
    ]
    target_boxes = torch.from_numpy(arrays["metric_box/target_boxes"])[[0, 2, 3]]
    losses, overlaps, hits, first = [], [], [], 0
    for number, predicted in enumerate(boxes):
        logits = torch.from_numpy(arrays[f"{prefix}pred_masks_batch{number}"])[:, 0]
        rows = range(first, first + len(logits))
        first += len(logits)
        canvas = tuple(max(sizes[row][axis] for row in rows) for axis in (0, 1))
        truth = torch.zeros(len(logits), *canvas)
        for place, row in enumerate(rows):
            height, width = sizes[row]
            truth[place, :height, :width] = torch.from_numpy(arrays[f"{prefix}target_mask_{row}"])
        outputs = {
            "pred_masks": logits,
            "pred_boxes": torch.from_numpy(predicted),
            "phrase_mask": torch.ones(len(logits), 1, dtype=torch.bool),
        }
        batch = {
            "image_mask": torch.zeros(len(logits), *canvas, dtype=torch.bool),
            "resized": [sizes[row] for row in rows],
            "size": [originals[row] for row in rows],
            "target_mask": truth,
            "target_boxes": [target_boxes[row][None] for row in rows],
            "phrase": ["x"] * len(logits),
        }
        losses.append(_losses(outputs, batch))
        masks = [inside(one) for one in logits_on_images(outputs, batch)]
        groundings = outputs_to_groundings(outputs, batch)
        for row, mask in zip(rows, masks, strict=True):
            assert (mask == arrays[f"{prefix}post_masks_{row}"]).all(), row
            drawn = arrays[f"{prefix}post_masks_origin_{row}"].astype(bool)
            assert (geometry.resize_mask(mask, drawn.shape) == drawn).all(), row
            assert_enlarged(groundings[row - rows[0]].mask, mask)
            truth_mask = arrays[f"{prefix}target_mask_{row}"]
            overlaps.append(metrics.mask_iou(metrics.mask_overlap(mask, truth_mask)))
        hits += _ious(predicted[:, 0], target_boxes[list(rows)].numpy())
    np.testing.assert_allclose(overlaps, arrays[f"{prefix}iou_each"], rtol=1e-5)
    ours = {
        "seg_miou": np.mean(overlaps),
        "accuracy_iou0.5": np.mean(np.array(hits) > 0.5),
        "miou": np.mean(hits),
        **{name: np.mean([one[name] for one in losses]) for name in losses[0]},
    }
    _check_values(arrays, f"{prefix}metrics/", ours)
    return {name for name in arrays if name.startswith(prefix)}


def _ious(predicted: np.ndarray, targets: np.ndarray) -> list[float]:
    pairs = zip(predicted, targets, strict=True)
    return [
        float(
            geometry.iou(*(geometry.cxcywh01_to_xyxy(b[None].astype(float), (1, 1)) for b in pair))[
                0, 0
            ]
        )
        for pair in pairs
    ]


def check_limits(arrays: Arrays, folder: Path) -> None:
    """Where the published items break batching, ours are split or refused."""
    files = GoldenFiles(arrays, folder)
    count = int(arrays["odd/flickr_17_phrases_phrase_shape"][0])
    words = "a dog " * count
    name, box = files.names["a"], [1, 2, 30, 40]
    row = (name, [6 * i for i in range(count)], [box] * count, ["a dog"] * count, None, words)
    torch.save([row], files.folder / LISTS["flickr"])
    dataset, collate = files.dataset("flickr")
    batch = collate([dataset[0], dataset[1]])
    assert batch["phrase_valid"].sum(dim=1).tolist() == [16, count - 16]
    tokens = int(arrays["odd/flickr_long_sentence_shape"][0])
    words = "dog " * (tokens - 2)
    torch.save([(name, [0], [box], ["dog"], None, words)], files.folder / LISTS["flickr"])
    with pytest.raises(ValueError, match=rf"flickr_val.pth\[0\]: the sentence has {tokens} tokens"):
        files.dataset("flickr")
    assert np.isnan(arrays["odd/mask_iou_of_two_empty_masks"])
    empty = np.zeros((4, 5), dtype=bool)
    assert metrics.mask_iou(metrics.mask_overlap(empty, empty)) == 1  # ours: they agree

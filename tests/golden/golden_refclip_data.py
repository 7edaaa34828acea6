"""Golden checks of RefCLIP's data side: annotation file and images in, samples and scores out.

Every check returns the names of the arrays that it looked at.
"""

import json
import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from groundwork import geometry, metrics
from groundwork.dataset.formats import simrec
from groundwork.dataset.letterbox import letterbox, letterbox_of
from groundwork.dataset.record import Record, RecordTable
from groundwork.dataset.referring.collate import ReferringCollate
from groundwork.dataset.referring.dataset import ReferringDataset, ReferringRules
from groundwork.dataset.referring.text import ReferringText
from groundwork.dataset.referring.transforms import IMAGENET_MEAN, IMAGENET_STD, ReferringTransform
from groundwork.dataset.words import Vocabulary, split_words, texts_of_annotations
from groundwork.models.common.word_vectors import word_vectors
from groundwork.models.refclip.postprocess import outputs_to_groundings, to_image
from tests.golden.golden_refclip import GoldenRefCLIP

Arrays = dict[str, np.ndarray]
ITEM = re.compile(r"item_(\w+?)_(\d+)/(\w+)")
FIRST_PICTURE = 101
PREFIXES = ("picture_", "item_", "split_", "letterbox_", "mapback_", "label2yolo_", "e2e/", "eval/")
SINGLE = {"annotation_json", "vocab_json", "pretrained_emb", "max_token_stat", "texts_json",
          "text_ids", "lr_per_step_10_iters_25_epochs"}  # fmt: skip


def is_of_data(name: str) -> bool:
    return name.startswith(PREFIXES) or name in SINGLE


class GoldenFiles:
    """The images and the annotation file of a golden file, below `folder`, as read by us."""

    def __init__(self, golden: GoldenRefCLIP, folder: Path):
        self.arrays, self.folder, self.side = golden.arrays, folder, golden.side
        self.annotation = json.loads(str(self.arrays["annotation_json"]))
        self.root = folder
        for name in (name for name in self.arrays if name.startswith("picture_")):
            number = FIRST_PICTURE + int(name.removeprefix("picture_"))
            path = folder / f"COCO_train2014_{number:012d}.jpg"
            Image.fromarray(self.arrays[name]).save(path, format="PNG")  # lossless, as there
        file = folder / "refcoco.json"
        file.write_text(json.dumps(self.annotation), encoding="utf-8")
        self.records = {split: list(simrec.read(file, [split])) for split in self.annotation}
        self.words = Vocabulary.of_texts(texts_of_annotations(self.records))
        self.tokens = self.arrays["text_ids"].shape[1]

    def dataset(self, records: list[Record]) -> ReferringDataset:
        return ReferringDataset(
            RecordTable.from_records(records),
            ReferringTransform(self.side, self.side, "letterbox"),
            ReferringText(self.words, max_tokens=self.tokens),
            ReferringRules(image_root=str(self.root)),
        )

    def collate(self, samples: list) -> dict:
        text = ReferringText(self.words, max_tokens=self.tokens)
        return ReferringCollate(text, training=False, fixed_length=True)(samples)

    def items(self, split: str, seed: int) -> list[dict]:
        """One batch per entry, its sentence drawn as there."""
        stream, found = np.random.RandomState(seed), []
        for record in self.records[split]:
            drawn = int(stream.choice(len(record.phrases)))
            found.append(self.collate([self.dataset([record])[drawn]]))
        return found


def check_words(golden: GoldenRefCLIP, files: GoldenFiles) -> None:
    arrays, words = golden.arrays, files.words
    assert {word: n for n, word in enumerate(words.words)} == json.loads(str(arrays["vocab_json"]))
    texts = json.loads(str(arrays["texts_json"]))
    for text, ids in zip(texts, arrays["text_ids"], strict=True):
        ours = words(text, truncation=True, max_length=files.tokens)["input_ids"]
        assert ours + [0] * (files.tokens - len(ours)) == ids.tolist(), text
    every = texts_of_annotations(files.records)
    assert max(len(split_words(text)) for text in every) == int(arrays["max_token_stat"])
    counts = {split: len(records) for split, records in files.records.items()}
    for name, length in zip(arrays["split_names"], arrays["split_lengths"], strict=True):
        assert sum(counts[split] for split in str(name).split("+")) == int(length)


def check_vectors(golden: GoldenRefCLIP, files: GoldenFiles) -> None:
    """The made-up vectors of the file, written as a text file, come back in the order of ids."""
    table = golden.arrays["pretrained_emb"]
    assert len(table) == len(files.words)
    lines = [
        f"{word} {' '.join(repr(float(number)) for number in row)}\n"
        for word, row in zip(files.words.words, table, strict=True)
    ]
    path = files.folder / "vectors.txt"
    path.write_text("".join(reversed(lines)), encoding="utf-8")
    ours, coverage = word_vectors(files.words.words, path, table.shape[1])
    assert coverage.found == len(table) and not coverage.missing
    np.testing.assert_array_equal(ours, table)


def check_items(golden: GoldenRefCLIP, files: GoldenFiles) -> None:
    names = [ITEM.fullmatch(name) for name in golden.arrays if name.startswith("item_")]
    splits = {match[1] for match in names if match}
    assert len(names) == sum(match is not None for match in names)
    for split in splits:
        for number, batch in enumerate(files.items(split, seed=7)):
            ours = _item(batch, files)
            mine = [m for m in names if m and m[1] == split and int(m[2]) == number]
            for match in mine:
                _same_item(match[0], ours[match[3]], golden.arrays[match[0]])


def _item(batch: dict, files: GoldenFiles) -> dict[str, np.ndarray]:
    image = batch["image"][0].double()
    mean, deviation = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    (height, width), (h, w), (dx, dy) = (batch[key][0] for key in ("size", "resized", "offset"))
    return {
        "ids": batch["text_ids"][0].numpy(),
        "image_stride4": batch["image"][0, :, ::4, ::4].numpy(),
        "image_stride16": batch["image"][0, :, ::16, ::16].numpy(),
        "image_mean_std": np.array([image.mean().item(), image.std().item()]),
        "image_u8": ((image * deviation + mean) * 255).round().to(torch.uint8).numpy(),
        "box_target": target(geometry.xyxy_to_xywh(batch["boxes"][0]), batch, files.side),
        "gt_box_xywh": geometry.xyxy_to_xywh(batch["boxes"][0]),
        "info": np.array([height, width, h, w, dx, dy, int(batch["record_ids"][0])]),
    }


def target(xywh: np.ndarray, batch: dict, side: int) -> np.ndarray:
    """The students' target: cxcywh as shares of the square, no share above 0.99."""
    size, (h, w), offset = (batch[key][0] for key in ("size", "resized", "offset"))
    small = geometry.scale_boxes(geometry.xywh_to_xyxy(xywh), size, (h, w))
    return np.clip(
        geometry.xyxy_to_cxcywh01(small + np.array([*offset, *offset]), (side, side)), 0, 0.99
    )


def _same_item(name: str, ours: np.ndarray, golden: np.ndarray) -> None:
    if name.endswith("/box_target") and not golden.any() and ours.any():
        return  # released: whole numbers in the annotation give a target of zeros; ours do not
    assert ours.shape == golden.shape, name
    # A grey level is 1 / 255 before the division by the deviation: other versions of OpenCV round
    # some pixels otherwise.
    level = 1 / 255 / min(IMAGENET_STD)
    absolute = {"image_stride4": level, "image_stride16": level, "image_u8": 1,
                "image_mean_std": 1e-3}.get(name.split("/")[1], 1e-4)  # fmt: skip
    np.testing.assert_allclose(
        ours.astype(float), golden.astype(float), rtol=1e-6, atol=1.01 * absolute, err_msg=name
    )


def check_letterbox(golden: GoldenRefCLIP, files: GoldenFiles) -> None:
    for width, height, side, h, w, dx, dy in golden.arrays["letterbox_table"].tolist():
        assert letterbox_of((height, width), side) == ((h, w), (dx, dy)), (width, height, side)
    assert letterbox(np.zeros((10, 1000, 3), np.uint8), files.side)[0].shape[0] == files.side
    sides, short = (128, 416), []
    for side in sides:
        sizes = ((h, w) for h in range(10, 641) for w in range(10, 641))
        # One pixel short of the exact quotient, which whole numbers give.
        short.append(
            sum(
                min(letterbox_of(size, side).size) < max(1, side * min(size) // max(size))
                for size in sizes
            )
        )
    assert short == golden.arrays["letterbox_truncation_rows"].tolist()


def check_back_to_the_picture(golden: GoldenRefCLIP) -> None:
    arrays = golden.arrays
    for column, info in enumerate(arrays["mapback_info"].tolist()):
        height, width, h, w, dx, dy, _ = info
        ours = to_image(
            arrays["mapback_boxes_xyxy"].astype(float), (height, width), (h, w), (dx, dy)
        )
        np.testing.assert_allclose(ours, arrays["mapback_result"][:, column], rtol=1e-5, atol=1e-3)
    height, width, h, w, dx, dy, _ = arrays["mapback_info"][0].tolist()
    place = {"size": [(height, width)], "resized": [(h, w)], "offset": [(dx, dy)]}
    given = arrays["label2yolo_in_xywh"]
    side = max(h, w)
    ours = target(given, place, side)
    np.testing.assert_allclose(ours, arrays["label2yolo_out"], atol=1e-6)
    flipped = ours.copy()
    flipped[:, 0] = 1 - flipped[:, 0]
    np.testing.assert_allclose(flipped, arrays["label2yolo_out_flip"], atol=1e-6)
    # Released: an array of whole numbers has no room for shares. Ours has.
    assert not arrays["label2yolo_out_int"].any()


def check_end_to_end(golden: GoldenRefCLIP, files: GoldenFiles) -> None:
    """Annotation file to boxes in the image, with the network of the file."""
    arrays, model = golden.arrays, golden.run("infer").model
    batches = files.items("val", seed=3)
    hits = []
    for row, batch in enumerate(batches):
        with torch.no_grad():
            grounding = outputs_to_groundings(model(batch), batch)[0]
        place = (batch["size"][0], batch["resized"][0], batch["offset"][0])
        info = [*place[0], *place[1], *place[2], int(batch["record_ids"][0])]
        assert info == arrays["e2e/info"][row].tolist()
        wanted = arrays["e2e/picture_box"][row]
        # Randomly weighted cells hardly differ: a grey level may change the choice, not the rule.
        box = to_image(arrays["e2e/input_box"][row, :4].astype(float), *place)
        np.testing.assert_allclose(box, wanted[:4], rtol=1e-4, atol=0.01)
        np.testing.assert_allclose(grounding.boxes[0], wanted[:4], rtol=1e-3, atol=0.2)
        np.testing.assert_allclose(grounding.scores[0], wanted[4], rtol=1e-3)
        hits.append(geometry.iou(grounding.boxes[:1], batch["boxes"][0])[0, 0] > 0.5)
    np.testing.assert_allclose(100 * np.mean(hits), arrays["e2e/acc"], rtol=1e-6)


def check_scores(golden: GoldenRefCLIP) -> None:
    """Made-up predictions: mapped back, their IoU, and which count as hits."""
    arrays, hits = golden.arrays, []
    for row, (height, width, h, w, dx, dy, _) in enumerate(arrays["eval/info"].tolist()):
        place = ((height, width), (h, w), (dx, dy))
        box = to_image(arrays["eval/pred_input_xyxy_obj"][row, :4].astype(float), *place)
        truth = geometry.xywh_to_xyxy(arrays["eval/gt_xywh"][row].astype(float))
        overlap = geometry.iou(box, truth)[0, 0]
        np.testing.assert_allclose(overlap, arrays["eval/iou"][row], atol=1e-5)
        hits.append(bool(metrics.box_correct(tuple(box), [tuple(truth)])))
    assert hits == arrays["eval/hit"].tolist()
    np.testing.assert_allclose(100 * np.mean(hits), arrays["eval/acc"], rtol=1e-6)

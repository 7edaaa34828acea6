"""All that the end-to-end tests of ALVG know of the project: commands, configurations, classes.

Evaluation goes through test.py and its result files; samples, losses and epochs, for which there is
no command, through the classes behind train.py.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import test as test_script
from groundwork.dataset.loader import train_loader
from groundwork.dataset.referring.dataset import ReferringSample
from groundwork.geometry import runs_to_mask, scale_boxes
from groundwork.jobs import referring
from groundwork.jobs.tokenizers import load_texts
from groundwork.models import SYSTEMS
from groundwork.settings import load_config

CONFIGS = Path(__file__).parent.parent.parent / "configs" / "alvg"
# Visits of a record after which every one of its sentences must have been drawn.
TRIES = 80


@dataclass(frozen=True)
class Prediction:
    """What test.py wrote about an expression, in pixels of the network's square input.

    image: file name. true, boxes: (n, 4) and (m, 4) xyxy, the best first. mask: (side, side) bool.
    """

    image: str
    split: str
    true: np.ndarray
    boxes: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Sample:
    """What the network gets: ids of the tokens, image (3, side, side) in grey levels, targets
    (n, 4) cxcywh in [0, 1], mask (side, side) bool."""

    ids: list[int]
    image: np.ndarray
    targets: np.ndarray
    mask: np.ndarray


MEAN = np.array([123.675, 116.28, 103.53])[:, None, None]
STD = np.array([58.395, 57.12, 57.375])[:, None, None]


def sample_of(sample: ReferringSample) -> Sample:
    assert sample.image is not None and sample.target_boxes is not None
    assert sample.target_mask is not None
    return Sample(
        ids=list(sample.text.ids),
        image=sample.image.numpy().astype(np.float64) * STD + MEAN,
        targets=sample.target_boxes.numpy(),
        mask=sample.target_mask.numpy(),
    )


def overrides(description: Mapping, annotations: Path, images: Path, folder: Path) -> list[str]:
    """`--set` values: a recipe with the network, files and batch of a set."""
    splits = json.loads(annotations.read_text(encoding="utf-8"))
    return [
        f"data.text_encoder={folder / description['tokeniser']}",
        f"data.image_root={images}",
        *[f'data.evaluate.{split}=["{annotations}"]' for split in splits if split != "train"],
        f'data.train.train=["{annotations}"]',
        "data.workers=0",
        f"batch_size={description['batch']}",
        "model.init.beit3=null",
        *[f"model.encoder.{key}={value}" for key, value in description["encoder"].items()],
    ]


def evaluate(
    recipe: str, values: list[str], splits: Iterable[str], checkpoint: Path, out: Path
) -> tuple[list[Prediction], dict[tuple[str, str], float]]:
    """The predictions of test.py and its {(split, metric): value}."""
    rows = test_script.main([
        "--config", str(CONFIGS / f"{recipe}.yaml"), "--checkpoint", str(checkpoint),
        "--output_dir", str(out), "--device", "cpu", "--split", *splits, "--set", *values,
    ])  # fmt: skip
    metrics = {(r["split"], r["metric"]): r["value"] for r in rows if r["system"] == "ALVG"}
    (file,) = out.rglob("predictions_*.jsonl")
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[1:] if line]
    return [prediction_of(line) for line in lines], metrics


def prediction_of(line: dict) -> Prediction:
    seen, size = line["resized_size"], line["size"]
    found = line["found"] if "found" in line else [line["box"]] if line.get("box") else []
    true, boxes = (np.reshape(np.array(b, float), (-1, 4)) for b in (line["boxes"], found))
    return Prediction(
        image=line["image"],
        split=line["split"],
        true=scale_boxes(true, size, seen),
        boxes=scale_boxes(boxes, size, seen),
        mask=runs_to_mask(line["resized_mask"], seen),
    )


class Project:
    """Samples, losses and epochs of a recipe, as train.py and test.py make them."""

    def __init__(
        self,
        recipe: str,
        values: list[str],
        splits: Iterable[str],
        attention_weights: Mapping[str, float],
    ) -> None:
        weights = [f"model.weights.{k}_attention={v}" for k, v in attention_weights.items()]
        config = load_config(CONFIGS / f"{recipe}.yaml", [*values, *weights])
        self.config, self.tokens, self.splits = config, load_texts(config), list(splits)
        self.text = referring.text_rules(config, self.tokens)
        train = config.data.train
        self.trained = referring.build_dataset(config, self.text, train, training=True)
        self.collate = referring.collate(config, self.text, training=True)

    def evaluation_samples(self) -> list[Sample]:
        files = {split: self.config.data.evaluate[split] for split in self.splits}
        data = referring.build_dataset(self.config, self.text, files, training=False)
        return [sample_of(data[index]) for index in range(len(data))]

    def training_samples(self, sentences: Mapping[int, list[str]]) -> dict:
        """{(record, sentence): sample}: drawn as a run draws them, until every sentence has come.

        Args:
            sentences: record -> its sentences.
        """
        found: dict[tuple[int, int], ReferringSample] = {}
        for record, texts in sentences.items():
            missing = dict(enumerate(texts))
            for epoch in range(TRIES):
                sample = self.trained[(epoch, record)]
                came = [number for number, text in missing.items() if [text] == sample.phrase]
                for number in came:
                    found[record, number] = sample
                    del missing[number]
                if not missing:
                    break
        return found

    def losses(self, batches: list[list[ReferringSample]], checkpoint: Path) -> np.ndarray:
        """(batches, 4) weighted, without dropout: boxes and classes of all layers, masks, attention
        of the decoder, of the score."""
        parts = SYSTEMS["alvg"].build(self.config.model, self.tokens, [()])
        model, (criterion,) = parts.model, parts.criteria
        SYSTEMS["alvg"].load(model, checkpoint)
        model.eval()
        criterion.eval()
        groups = (
            ("loss_class", "loss_bbox", "loss_giou"),
            ("loss_mask", "loss_dice"),
            ("loss_decoder_attention",),
            ("loss_score_attention",),
        )
        rows = []
        for samples in batches:
            batch = self.collate(samples)
            with torch.no_grad():
                found = criterion(model(batch), batch)
            weighted = {key: float(found[key]) * criterion.weights[key] for key in found}
            rows.append(
                [sum(v for k, v in weighted.items() if k.startswith(part)) for part in groups]
            )
        return np.array(rows)

    def epochs(self, number: int) -> list[list[list[int]]]:
        """The records of every batch of the first epochs."""
        size = self.config.batch_size
        sampler = train_loader(self.trained, self.collate, size, workers=0).sampler
        found = []
        for epoch in range(number):
            sampler.set_epoch(epoch)
            rows = [index for _, index in sampler]
            found.append([rows[start : start + size] for start in range(0, len(rows), size)])
        return found

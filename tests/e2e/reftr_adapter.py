"""What a RefTR set is compared with: samples and evaluations of this project in plain numbers."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from pycocotools import mask as coco_mask

import test
from groundwork.dataset.text import load_tokenizer
from groundwork.jobs import referring
from groundwork.settings import load_config
from groundwork.settings.roots import root_overrides
from tests.helpers.script_runs import CONFIGS

BATCH = 8  # as recorded
RECIPES = {
    "unc": "refcoco",
    "referit": "referit",
    "flickr": "flickr30k",
    "multi": "flickr30k",
    "res": "refcoco_res",
    "vg": "vg",
}
TINY = (
    "data.image_size=320", "data.max_image_size=320", "model.width=128", "model.ffn=128",
    "model.encoder_layers=2", "model.decoder_layers=3", "model.text.width=64",
    "model.text.layers=2", "model.text.heads=4", "model.text.ffn=128",
)  # fmt: skip
METRICS = {"accuracy": "Acc@0.5", "box_iou": "box IoU", "mask_iou": "mIoU (resized)"}


class Item(NamedTuple):
    """One sample as it enters the network.

    tokens: of the sentence, without padding. phrases: of a sentence with several, each its tokens
    and the half-open span of its tokens in the sentence. image: (3, h, w), normalised. canvas:
    (H, W) of its batch. padded: (H, W), True where the network is told that there is no image.
    boxes: (n, 4) cxcywh in [0, 1]. mask: (h, w) bool.
    """

    tokens: list[int]
    phrases: list[tuple[list[int], int, int]]
    image: np.ndarray
    canvas: tuple[int, int]
    padded: np.ndarray
    boxes: np.ndarray
    mask: np.ndarray | None


class Row(NamedTuple):
    """One phrase of a results file: boxes xyxy in original pixels, size (H, W) of the original
    image, mask at the size of the resized one."""

    box: list[float]
    truth: list[float]
    size: tuple[int, int]
    mask: np.ndarray | None


class Evaluation(NamedTuple):
    """rows: of every split. metrics: split -> accuracy, box_iou, mask_iou in percent."""

    rows: dict[str, list[Row]]
    metrics: dict[str, dict[str, float | None]]


class Place(NamedTuple):
    """Where lists lie: `data`/tree is the published data folder, kind that of the list."""

    inputs: ModuleType
    data: Path
    tree: str
    kind: str

    @property
    def size(self) -> str:
        return self.tree if self.tree in ("roberta", "base") else "tiny"

    @property
    def config(self) -> Path:
        name = RECIPES[self.kind] + ("_roberta" if self.size == "roberta" else "")
        return CONFIGS / "reftr" / f"{name}.yaml"

    @property
    def text_encoder(self) -> str:
        roberta = self.size == "roberta"
        return str(self.inputs.ROBERTA_FOLDER) if roberta else "bert-base-uncased"

    def overrides(self, splits: Sequence[str], *, training: bool = False) -> list[str]:
        """Settings by which the recipe reads these lists in the recorded size."""
        path = self.data / self.tree / self.inputs.PLACE[self.kind]
        files = ", ".join(f'{split}: ["{path}_{split}.pth"]' for split in splits)
        lists = f"data.{'train' if training else 'evaluate'}={{{files}}}"
        found = ["data.workers=0", f"batch_size={BATCH}", "select=null", lists]
        found += ["model.decoder_layers=6"] if self.size == "base" else TINY
        if self.size == "roberta":
            text = self.inputs.TEXT["roberta"]
            found.append(f"model.text.vocab_size={text['vocab_size']}")
            found.append(f"model.text.positions={text['max_position_embeddings']}")
        if self.kind == "flickr":  # no recipe of its own
            found += ["data.multi_phrase=false", "data.max_tokens=40"]
        return found


def evaluate(place: Place, splits: Sequence[str], checkpoint: Path, out: Path) -> Evaluation:
    """`test.py` on some splits in one run."""
    command = ["--config", place.config, "--checkpoint", checkpoint, "--output_dir", out]
    command += ["--device", "cpu", "--data", place.data / place.tree, "--split", *splits]
    command += ["--text_encoder", place.text_encoder, "--set", *place.overrides(splits)]
    results = test.main([str(word) for word in command])
    # The first line of a file says what it is.
    lines = [line for file in out.rglob("predictions*.jsonl") for line in list(file.open())[1:]]
    rows = list(map(json.loads, lines))
    values = {
        (row["split"], row["metric"].split(" (merged")[0]): row["value"]
        for row in results
        if row["system"] == "RefTR"
    }
    return Evaluation(
        {split: [_row(row) for row in rows if row["split"] == split] for split in splits},
        {s: {key: values.get((s, name)) for key, name in METRICS.items()} for s in splits},
    )


def _row(row: dict[str, Any]) -> Row:
    mask = None
    if row.get("resized_mask"):
        runs = {"size": list(row["resized_size"]), "counts": row["resized_mask"]}
        mask = coco_mask.decode(runs).astype(bool)
    return Row(row["box"], np.reshape(row["boxes"], (-1, 4))[0].tolist(), tuple(row["size"]), mask)


def samples(
    place: Place, splits: Sequence[str], draws: Sequence[float] | None = None
) -> list[Item]:
    """The data set of some splits in batches of evaluation; with `draws`, numbers in [0, 1), its
    training samples, whose augmentation draws these."""
    training = draws is not None
    settings = [
        *root_overrides(str(place.data / place.tree)),
        *place.overrides(splits, training=training),
    ]
    config = load_config(place.config, settings)
    text = referring.text_rules(config, load_tokenizer(place.text_encoder))
    files = config.data.train if training else config.data.evaluate
    data = referring.build_dataset(config, text, files, training=training)
    collate = referring.collate(config, text, training=training)
    if draws is not None:
        batches = ([_drawn(lambda i=i: data[0, i], draw)] for i, draw in enumerate(draws))
    else:
        batches = (
            [data[i] for i in range(k, min(k + BATCH, len(data)))]
            for k in range(0, len(data), BATCH)
        )
    return [item for batch in batches for item in _items(collate(batch))]


def _drawn(make: Callable[[], Any], draw: float) -> Any:
    """What `make` returns while every generator of NumPy draws the same number."""
    fixed = mock.Mock()
    fixed.random = lambda: draw
    fixed.uniform = lambda low=0.0, high=1.0: low + (high - low) * draw
    fixed.integers = lambda *_, **__: 0
    with mock.patch.object(np.random, "default_rng", lambda *_, **__: fixed):
        return make()


def _items(batch: dict[str, Any]) -> Iterator[Item]:
    for k, (height, width) in enumerate(batch["resized"]):
        phrases = []
        for p in range(int(batch["phrase_valid"][k].sum()) if "phrase_valid" in batch else 0):
            real = batch["phrase_text_mask"][k, p].bool()
            span = (int(batch[name][k, p]) for name in ("phrase_start", "phrase_stop"))
            phrases.append((batch["phrase_text_ids"][k, p][real].tolist(), *span))
        mask = None
        if "target_mask" in batch:
            mask = batch["target_mask"][k, :height, :width].bool().numpy()
        yield Item(
            tokens=batch["text_ids"][k][batch["text_mask"][k].bool()].tolist(),
            phrases=phrases,
            image=batch["image"][k, :, :height, :width].numpy(),
            canvas=tuple(batch["image"].shape[2:]),
            padded=batch["image_mask"][k].numpy(),
            boxes=batch["target_boxes"][k].numpy(),
            mask=mask,
        )

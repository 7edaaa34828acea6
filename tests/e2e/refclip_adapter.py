"""All that the tests of RefCLIP's and SimREC's released files know of the project."""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import pseudo_label
import test
import train
from groundwork import utils
from groundwork.engine.snapshot import Position
from groundwork.engine.training import seed_step
from groundwork.jobs import referring
from groundwork.jobs.tokenizers import load_texts
from groundwork.models.simrec.criterion import canvas_shares
from groundwork.models.simrec.model import SimREC
from groundwork.settings import RunConfig, load_config
from groundwork.settings.roots import root_overrides
from groundwork.tools import export_refclip
from tests.helpers.script_runs import CONFIGS

# The tiny models of tests/golden/*_keys_tiny.json, at the released 416 pixels.
TEXT = ("model.text.word_width=24", "model.text.heads=4", "model.text.ffn=48", "model.width=32")
TINY = {
    "refclip": ("model.detector.width=2", "model.detector.classes=6", "model.fusion_width=64"),
    "simrec": ("model.backbone.width=4", "model.head_width=16"),
}
LAYERS = {"refclip": 2, "simrec": 1}
NO_INIT = {"refclip": "model.init.detector=null", "simrec": "model.init.backbone=null"}


def _recipe(system: str, name: str) -> str:
    return str(CONFIGS / system / f"{name}.yaml")


def _settings(system: str, tree: Path, *more: str, layers: int | None = None) -> list[str]:
    """The end of a command line of train.py, test.py and pseudo_label.py."""
    own = (f"model.text.layers={layers or LAYERS[system]}", "data.workers=0")
    sizes = ("batch_size=8", "eval_batch_size=8")
    start = ["--data", str(tree), "--device", "cpu", "--set"]
    return [*start, *own, *sizes, *TEXT, *TINY[system], *more]


def _only(annotations: Path) -> list[str]:
    """Overrides: this annotation file and no other."""
    evaluated = ", ".join(f"{split}: [{annotations}]" for split in ("val", "testA", "testB"))
    return [f"data.train={{train: [{annotations}]}}", f"data.evaluate={{{evaluated}}}"]


def evaluate(
    system: str,
    tree: Path,
    weights: Path,
    folder: Path,
    *,
    recipe: str = "refcoco",
    layers: int | None = None,
    annotations: Path | None = None,
    splits: Sequence[str] = (),
) -> tuple[list[dict], dict[str, tuple[float, int]]]:
    """test.py.

    Returns:
        [{split, phrase, box xyxy in pixels, score}]; {split: (Acc@0.5 in percent, records)}.
    """
    argv = ["--config", _recipe(system, recipe), "--checkpoint", str(weights)]
    argv += ["--output_dir", str(folder), *(["--split", *splits] if splits else [])]
    test.main([
        *argv, *_settings(system, tree, *(_only(annotations) if annotations else ()), layers=layers)
    ])  # fmt: skip
    (file,) = folder.rglob("predictions*.jsonl")
    rows = [row for row in map(json.loads, file.open(encoding="utf-8")) if "phrase" in row]
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    found = {
        row["split"]: (row["value"], row["n"])
        for row in results
        if row["metric"] == "Acc@0.5" and row["system"] not in ("centre", "random")
    }
    return rows, found


def train_on(
    system: str, tree: Path, weights: Path, folder: Path, annotations: Path, *, batch: int,
    epochs: int, side: int,
) -> tuple[np.ndarray, Path]:  # fmt: skip
    """train.py as released but without dropout, with one epoch of warm-up, from given weights.

    Args:
        side: of SimREC's images, in place of the drawn ones.

    Returns:
        The loss of every step, the checkpoint of the last epoch.
    """
    more = [
        *_only(annotations), f"batch_size={batch}", f"epochs={epochs}", "schedule.warmup_epochs=1",
        "model.text.dropout=0.0", "model.init.words=null", NO_INIT[system], "log_every=1",
        *([f"model.train_sides=[{side}]"] if system == "simrec" else []),
    ]  # fmt: skip
    argv = ["--config", _recipe(system, "refcoco"), "--checkpoint", str(weights)]
    train.main([*argv, "--output_dir", str(folder), *_settings(system, tree, *more)])
    lines = map(json.loads, (folder / "log.txt").open(encoding="utf-8"))
    losses = [line["loss"] for line in lines if line["kind"] == "step"]
    return np.array(losses), folder / f"checkpoint_{epochs - 1:02d}.pth"


def pseudo_labels(tree: Path, weights: Path, folder: Path) -> tuple[list[dict], dict]:
    """pseudo_label.py on `train`: its labels, and the annotation file written for SimREC."""
    argv = ["--config", _recipe("refclip", "refcoco"), "--checkpoint", str(weights)]
    argv += ["--out", str(folder), "--write", "simrec"]
    pseudo_label.main([*argv, *_settings("refclip", tree)])
    lines = (folder / "labels.jsonl").read_text(encoding="utf-8").splitlines()
    return list(map(json.loads, lines)), json.loads((folder / "anns/refcoco.json").read_text())


def export(checkpoint: Path, file: Path) -> dict:
    """The content of the file that the released scripts are given."""
    return torch.load(export_refclip.main([str(checkpoint), "--out", str(file)]), weights_only=True)


def configuration(system: str, tree: Path, *overrides: str) -> RunConfig:
    return load_config(_recipe(system, "refcoco"), [*root_overrides(tree), *overrides])


@dataclass(frozen=True)
class Item:
    """What the model gets of a record. ids: (L,). image: (3, 416, 416). place: height, width,
    height and width on the square, left, top. box: xyxy. target: cxcywh as shares of the square."""

    ids: list[int]
    image: torch.Tensor
    place: list[int]
    box: np.ndarray
    target: np.ndarray


class Items:
    """The records of an annotation file as they are fed to the model; `words`: its vocabulary."""

    def __init__(self, system: str, tree: Path, annotations: Path):
        self.file = annotations
        self.config = configuration(system, tree, *_only(annotations))
        vocabulary = load_texts(self.config)
        self.words, self.text = vocabulary.words, referring.text_rules(self.config, vocabulary)

    @functools.cache  # noqa: B019
    def _split(self, name: str):
        files = {name: (str(self.file),)}
        return referring.build_dataset(self.config, self.text, files, training=False)

    def __call__(self, split: str, sentence: int) -> Item:
        """Sentence number `sentence` of a split."""
        collate = referring.collate(self.config, self.text, training=False)
        batch = collate([self._split(split)[sentence]])
        place = (*batch["size"][0], *batch["resized"][0], *batch["offset"][0])
        return Item(
            ids=batch["text_ids"][0].tolist(),
            image=batch["image"][0],
            place=list(map(int, place)),
            box=np.array(batch["boxes"][0][0]),
            target=canvas_shares(batch)[0].clamp(0, 0.99).numpy(),
        )


def samples_of_labels(tree: Path, rows: Sequence[tuple[dict, str, list[float]]]) -> int:
    """Samples of an epoch of SimREC on labels: (entry of an annotation file, sentence, box)."""
    file = tree / "labels.jsonl"
    lines = [
        {
            "image": f"COCO_train2014_{entry['iid']:012d}.jpg", "width": 10000, "height": 10000,
            "text": text, "box": box, "split": "train", "record_id": str(entry["iid"]),
            "phrase_id": str(entry["mask_id"]), "image_ids": [f"coco:{entry['iid']}"],
        }
        for entry, text, box in rows
    ]  # fmt: skip
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return _samples(configuration("simrec", tree, f"data.labels={file}"))


def samples_of_annotations(tree: Path, annotations: Path) -> int:
    """Samples of an epoch of SimREC on an annotation file."""
    return _samples(configuration("simrec", tree, *_only(annotations)))


def _samples(config: RunConfig) -> int:
    part, text = config.of_stages[-1], referring.text_rules(config, load_texts(config))
    return len(referring.build_dataset(part, text, part.data.train, training=True))


def text_layers(tree: Path, *overrides: str) -> int:
    """Self-attention layers of SimREC's recipe."""
    return configuration("simrec", tree, *overrides).model.text.layers


def drawn_sides(rank: int, steps: int, monkeypatch) -> list[int]:
    """The sides of SimREC's training images that a process draws in its first steps."""
    model = SimREC.__new__(SimREC)
    torch.nn.Module.__init__(model)
    model.train_sides = tuple(range(32, 448, 32))
    monkeypatch.setattr(utils, "rank", lambda: rank)
    found = []
    for step in range(steps):
        seed_step(123456, Position(epoch=0, step=step, global_step=step))
        found.append(model._resized(torch.zeros(1, 1, 32, 32)).shape[-1])
    return found

"""A set of ALBEF's released files, its YAML files, and how outputs are compared."""

import collections
import json
import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.e2e.albef_project import OWN_KEYS
from tests.golden.golden_albef import tied_keys
from tests.golden.named_weights import fill_state_dict

GOLDEN = Path(__file__).parents[1] / "golden"
MEAN = np.array((0.48145466, 0.4578275, 0.40821073))
STD = np.array((0.26862954, 0.26130258, 0.27577711))
COUNTED = {
    "refcoco+": ("val", "testA", "testB"),
    "refclef": ("val", "test"),
    "flickr": ("val", "test"),
}
OPTIMIZER = {"opt": "adamW", "lr": 1e-5, "weight_decay": 0.02}
FLICKR_FILES = {
    "image_ids_file": "lists/{}.txt",
    "phrase_box_file": "boxes/bounding_boxes_{}.json",
    "sentences_file": "boxes/sentences_{}.json",
}


class AlbefSet:
    """The folder of a set, copied to `work`, where configurations and results go too."""

    def __init__(self, folder: Path, work: Path) -> None:
        self.set = json.loads((folder / "set.json").read_text())
        self.gold = json.loads((folder / "recording.json").read_text())
        self.arrays = np.load(folder / "recording.npz")
        self.work, self.data = work, work / "data"
        shutil.copytree(folder / "data", self.data)
        shutil.copy(GOLDEN / "bert_tiny.json", work)
        self.tokenizer = self.data / "tokenizer"
        self.images = self.data / "flickr" / "images"
        self.names = self.set["names"]

    def read(self, name: str) -> Any:
        return json.loads((self.data / name).read_text())

    @cached_property
    def entries(self) -> list[dict]:
        return self.read("vg.json")

    def rgb(self, entry: Mapping[str, Any]) -> np.ndarray:
        return np.asarray(Image.open(self.data / entry["image"]).convert("RGB"))

    def unpacked(self, name: str, *shape: int) -> np.ndarray:
        return np.unpackbits(self.arrays[name])[: int(np.prod(shape))].reshape(shape)

    def regions(self, index: int) -> np.ndarray:
        """The region masks that the record of vg.json can have."""
        count = self.gold["train"][f"vg_masks_{index}"]
        return self.unpacked(f"train/vg_mask/{index}", count, 256, 256)

    @cached_property
    def weights(self) -> Path:
        """A folder with the checkpoint of the set."""
        keys = json.loads((GOLDEN / "amc_tiny_keys.json").read_text())
        plain = {
            name: tuple(shape)
            for name, shape in keys.items()
            if not name.startswith("queue_ptr") and "position_ids" not in name
        }
        state = fill_state_dict(plain, salt=self.set["salt"], tied=tied_keys(keys))
        state |= {k: torch.zeros(1, dtype=torch.long) for k in keys if k.startswith("queue_ptr")}
        folder = self.work / "weights"
        folder.mkdir()
        torch.save({"model": state, "epoch": 0}, folder / "checkpoint_00.pth")
        return folder

    def yaml(self, name: str, values: Mapping[str, Any]) -> Path:
        """A file with the released keys of every system, the tiny model's sizes, and these."""
        common = {
            "bert_config": str(self.work / "bert_tiny.json"), "queue_size": 24, "momentum": 0.995,
            "vision_width": 96, "embed_dim": 32, "temp": 0.07, "alpha": 0.4,
        }  # fmt: skip
        path = self.work / f"{name}.yaml"
        lines = (f"{key}: {json.dumps(value)}\n" for key, value in (common | dict(values)).items())
        path.write_text("".join(lines))
        return path

    def evaluation_yaml(self, name: str, benchmark: str, values: Mapping[str, Any]) -> Path:
        schedule = {
            "sched": "cosine", "lr": 1e-5, "epochs": 5, "min_lr": 1e-6, "decay_rate": 1,
            "warmup_lr": 1e-6, "warmup_epochs": 1, "cooldown_epochs": 0,
        }  # fmt: skip
        released = {
            "image_res": 256 if benchmark == "flickr" else 384, "batch_size": 8, "distill": True,
            "warm_up": True, "on_bbox": False, "optimizer": OPTIMIZER, "schedular": schedule,
        }  # fmt: skip
        return self.yaml(name, released | dict(values) | OWN_KEYS)

    def lists(self, benchmark: str) -> dict[str, Any]:
        """What a released YAML says about the data of a benchmark."""
        if benchmark == "flickr":
            folder = self.data / "flickr"
            files = {
                key: [str(folder / pattern.format(split)) for split in ("val", "test")]
                for key, pattern in FLICKR_FILES.items()
            }
            return files | {"image_root": str(self.images)}
        files = [str(self.data / f"{benchmark}_{split}.json") for split in ("val", "test")]
        return self._refer(benchmark, files)

    def _refer(self, benchmark: str, files: list[str]) -> dict[str, Any]:
        dets = str(self.data / "refer" / "refcoco+" / "dets.json")
        return {
            "test_file": files,
            "refcoco_data": str(self.data / "refer"),
            "image_root": str(self.data),
            "det_file": dets if benchmark == "refcoco+" else "/",
        }

    def unusual(self, benchmark: str) -> dict[str, Any]:
        """{name: an unusual entry and a plain one after it}."""
        path = "flickr/unusual.json" if benchmark == "flickr" else f"{benchmark}_unusual.json"
        return self.read(path)

    def unusual_lists(self, benchmark: str, name: str, entry: Any) -> dict[str, Any]:
        folder = self.work / f"{benchmark} {name}"
        folder.mkdir()
        if benchmark != "flickr":
            (folder / "list.json").write_text(json.dumps(entry))
            return self._refer(benchmark, [str(folder / "list.json")])
        for split in ("val", "test"):  # the same under both names
            (folder / f"{split}.txt").write_text("\n".join(entry["ids"]))
            (folder / f"bounding_boxes_{split}.json").write_text(json.dumps(entry["boxes"]))
            (folder / f"sentences_{split}.json").write_text(json.dumps(entry["sentences"]))
        return {"image_root": str(self.images), "flickr_data": str(folder)}

    def counted(self, benchmark: str) -> list[SimpleNamespace]:
        """What the published script counts: key, split, text, point (x, y, hit), proposal."""
        gold, rows = self.gold[benchmark], []
        points = self.arrays[f"{benchmark}/point"].tolist()
        for i, (text, split) in enumerate(zip(gold["text"], gold["split"], strict=True)):
            key = str(gold["ref_id"][i]) if benchmark != "flickr" else flickr_key(gold, i)
            if benchmark == "refclef" and "test" in split:
                split = "test"  # noqa: PLW2901
            proposals = self.arrays["refcoco+/proposal"] if benchmark == "refcoco+" else None
            rows.append(
                SimpleNamespace(
                    key=key, split=split, text=" ".join(text.split()), point=points[i],
                    proposal=None if proposals is None else proposals[i].tolist(),
                )
            )  # fmt: skip
        return [row for row in rows if row.split in COUNTED[benchmark]]


def flickr_key(gold: Mapping[str, list], index: int) -> str:
    return f"{gold['image'][index]}#{gold['sentence'][index]}/{gold['phrase_id'][index]}"


def pairs(
    predictions: list[dict], counted: list[SimpleNamespace]
) -> list[tuple[dict, SimpleNamespace]]:
    """(ours, published) entry by entry; all of both must find a partner."""
    pool = collections.defaultdict(list)
    for row in predictions:
        pool[row["key"], row["phrase"], row["split"]].append(row)
    found = [(pool[gold.key, gold.text, gold.split].pop(0), gold) for gold in counted]
    assert not any(pool.values())
    return found


def near(point: list[int], gold: list[float]) -> bool:
    return abs(point[0] - gold[0]) <= 1 and abs(point[1] - gold[1]) <= 1


def chose(row: dict, gold: list[float]) -> bool:
    """Are the proposal and its verdict the published ones?"""
    x, y, w, h, _, hit = gold
    same = bool(row["proposal"])
    same = same and np.abs(np.array(row["proposal"]) - (x, y, x + w, y + h)).max() < 0.01
    return bool(same) and ((row["proposal_iou"] or 0) >= 0.5) == bool(hit)


def mirrored_or_not(mask: np.ndarray, golds: np.ndarray) -> float:
    """Mask pixels (by value) between a region and the nearest of some, either way round."""
    return min(float(np.abs(m - gold).sum()) for gold in golds for m in (mask, mask[:, ::-1]))


def assert_same_shares(ours: collections.Counter, gold: list) -> None:
    """Two tables of drawn outcomes agree within 4.5 standard errors."""
    table = {tuple(k) if isinstance(k, list) else k: count for k, count in gold}
    assert set(ours) == set(table)
    n, total = sum(ours.values()), sum(table.values())
    for key, count in table.items():
        p, q = ours[key] / n, count / total
        error = np.sqrt(max(q * (1 - q), 1e-9) * (1 / n + 1 / total))
        assert abs(p - q) <= 4.5 * error + 1e-9, f"{key}: share {p:.3f}, published {q:.3f}"


def standard_errors(ours: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Columns of means in standard errors of their difference."""
    spread = ours.var(0) / len(ours) + gold.var(0) / len(gold)
    return (ours.mean(0) - gold.mean(0)) / np.sqrt(spread)


def assert_pictures(images, sums: np.ndarray, crops: np.ndarray) -> None:
    """Images against the sums of their channels and a part; one grey level is 1.5e-2."""
    for image, total, crop in zip(images, sums, crops, strict=True):
        assert np.abs(image[:, 120:128, 60:68] - crop).max() < 2e-2
        assert np.abs(image.astype(float).sum((1, 2)) - total).max() / image[0].size < 1e-3

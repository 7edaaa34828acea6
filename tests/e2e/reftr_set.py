"""A set of released RefTR files: lists, images and weights written out, and the recording."""

import argparse
import importlib.util
import json
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from tests.e2e.reftr_adapter import Evaluation, Item, Place, evaluate, samples
from tests.golden.named_weights import fill_state_dict

GOLDEN = Path(__file__).parent.parent / "golden"
OF_MASKS = ("bbox_attention", "mask_head")


class ReftrSet:
    """Everything is made when it is first asked for, and kept.

    Args:
        folder: of the set. work: an empty folder. photographs: folder of real images, or None:
            only the trees of drawn images are written then.
    """

    def __init__(self, folder: Path, work: Path, photographs: Path | None):
        self.folder, self.work, self.photographs = folder, work, photographs
        self._items: dict[str, list[Item]] = {}
        self._runs: dict[tuple[str, str], Evaluation] = {}

    @cached_property
    def inputs(self) -> ModuleType:
        spec = importlib.util.spec_from_file_location("reftr_inputs", self.folder / "inputs.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    @cached_property
    def data(self) -> Path:
        """The folder with the published data folder of every tree."""
        root = self.work / "data"
        if self.photographs is None:
            self._write_drawn(root)
        else:
            (self.work / "realdata").symlink_to(self.photographs.resolve())
            self.inputs.build(root, self.work)
        return root

    def _write_drawn(self, root: Path) -> None:
        pictures = root / "pictures" / "coco"
        pictures.mkdir(parents=True)
        drawn = self.inputs.draw(pictures)
        for tree, records in self.inputs.SMALL.items():
            path = root / tree / f"{self.inputs.PLACE['unc']}_val.pth"
            path.parent.mkdir(parents=True)
            rows = [(drawn[key], i, box, text, []) for i, (key, box, text) in enumerate(records)]
            torch.save(rows, path)
            place = root / tree / self.inputs.PICTURES["coco"]
            place.parent.mkdir(parents=True)
            place.symlink_to(pictures)

    def needs_photographs(self, tree: str) -> bool:
        return tree not in self.inputs.SMALL

    @cached_property
    def recording(self) -> dict[str, dict[str, np.ndarray]]:
        """TREE/KIND/SPLIT -> its arrays."""
        found: dict[str, dict[str, np.ndarray]] = {}
        with np.load(self.folder / "recording.npz") as file:
            for key in file.files:
                name, _, array = key.rpartition("/")
                found.setdefault(name, {})[array] = file[key]
        return found

    def place(self, name: str) -> tuple[Place, str]:
        """Where the lists of TREE/KIND/SPLIT lie, and the split."""
        tree, kind, split = name.split("/")
        return Place(self.inputs, self.data, "main" if tree == "train" else tree, kind), split

    def items(self, name: str) -> list[Item]:
        if name not in self._items:
            place, split = self.place(name)
            # Several phrases are trained on two lists together.
            splits = ["train", "val"] if name == "train/multi/trainval" else [split]
            self._items[name] = samples(place, splits, self.recording[name].get("r"))
        return self._items[name]

    def run(self, name: str) -> tuple[Evaluation, str]:
        """The evaluation of all splits that were recorded of a list, in one run; and its split."""
        place, split = self.place(name)
        key = (place.tree, place.kind)
        if key not in self._runs:
            kin = [other.split("/") for other in self.recording]
            splits = [other for *of, other in kin if tuple(of) == key]
            file = self.checkpoint(place.size, masks=place.kind == "res")
            out = self.work / "runs" / "_".join(key)
            self._runs[key] = evaluate(place, splits, file, out)
        return self._runs[key], split

    def checkpoint(self, size: str, *, masks: bool = False, released: bool = False) -> Path:
        """A file of weights that follow from their names; `released`: with all else that the
        published code saves."""
        path = self.work / f"{size}{'_masks' * masks}{'_released' * released}.pth"
        if not path.exists():
            content: dict[str, Any] = {"model": self._weights(size, masks)}
            if released:
                content |= {
                    "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4, "params": [0]}]},
                    "lr_scheduler": {"last_epoch": 3},
                    "epoch": 3,
                    "args": argparse.Namespace(dataset="refcoco_unc", lr=1e-4, masks=masks),
                    "best_val_acc": np.float64(0.5),
                }
            torch.save(content, path)
        return path

    def _weights(self, size: str, masks: bool) -> dict[str, torch.Tensor]:
        keys = GOLDEN / f"reftr_keys_{'base' if size == 'base' else 'tiny'}.json"
        unused = ("cem_block",) if masks else ("cem_block", *OF_MASKS)
        shapes = {
            name: tuple(shape)
            for name, shape in json.loads(keys.read_text()).items()
            if "position_ids" not in name and not name.startswith(unused)
        }
        text = self.inputs.TEXT[size]
        for name, key in (
            ("word", "vocab_size"),
            ("position", "max_position_embeddings"),
            ("token_type", "type_vocab_size"),
        ):
            table = f"lang_backbone.embeddings.{name}_embeddings.weight"
            shapes[table] = (text[key], text["hidden_size"])
        return self.inputs.adjust(fill_state_dict(shapes, salt=self.inputs.SALT), size)

"""A set of ALVG: its images and checkpoints laid out, and its runs with what was recorded."""

import json
import shutil
from functools import cached_property
from itertools import compress
from pathlib import Path

import numpy as np
import torch

from groundwork.dataset.referring.dataset import ReferringSample
from tests.e2e import alvg_project as project
from tests.e2e.alvg_project import Prediction, Project, Sample
from tests.golden.named_weights import fill_state_dict

QUERIES = "head.query_embed.weight"


class AlvgSet:
    """Args:
    folder: of the set, with `set.json`. photographs: folder of the images that do not ship;
        None: records that show them are left out. place: an empty folder to work in.
    """

    def __init__(self, folder: Path, photographs: Path | None, place: Path) -> None:
        self.folder, self.place = folder, place
        self.description = json.loads((folder / "set.json").read_text(encoding="utf-8"))
        with np.load(folder / "recording.npz") as recording:
            self.recording = dict(recording)
        self.images = place / "images"
        self.images.mkdir()
        self.shown: set[int] = set()
        pictures = json.loads((folder / "data" / "pictures.json").read_text(encoding="utf-8"))
        for number, name in pictures.items():
            head, _, rest = name.partition("/")
            photograph = head == "realdata"
            if photograph and photographs is None:
                continue
            source = photographs / rest if photograph and photographs else folder / name
            shutil.copyfile(source, self.images / f"COCO_train2014_{int(number):012d}.jpg")
            self.shown.add(int(number))
        for name in self.description["checkpoints"]:
            torch.save({"state_dict": self._weights(name)}, self.checkpoint(name))

    def checkpoint(self, recipe: str) -> Path:
        return self.place / f"{recipe}.pth"

    def _weights(self, name: str) -> dict[str, torch.Tensor]:
        """As the authors' file of this recipe would hold them."""
        given, checkpoint = self.description, self.description["checkpoints"][name]
        shapes = {k: tuple(s) for k, s in given["keys"].items() if k not in given["constant"]}
        shapes[QUERIES] = (checkpoint["queries"], *shapes[QUERIES][1:])
        state = fill_state_dict(shapes, salt=given["salt"])
        state |= {key: torch.tensor(value) for key, value in given["constant"].items()}
        return state | {key: state[key] * factor for key, factor in checkpoint["scale"].items()}


class Run:
    """An annotation file through a recipe, of which every part is made when first asked for.

    Records whose images are not there are left out of the evaluation, on both sides; training is
    recorded as a whole, so `trains` says whether all of its images are there.
    """

    def __init__(self, given: AlvgSet, name: str, description: dict) -> None:
        self.given, self.name = given, name
        self.recipe, self.rule = description["config"], description.get("rule", "")
        self.side, self.batch = given.description["side"], given.description["batch"]
        self.several = f"{name}/count" in given.recording
        path = given.folder / description["annotations"]
        self.entries = json.loads(path.read_text(encoding="utf-8"))
        evaluated = [entry for split in description["splits"] for entry in self.entries[split]]
        self.kept = np.array([self._has_picture(entry) for entry in evaluated], dtype=bool)
        self.trains = all(map(self._has_picture, self.entries["train"]))
        left = {s: list(filter(self._has_picture, self.entries[s])) for s in description["splits"]}
        self.splits = [split for split, entries in left.items() if entries]
        self.annotations = given.place / name / path.parent.name / "instances.json"
        self.annotations.parent.mkdir(parents=True)
        shown = {split: left[split] for split in self.splits} | {"train": self.entries["train"]}
        self.annotations.write_text(json.dumps(shown), encoding="utf-8")

    def _has_picture(self, entry: dict) -> bool:
        return entry["image_id"] in self.given.shown

    def array(self, name: str) -> np.ndarray:
        """Something recorded, whole."""
        return self.given.recording[f"{self.name}/{name}"]

    def gold(self, name: str) -> np.ndarray:
        """Something recorded of every record of the evaluation, of those that are kept."""
        return self.array(name)[self.kept]

    def gold_rows(self, values: str, counts: str) -> list[np.ndarray]:
        """The same of which a record has any number."""
        return list(compress(self.array_rows(values, counts), self.kept))

    def array_rows(self, values: str, counts: str) -> list[np.ndarray]:
        return np.split(self.array(values), np.cumsum(self.array(counts))[:-1])

    @cached_property
    def _values(self) -> list[str]:
        given = self.given
        return project.overrides(given.description, self.annotations, given.images, given.folder)

    @cached_property
    def evaluation(self) -> tuple[list[Prediction], dict[tuple[str, str], float]]:
        checkpoint, out = self.given.checkpoint(self.recipe), self.annotations.parent / "results"
        return project.evaluate(self.recipe, self._values, self.splits, checkpoint, out)

    @property
    def predictions(self) -> list[Prediction]:
        return self.evaluation[0]

    @cached_property
    def project(self) -> Project:
        weights = self.given.description["attention_weights"]
        return Project(self.recipe, self._values, self.splits, weights)

    @cached_property
    def samples(self) -> list[Sample]:
        return self.project.evaluation_samples()

    @cached_property
    def keys(self) -> list[tuple[int, int]]:
        """(record, sentence) of every recorded training sample."""
        return [(int(record), int(sentence)) for record, sentence in self.array("train_record")]

    @cached_property
    def drawn(self) -> dict[tuple[int, int], ReferringSample]:
        records = dict.fromkeys(record for record, _ in self.keys)
        sentences = {record: self.entries["train"][record]["expressions"] for record in records}
        return self.project.training_samples(sentences)

    @cached_property
    def trained(self) -> list[Sample]:
        return [project.sample_of(self.drawn[key]) for key in self.keys]

    @cached_property
    def losses(self) -> np.ndarray:
        """Of the recorded batches, whose records come with their last sentence."""
        last = dict(sorted(self.keys))
        rows = self.array("train_loss_records").tolist()
        batches = [[self.drawn[record, last[record]] for record in batch] for batch in rows]
        return self.project.losses(batches, self.given.checkpoint(self.recipe))

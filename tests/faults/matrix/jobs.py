"""The jobs: what is called, on what, and how an undisturbed call of each is made."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from groundwork.dataset.synthetic import write_dataset
from tests.faults.matrix.injections import Event, Record
from tests.faults.matrix.processes import Call, Ended, start
from tests.helpers import miniature_data
from tests.helpers.own_checkpoints import write_checkpoint
from tests.helpers.script_runs import CONFIGS

OUT, CACHE = "out", "cache"
GIVEN = ("data", "photos", "raw", "weights")
# Two epochs of three steps with a checkpoint in the midst of each; images that are cut are damaged.
SHORT = (
    "data.workers=0", "batch_size=4", "log_every=1", "save_every_steps=2", "precision=fp32",
    "keep=1",
)  # fmt: skip
_OPENER = "data.opener=shown"
_HEAT_MAPS = (*SHORT, _OPENER, "stages.0.steps=3", "stages.0.epochs=2")
_BOXES = (
    *SHORT, _OPENER, "steps=3", "epochs=2", "stages=[{}]", "eval_batch_size=16",
    "select={splits: [val], metric: Acc@0.5}",
)  # fmt: skip
_POINTS = (
    "benchmark=embedded/refcoco+", "data.test_file=[data/embedded/refcoco+/test.json]",
    "data.refcoco_data=data/embedded", "select={splits: [val], metric: pointing}",
)  # fmt: skip
_MAPS = CONFIGS / "tiny/Grounding_refcoco.yaml"


@dataclass(frozen=True)
class Job:
    """kind: its row in the table; name: of this variant of it. group: whether a launcher may start
    several of it, and processes load for it. done: what it says if it has been done, and is not
    done again."""

    kind: str
    name: str
    call: Call
    group: bool = False
    done: str | None = None

    @property
    def trains(self) -> bool:
        return self.kind == "train"

    def with_loader(self) -> Call:
        """The same with a loading process."""
        given = ["data.workers=1" if one == "data.workers=0" else one for one in self.call.argv]
        return Call(self.call.door, tuple(given))


def _train(name: str, config: str, settings: tuple[str, ...], door: str = "train") -> Job:
    argv = ("--config", str(CONFIGS / f"{config}.yaml"), "--output_dir", OUT, "--device", "cpu",
            "--resume", "auto", "--set", *settings)  # fmt: skip
    return Job("train", name, Call(door, argv), group=True)


def _evaluate(name: str, config: Path, files: tuple[str, ...], *settings: str) -> Job:
    argv = ("--config", *[str(config)] * len(files), "--checkpoint", *files, "--output_dir", OUT,
            "--device", "cpu", "--split", "testA", "--set", "data.workers=0", "batch_size=4",
            _OPENER, *settings)  # fmt: skip
    return Job("evaluate", name, Call("test", argv), group=True)


def _label(name: str, config: str, file: str, *settings: str) -> Job:
    argv = ("--config", str(CONFIGS / f"{config}.yaml"), "--checkpoint", file, "--out", OUT,
            "--device", "cpu", "--set", "data.workers=0", "batch_size=4", _OPENER,
            *settings)  # fmt: skip
    return Job("label", name, Call("pseudo_label", argv), group=True)


def _prepare(name: str, *more: str) -> Job:
    argv = ("--raw", f"raw/{more[0]}", "--out", OUT, *more[1:])
    return Job("prepare", name, Call(f"prepare_{name}", argv))


def jobs() -> list[Job]:
    """All of them."""
    cache = f"data.cache_dir={CACHE}"
    refer = ("--refer", "raw/refer")
    return [
        _train("ALBEF", "tiny/Pretrain", (*_HEAT_MAPS, cache)),
        _train("AMC", "tiny/Pretrain_vg_amc", (*_HEAT_MAPS, *_POINTS)),
        _train(
            "SelfEQ",
            "tiny/Pretrain_vg",
            (*_HEAT_MAPS[:-1], "stages.0.epochs=1", "stages.1.steps=3", "stages.1.epochs=1"),
        ),
        _train("RefTR", "tiny/reftr/refcoco+", _BOXES),
        _train(
            "RefCLIP",
            "tiny/refclip/refcoco+",
            (*_BOXES, "model.init.detector=null",
             f"model.cache={{folder: {CACHE}, gigabytes: 1}}"),
        ),
        _train("SimREC", "tiny/simrec/refcoco+", _BOXES),
        _train("ALVG", "tiny/alvg/refcoco+", _BOXES),
        _train(
            "detector",
            "tiny/detector",
            ("data.workers=0", "batch_size=4", "log_every=1", "epochs=2", "steps=3", "keep=1",
             "eval_batch_size=16", "data.held_out=0.2"),
            "train_detector",
        ),
        _evaluate("AMC", _MAPS, ("weights/albef",)),
        _evaluate("RefTR", CONFIGS / "tiny/reftr/refcoco+.yaml", ("weights/reftr",)),
        _label("SimREC", "tiny/simrec/refcoco+", "weights/simrec/own.pth"),
        Job(
            "predict",
            "ALBEF and RefTR",
            Call("predict", ("photos", "the red circle", "a square", "--checkpoint",
                             "weights/albef/own.pth", "weights/reftr/own.pth", "--out", OUT,
                             "--device", "cpu", "--strict", "--write", "coco", "yolo")),
            done="is not empty",
        ),
        Job(
            "export",
            "RefTR",
            Call("export", ("weights/reftr/own.pth", "--out", f"{OUT}/model.pt2")),
        ),
        _prepare("refcoco", "refer", "--masks"),
        _prepare("refclef", "refer"),
        _prepare("grefcoco", "grefcoco"),
        _prepare("flickr30k", "flickr30k_entities"),
        _prepare("vg", "vg", *refer),
        _prepare("coco", "coco", *refer),
        Job(
            "paraphrase",
            "rules",
            Call("make_paraphrases", ("data/embedded/vg/train.json", "--out",
                                      f"{OUT}/relation.json", "--rules")),
        ),
    ]  # fmt: skip


@dataclass
class Reference:
    """An undisturbed call: the folder that it worked in, what it did to files, and how long."""

    folder: Path
    events: list[Event]
    ended: Ended


@dataclass
class Bench:
    """A folder in which jobs are called, each time in a new folder of its own.

    Args:
        root: an empty folder, which receives everything.
        references: undisturbed calls so far. of_two: folders of those in two processes.
    """

    root: Path
    references: dict[Call, Reference] = field(default_factory=dict)
    of_two: dict[Call, Path] = field(default_factory=dict)
    _made: int = 0

    def __post_init__(self) -> None:
        given = self.root / "given"
        write_dataset(given / "data" / "embedded", scenes=24, seed=7, trees=True)
        miniature_data.write_everything(given / "raw")
        photos = given / "photos"
        photos.mkdir()
        images = sorted((given / "data/embedded/images/test").glob("*.jpg"))[:4]
        for image in images:
            shutil.copy(image, photos / image.name)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(given)
            for kind in ("albef", "reftr", "simrec"):
                write_checkpoint(kind, given / "weights" / kind / "own.pth")
        # A second one of AMC, so that an evaluation can be killed between the two.
        shutil.copy(given / "weights/albef/own.pth", given / "weights/albef/second.pth")

    def place(self) -> Path:
        """A new folder with all that jobs are given, as links to the same files."""
        self._made += 1
        folder = self.root / f"{self._made:04d}"
        folder.mkdir()
        for name in GIVEN:
            self.give(folder, name)
        return folder

    def give(self, folder: Path, name: str) -> None:
        """Put what jobs are given there, in the place of what is left of it."""
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(self.root / "given" / name, folder / name, copy_function=os.link)

    def reference(self, call: Call) -> Reference:
        """The undisturbed call, which is made once."""
        if call not in self.references:
            folder = self.place()
            record = Record(self.root / f"{folder.name}.events")
            ended = start(call, folder, self.root / f"{folder.name}.said", [record]).wait()
            if ended.code != 0:
                raise RuntimeError(f"{call} ends with {ended.code} undisturbed:\n{ended.said}")
            self.references[call] = Reference(folder, record.events(), ended)
        return self.references[call]

"""What each system learns from real photographs with two small pretrained encoders.

    python -m experiments.real_photos --data FOLDER --out runs/photos --seeds 0 1 2

FOLDER: see experiments/photos/data.py. The encoders are packages: README, Photographs.

    itc_itm_mlm   (a) ALBEF: image-text losses on phrases, no boxes
    amc           (b) ALBEF: matching + AMC on phrases with boxes
    selfeq        (c) SelfEQ on top of (a): paraphrases, no boxes
    control       beside (c): as many further steps of (a)
    reftr         (d) RefTR, all phrases of a sentence at once
    simrec        (e) SimREC on annotated boxes
    student       (f) RefTR, one phrase, on the boxes of (b)'s maps: pseudo_label.py

Each is a recipe of configs/photos, trained by train.py; the checkpoint that is best on val is
evaluated by test.py, once, on test and on photographs from elsewhere. A model that is there is not
trained again, an evaluation that is there is not done again. On a CPU with two cores two models are
made at a time. One table over the seeds, and a page with images of the first.
"""

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from groundwork import engine, utils
from groundwork.experiments.gains import make_parser
from groundwork.experiments.photos.data import Photos, prepare
from groundwork.experiments.quick.common import CONFIGS, several_at_a_time, shown
from groundwork.files.safe import write_text
from groundwork.jobs import evaluate, label, run_script, train
from groundwork.report.pages import Samples, write_report
from groundwork.report.results import ANY_BOX, MERGED_BOX, Row, merge_rows
from groundwork.report.seeds import SeedRow, over_seeds, seed_table, write_seed_rows

PARTS = ("itc_itm_mlm", "amc", "selfeq", "control", "reftr", "simrec", "student")
# What is made one after the other, the longest first: (c) begins with (a), (f) with (b)'s labels.
LANES = (("amc", "student"), ("reftr",), ("itc_itm_mlm", "selfeq", "control"), ("simrec",))
STARTS = dict.fromkeys(("selfeq", "control"), "itc_itm_mlm")
SHOWN = ("pointing", f"pointing{MERGED_BOX}", f"Acc@0.5{MERGED_BOX}", f"Acc@0.5{ANY_BOX}")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__, "photos")
    parser.set_defaults(data=None)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="training config")
    args = parser.parse_args(argv)
    # Two lanes must not train one model at a time.
    args.seeds = list(dict.fromkeys(args.seeds))
    if args.data is None:
        parser.error("--data: give the folder of the photographs; see experiments/photos/data.py")
    return args


class Part:
    """One model of one seed."""

    def __init__(self, args: argparse.Namespace, photos: Photos, seed: int, name: str):
        self.args, self.photos, self.seed, self.name = args, photos, seed, name
        self.config = CONFIGS / "photos" / f"{name}.yaml"
        self.folder = args.out / f"seed_{seed}" / name
        self.checkpoint = self.folder / f"{name}.pth"

    @property
    def overrides(self) -> list[str]:
        """The paths, and where the maps of the frozen network are kept."""
        folder = self.args.out / "maps"
        cache = f"model.timm_backbone.cache={{folder: {folder}, gigabytes: 10, half: true}}"
        return [*self.photos.roots, cache]

    def other(self, name: str) -> "Part":
        """Another model of the same seed."""
        return Part(self.args, self.photos, self.seed, name)

    def train(self) -> None:
        """Unless it is there already."""
        if self.checkpoint.is_file():
            return
        call = ["--config", str(self.config), "--output_dir", str(self.folder)]
        call += ["--seed", str(self.seed)]
        if self.name in STARTS:
            call += ["--checkpoint", str(self.other(STARTS[self.name]).trained())]
        more = ["keep=1", *self.overrides, *self.args.set]
        if self.name == "student":
            more.append(f"data.labels={self.labels()}")
        engine.remove_run(self.folder)
        began = time.perf_counter()
        train.main([*call, "--set", *more])
        (self.folder / "checkpoint_best.pth").rename(self.checkpoint)
        minutes = (time.perf_counter() - began) / 60
        write_text(self.folder / "minutes.txt", f"{minutes:.1f}\n")

    def trained(self) -> Path:
        """The checkpoint of a model that another one needs."""
        if not self.checkpoint.is_file():
            raise FileNotFoundError(f"{self.checkpoint} is needed first: --parts {self.name}")
        return self.checkpoint

    def labels(self) -> Path:
        """The boxes of (b)'s maps for the training phrases."""
        teacher, out = self.other("amc"), self.folder.parent / "labels"
        label.main(
            ["--config", str(teacher.config), "--checkpoint", str(teacher.trained()),
             "--out", str(out), "--set", *teacher.overrides]
        )  # fmt: skip
        return out / label.LABELS_FILE

    def evaluate(self) -> tuple[list[Row], Samples]:
        """On val and test, and on photographs from elsewhere: the rows, and images of test."""
        folder = self.folder / "results"
        call = ["--config", str(self.config), "--checkpoint", str(self.checkpoint)]
        rows = evaluate.main(
            [*call, "--output_dir", str(folder), "--split", "val", "test",
             "--set", *self.overrides]
        )  # fmt: skip
        lists = ", ".join(f"{name}: {path}" for name, path in self.photos.elsewhere.items())
        away = ["data.format=vg", f"data.evaluate={{{lists}}}", "benchmark=mixed", "select=null"]
        # These lists have every box of a phrase, and phrases without a sentence.
        away.append("data.merged_boxes=false")
        if self.name == "reftr":
            away.append("data.multi_phrase=false")
        rows += evaluate.main(
            [*call, "--output_dir", str(self.folder / "elsewhere"), "--set", *self.overrides,
             *away, f"data.image_root={self.photos.data}"]
        )  # fmt: skip
        return rows, shown(folder, self.checkpoint)


Found = dict[str, tuple[list[Row], Samples]]
"""Part -> its rows, and images of its test predictions."""


def make(args: argparse.Namespace, photos: Photos, task: tuple[int, Sequence[str]]) -> Found:
    """Train and evaluate the parts of one seed, one after the other."""
    seed, names = task
    found: Found = {}
    for name in names:
        part = Part(args, photos, seed, name)
        part.train()
        found[name] = part.evaluate()
    return found


def make_all(args: argparse.Namespace, photos: Photos) -> dict[int, Found]:
    """Everything of every seed, as many models at a time as there is room for."""
    lanes = [[name for name in lane if name in args.parts] for lane in LANES]
    tasks = [(seed, lane) for seed in args.seeds for lane in lanes if lane]
    found: dict[int, Found] = {seed: {} for seed in args.seeds}
    made = several_at_a_time(partial(make, args, photos), tasks)
    for (seed, _), parts in zip(tasks, made, strict=True):
        found[seed] |= parts
    return found


def main(argv: Sequence[str] | None = None) -> list[SeedRow]:
    """Run with command line arguments `argv`; returns the rows of the table."""
    args = parse_args(argv)
    utils.setup_logging()
    photos = prepare(args.data, args.out)
    found = make_all(args, photos)
    names = [name for name in PARTS if name in args.parts]
    runs: list[list[Row]] = []
    for parts in found.values():
        rows: list[Row] = []
        for name in names:
            rows = merge_rows(rows, parts[name][0])
        runs.append(rows)
    samples = [found[args.seeds[0]][name][1] for name in names]
    table = [row for row in over_seeds(runs) if row.metric in SHOWN]
    text = f"{utils.processor_name()}, seeds {args.seeds}\n\n{seed_table(table)}\n"
    write_text(args.out / "table.md", text)
    write_seed_rows(args.out / "seeds.json", utils.processor_name(), table)
    write_report(args.out, runs[0], samples, title="Real photographs")
    print(text)
    return table


if __name__ == "__main__":
    run_script(main)

"""Heat maps for a folder of photographs of your own.

    python -m experiments.own_photos --data FOLDER      (make quickstart-photos DATA=FOLDER)

FOLDER holds photographs and phrases.jsonl, a line of JSON per phrase:
    {"image": "beach/1.jpg", "phrase": "the red kite", "box": [x1, y1, x2, y2]}
in pixels, `image` relative to FOLDER. A tenth of the photographs chooses the checkpoint, another
tenth tests it. Trains (b) of real_photos.py, configs/photos/amc.yaml, with the same encoders, and
writes a table and a page with images.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from groundwork import engine, utils
from groundwork.dataset.formats.entries import save_entries
from groundwork.experiments.quick.common import CONFIGS, shown
from groundwork.jobs import evaluate, run_script, train
from groundwork.report.pages import markdown, write_report
from groundwork.report.results import Row

LIST, CONFIG = "phrases.jsonl", CONFIGS / "photos" / "amc.yaml"
SPLITS = ("val", "test", "train")
KEYS = {"image", "phrase", "box"}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help=f"photographs and {LIST}")
    parser.add_argument("--out", type=Path, default=Path("runs/own_photos"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="configuration")
    return parser.parse_args(argv)


def read_phrases(path: Path) -> list[dict[str, Any]]:
    """Entries of a VG list.

    Raises:
        FileNotFoundError: no such file. ValueError: a line that is not as it should be, by number.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: write a line per phrase, {{image, phrase, box}}")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: is no JSON ({error.msg})") from error
        if not isinstance(row, Mapping) or not row.keys() >= KEYS:
            raise ValueError(f"{path}:{number}: needs the keys {', '.join(sorted(KEYS))}")
        entry = {"image": row["image"], "caption": row["phrase"], "bbox": [row["box"]]}
        found.append(entry)
    return found


def split(entries: Sequence[dict[str, Any]], seed: int) -> dict[str, list[dict[str, Any]]]:
    """Val, test and train; all phrases of a photograph are in one of them.

    Raises:
        ValueError: fewer than ten photographs.
    """
    images = sorted({entry["image"] for entry in entries})
    if len(images) < 10:
        raise ValueError(f"{LIST}: names {len(images)} photographs; ten at least are needed")
    np.random.default_rng(seed).shuffle(images)
    tenth = len(images) // 10
    place = {image: SPLITS[min(index // tenth, 2)] for index, image in enumerate(images)}
    return {name: [e for e in entries if place[e["image"]] == name] for name in SPLITS}


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Run with command line arguments `argv`; returns the rows of results.json."""
    args = parse_args(argv)
    utils.setup_logging()
    parts = split(read_phrases(args.data / LIST), args.seed)
    lists = {name: args.out / f"{name}.json" for name in parts}
    for name, entries in parts.items():
        save_entries(lists[name], entries)
    overrides = [
        "benchmark=mixed",
        f"data.image_root={args.data}",
        f"data.train={{train: {lists['train']}}}",
        f"data.evaluate={{val: {lists['val']}, test: {lists['test']}}}",
        f"model.timm_backbone.cache={{folder: {args.out / 'maps'}, gigabytes: 10, half: true}}",
        *args.set,
    ]
    folder = args.out / "run"
    engine.remove_run(folder)
    call = ["--config", str(CONFIG), "--seed", str(args.seed)]
    train.main([*call, "--output_dir", str(folder), "--set", "keep=1", *overrides])
    best, results = folder / "checkpoint_best.pth", args.out / "results"
    rows = evaluate.main(
        [*call, "--checkpoint", str(best), "--output_dir", str(results), "--again",
         "--set", *overrides]
    )  # fmt: skip
    page = write_report(args.out, rows, [shown(results, best)], title="Photographs of your own")
    print(f"{markdown(rows)}\nReport with images: {page}")
    return rows


if __name__ == "__main__":
    run_script(main)

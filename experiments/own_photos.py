"""Heat maps for a folder of photographs of your own.

    python -m experiments.own_photos --data FOLDER      (make quickstart-photos DATA=FOLDER)

FOLDER holds photographs and phrases.jsonl, a line of JSON per phrase:
    {"image": "beach/1.jpg", "phrase": "the red kite", "box": [x1, y1, x2, y2]}
in pixels, `image` relative to FOLDER; tools/prepare_own.py says what else a line may hold, and is
called for it. A tenth of the photographs chooses the checkpoint, another tenth tests it. Trains (b)
of real_photos.py, configs/photos/amc.yaml, with the same encoders, and writes a table and a page
with images.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from groundwork import engine, utils
from groundwork.experiments.quick.common import CONFIGS, shown
from groundwork.jobs import evaluate, run_script, train
from groundwork.report.pages import write_report
from groundwork.report.results import Row
from groundwork.tools import prepare_own

LIST, CONFIG = "phrases.jsonl", CONFIGS / "photos" / "amc.yaml"
LEAST = 10


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help=f"photographs and {LIST}")
    parser.add_argument("--out", type=Path, default=Path("runs/own_photos"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="configuration")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Run with command line arguments `argv`; returns the rows of results.json."""
    args = parse_args(argv)
    utils.setup_logging()
    own = args.out / "own"
    prepared = prepare_own.main(
        [str(args.data / LIST), "--out", str(own), "--seed", str(args.seed)]
    )
    images = len({one.image for records in prepared.splits.values() for one in records})
    if images < LEAST:
        raise ValueError(f"{LIST}: names {images} photographs; ten at least are needed")
    overrides = [
        f"model.timm_backbone.cache={{folder: {args.out / 'maps'}, gigabytes: 10, half: true}}",
        *args.set,
    ]
    folder = args.out / "run"
    engine.remove_run(folder)
    call = ["--config", str(CONFIG), "--seed", str(args.seed), "--data", str(own)]
    train.main([*call, "--output_dir", str(folder), "--set", "keep=1", *overrides])
    best, results = folder / "checkpoint_best.pth", args.out / "results"
    rows = evaluate.main(
        [*call, "--checkpoint", str(best), "--output_dir", str(results), "--again",
         "--set", *overrides]
    )  # fmt: skip
    page = write_report(args.out, rows, [shown(results, best)], title="Photographs of your own")
    print(f"Report with images: {page}")
    return rows


if __name__ == "__main__":
    run_script(main)

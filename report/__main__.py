"""Score saved predictions anew and write a report; no model is needed.

python -m report runs/quickstart --out runs/quickstart/report
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from groundwork.report.pages import Samples, markdown, write_report
from groundwork.report.predictions import read_predictions
from groundwork.report.results import predictions_files, rescore


def main(arguments: Sequence[str] | None = None) -> None:
    """Score the predictions under a folder anew and write the report."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("predictions", type=Path, help="predictions file, or a folder of them")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--image_root", type=Path, help="folder of the images, if they moved")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images")
    options = parser.parse_args(arguments)
    rows = rescore(options.predictions)
    evaluations = [read_predictions(path) for path in predictions_files(options.predictions)]
    samples = [
        Samples.of(run, found, options.image_root, seed=options.seed) for run, found in evaluations
    ]
    page = write_report(options.out, rows, samples)
    print(f"{markdown(rows)}\n{page}")


if __name__ == "__main__":
    main()

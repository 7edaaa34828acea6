"""Score saved predictions of any system anew: every metric, without a model.

    python -m report runs/refcoco/results
    python -m report runs/quickstart --out runs/quickstart/report

Points, boxes, proposals and masks are compared with the truth that is saved beside them. Only the
images of --out need the data set.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from groundwork.jobs import run_script
from groundwork.report.pages import Samples, markdown, write_report
from groundwork.report.prediction_files import predictions_files, read_predictions
from groundwork.report.results import Row, rescore


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Run with command line arguments `argv`; returns the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("predictions", type=Path, help="predictions file, or a folder of them")
    parser.add_argument("--out", type=Path, help="folder that receives results.json and the page")
    parser.add_argument("--image_root", type=Path, help="folder of the images, if they moved")
    parser.add_argument("--maps", action="store_true", help="score the heat maps, too")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images")
    options = parser.parse_args(argv)
    rows = rescore(options.predictions, maps=options.maps)
    print(markdown(rows))
    if options.out is not None:
        evaluations = map(read_predictions, predictions_files(options.predictions))
        samples = [
            Samples.of(run, found, options.image_root, seed=options.seed)
            for run, found in evaluations
        ]
        print(write_report(options.out, rows, samples))
    return rows


if __name__ == "__main__":
    run_script(main)

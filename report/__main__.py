"""Score saved predictions of any system anew: every metric, without a model.

    python -m report runs/refcoco/results
    python -m report runs/quickstart --out runs/quickstart/report
    python -m report runs/refcoco/results --format latex > table.tex

Points, boxes, proposals and masks are compared with the truth that is saved beside them. Only the
images of --out need the data set.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from groundwork.jobs import run_script
from groundwork.report.detail import write_detail
from groundwork.report.latex import latex
from groundwork.report.pages import Samples, markdown, write_report
from groundwork.report.prediction_files import file_name, predictions_files, read_predictions
from groundwork.report.results import Row, rescore

FORMATS = {"markdown": markdown, "latex": latex}


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Run with command line arguments `argv`; returns the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("predictions", type=Path, help="predictions file, or a folder of them")
    parser.add_argument("--out", type=Path, help="folder that receives results.json and the page")
    parser.add_argument("--image_root", help="folder of the images, if they moved")
    parser.add_argument("--format", choices=FORMATS, default="markdown", help="of the tables")
    parser.add_argument("--log", type=Path, help="log.txt of the training run, for its curves")
    parser.add_argument("--maps", action="store_true", help="score the heat maps, too")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images")
    options = parser.parse_args(argv)
    rows = rescore(options.predictions, maps=options.maps)
    print(FORMATS[options.format](rows))
    if options.out is not None:
        print(write_pages(options, rows))
    return rows


def write_pages(options: argparse.Namespace, rows: Sequence[Row]) -> Path:
    """The page of all evaluations, and one of each; returns the former's path."""
    samples, pages = [], []
    for number, file in enumerate(predictions_files(options.predictions), 1):
        run, found = read_predictions(file)
        samples.append(Samples.of(run, found, options.image_root, seed=options.seed))
        if not found:
            continue
        page = f"{number}_{file_name(run.benchmark)}.html"
        write_detail(options.out / page, run, found, image_root=options.image_root, log=options.log)
        pages.append(page)
    return write_report(options.out, rows, samples, pages=pages)


if __name__ == "__main__":
    run_script(main)

"""Score saved predictions anew, of any system: every metric, without model and images.

    python -m tools.rescore runs/referring --out results.json

Points, boxes, proposals and masks are compared with the truth that is saved beside them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from groundwork.jobs import run_script
from groundwork.report.pages import markdown
from groundwork.report.results import Row, rescore, update_rows


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Run with command line arguments `argv`; returns the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("predictions", type=Path, help="predictions file, or a folder of them")
    parser.add_argument("--out", type=Path, help="results.json that receives the rows")
    options = parser.parse_args(argv)
    rows = rescore(options.predictions)
    if options.out is not None:
        update_rows(options.out, rows)
    print(markdown(rows))
    return rows


if __name__ == "__main__":
    run_script(main)

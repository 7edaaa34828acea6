"""Evaluate any system, or several side by side: points, boxes and masks in one table.

    python test.py --config configs/reftr/refcoco.yaml --checkpoint runs/refcoco/checkpoint_best.pth
    python test.py --config configs/reftr/flickr30k.yaml --checkpoint runs/flickr30k --split test

`--checkpoint` is a file, or a folder of which every *.pth is evaluated.
"""

from groundwork.jobs import evaluate, run_script


def main(argv: list[str] | None = None) -> list[dict[str, object]]:
    """Run with command line arguments `argv`; returns the rows of results.json."""
    return evaluate.main(argv, description=__doc__ or "")


if __name__ == "__main__":
    run_script(main)

"""Ground the expressions of a split that has no boxes: pseudo-labels, on which any student trains.

    python pseudo_label.py --config configs/refclip/refcoco.yaml --checkpoint BEST.pth --out labels
    python train.py --config configs/simrec/refcoco.yaml --set data.labels=labels/labels.jsonl ...

`--keep 0.8 --by similarity` keeps the surest, `--min_agreement 0.5` those on which the expressions
of an object agree, `--write simrec tuples refer` adds the files that published students read. The
split's annotated boxes are not used.
"""

from groundwork.jobs import label, run_script


def main(argv: list[str] | None = None) -> dict[str, int]:
    """Run with command line arguments `argv`; returns what was counted."""
    return label.main(argv, description=__doc__ or "")


if __name__ == "__main__":
    run_script(main)

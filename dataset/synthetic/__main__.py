"""Draws the embedded data set.

python -m dataset.synthetic --out FOLDER --scenes 2000 --seed 0
"""

import argparse
import time
from collections.abc import Sequence

from groundwork.dataset.synthetic.write import write_dataset


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the data set and prints its summary."""
    parser = argparse.ArgumentParser(description="draws the embedded data set")
    parser.add_argument("--out", required=True, help="folder to write into")
    parser.add_argument("--scenes", type=int, default=2000, help="scenes of all splits together")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same data set")
    parser.add_argument(
        "--no-trees",
        action="store_true",
        help="without the lists of RefTR, SimREC, ALVG, gRefCOCO and the owners' files of Visual"
        " Genome and Flickr30k Entities, which take four times the room",
    )
    args = parser.parse_args(arguments)
    start = time.perf_counter()
    summary = write_dataset(args.out, args.scenes, args.seed, trees=not args.no_trees)
    for key, value in summary.items():
        print(f"{key:28} {value}")
    print(f"{'seconds':28} {time.perf_counter() - start:.1f}")


if __name__ == "__main__":
    main()

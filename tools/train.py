"""ALVG's published command: python tools/train.py --config FILE [...] is train.py."""

import sys
from pathlib import Path

if not __package__:  # as `python tools/train.py`: the project is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from groundwork.jobs import run_script, train
from groundwork.tools.published_alvg import train_arguments

if __name__ == "__main__":
    run_script(lambda: train.main(train_arguments(None)))

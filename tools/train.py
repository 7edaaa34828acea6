"""ALVG's published command, a door to train.py: python tools/train.py --config FILE [...]."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from groundwork.jobs import run_script, train
from groundwork.tools.published_alvg import train_arguments

if __name__ == "__main__":
    run_script(lambda: train.main(train_arguments(None)))

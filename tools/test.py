"""ALVG's published command: python tools/test.py --config FILE --load-from F is test.py."""

import sys
from pathlib import Path

if not __package__:  # as `python tools/test.py`: the project is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from groundwork.jobs import evaluate, run_script
from groundwork.tools.published_alvg import test_arguments

if __name__ == "__main__":
    run_script(lambda: evaluate.main(test_arguments(None)))

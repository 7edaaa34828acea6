"""ALVG's published command, a door to test.py: python tools/test.py --config FILE --load-from F."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from groundwork.jobs import evaluate, run_script
from groundwork.tools.published_alvg import test_arguments

if __name__ == "__main__":
    run_script(lambda: evaluate.main(test_arguments(None)))

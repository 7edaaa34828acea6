"""Grounding language in images: the one name under which other projects import this one.

The folders that this package links to lie at the top of the repository, where the scripts use them.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Read by OpenMP when torch is loaded, hence here, before any module that loads it. Threads that
# wait for each other otherwise spin, and on a machine that others share, several times as long as
# they compute. On an idle one this costs some percent.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from groundwork.jobs.grounder import Grounder

__all__ = ["Grounder"]
__version__ = "0.3.0"

_HERE = Path(__file__).resolve().parent
if not (_HERE / "models").is_dir():
    # A copy without its links, as some archives and file systems make it: look beside this folder,
    # and there first, as a link may have become a file that holds its target's name.
    __path__.insert(0, str(_HERE.parent))


def __getattr__(name: str) -> Any:
    if name == "Grounder":  # here, as it imports torch and everything above it
        from groundwork.jobs.grounder import Grounder

        return Grounder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

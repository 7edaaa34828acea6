"""Grounding language in images: the one name under which other projects import this one.

The folders that this package links to lie at the top of the repository, where the scripts use them.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

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

"""Training and evaluation loops, checkpoints and logs; knows no system by name."""

from groundwork.engine.compilation import compile_parts, require_compiler
from groundwork.engine.evaluation import evaluate
from groundwork.engine.faults import FaultLog
from groundwork.engine.folder import remove_run
from groundwork.engine.names import Names
from groundwork.engine.preemption import Preemption
from groundwork.engine.snapshot import Position, Snapshots
from groundwork.engine.training import Settings, Stage, Trainer, Validation, fit

__all__ = [
    "FaultLog",
    "Names",
    "Position",
    "Preemption",
    "Settings",
    "Snapshots",
    "Stage",
    "Trainer",
    "Validation",
    "compile_parts",
    "evaluate",
    "fit",
    "remove_run",
    "require_compiler",
]

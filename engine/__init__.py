"""Training and evaluation loops, checkpoints and logs; knows no system by name."""

from engine.evaluation import evaluate
from engine.faults import FaultLog
from engine.folder import remove_run
from engine.names import Names
from engine.snapshot import Position, Snapshots
from engine.training import Settings, Stage, Trainer, Validation, fit

__all__ = [
    "FaultLog",
    "Names",
    "Position",
    "Settings",
    "Snapshots",
    "Stage",
    "Trainer",
    "Validation",
    "evaluate",
    "fit",
    "remove_run",
]

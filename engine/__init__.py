"""Training and evaluation loops, checkpoints and logs; knows no system by name."""

from engine.evaluation import evaluate
from engine.faults import FaultLog
from engine.snapshot import Position, Snapshots
from engine.training import Settings, Stage, Trainer, Validation, fit

__all__ = [
    "FaultLog",
    "Position",
    "Settings",
    "Snapshots",
    "Stage",
    "Trainer",
    "Validation",
    "evaluate",
    "fit",
]

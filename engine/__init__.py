"""Training and evaluation loops, checkpoints and logs; knows no system by name."""

from engine.evaluation import evaluate
from engine.snapshot import Position, Snapshots
from engine.training import Settings, Stage, Trainer, Validation, fit

__all__ = ["Position", "Settings", "Snapshots", "Stage", "Trainer", "Validation", "evaluate", "fit"]

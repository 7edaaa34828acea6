"""Whether what a phrase means is in the image at all: a probability calibrated for one checkpoint,
kept beside it."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

from groundwork.files.foreign import parse_json, read_text
from groundwork.files.safe import write_text
from groundwork.jobs.evaluation import content_hash
from groundwork.jobs.pretrained import PRESENT, WEIGHTS
from groundwork.metrics.calibration import Platt
from groundwork.models.common.checks import require, require_rate
from groundwork.settings.parsing import from_mapping, to_dict

TOOL = "python -m tools.calibrate"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How well phrases that mean something in an image were told from those that do not.

    data: benchmark and split. with_target, without_target: how many phrases of each kind.
    wrong_images: how many of the latter were made: phrases of other images. seed: what drew them.
    auc: area under the ROC curve. ece_before, ece_after: expected calibration error of the
    evidence read as log odds, and of the calibrated probability. accuracy, balanced_accuracy: at
    the threshold; interval: 95 % of the accuracy, over images. All in [0, 1].
    """

    data: str
    with_target: int
    without_target: int
    wrong_images: int
    seed: int
    auc: float
    ece_before: float
    ece_after: float
    accuracy: float
    interval: tuple[float, ...]
    balanced_accuracy: float

    def __post_init__(self) -> None:
        require(len(self.interval) == 2, "interval has a lower and an upper end")

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.data}: {self.phrases}\n"
            f"  AUC {self.auc:.3f}, ECE {self.ece_before:.3f} before and {self.ece_after:.3f} after"
            f" calibration, accuracy {self.accuracy:.1%} ({low:.1%} to {high:.1%}),"
            f" balanced {self.balanced_accuracy:.1%}"
        )

    @property
    def phrases(self) -> str:
        """How many of which kind, in words."""
        made = f" ({self.wrong_images:,} are phrases of other images, seed {self.seed})"
        return (
            f"{self.with_target:,} phrases with target, {self.without_target:,} without"
            f"{made if self.wrong_images else ''}"
        )


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A line that makes the evidence of one checkpoint a probability, and what is known of it.

    weights: SHA-256 of the file of its weights. evidence: what is calibrated, the system's
    `ModelSettings.evidence`. slope, intercept: the log odds that it is there are slope * evidence +
    intercept. threshold: of the probability; rule: how it was found. fitted: on what, and how well
    it fits there; held_out: how well it does on other data.
    """

    weights: str
    evidence: str
    slope: float
    intercept: float
    threshold: float
    rule: str
    fitted: Measured
    held_out: tuple[Measured, ...] = ()

    def __post_init__(self) -> None:
        require(
            math.isfinite(self.slope) and math.isfinite(self.intercept),
            "slope and intercept must be finite",
        )
        require_rate("threshold", self.threshold)

    @property
    def line(self) -> Platt:
        """What makes evidence a probability."""
        return Platt(self.slope, self.intercept)

    def __str__(self) -> str:
        sign = "-" if self.intercept < 0 else "+"
        line = f"{self.slope:.4g} * {self.evidence} {sign} {abs(self.intercept):.4g}"
        return "\n".join(
            [
                f"present = sigmoid({line})",
                f"threshold {self.threshold:.3f}: {self.rule}",
                f"fitted on {self.fitted}",
                *(f"held out, {one}" for one in self.held_out),
            ]
        )


def file_of(checkpoint: Path) -> Path:
    """Where the calibration of a checkpoint is: NAME.present.json beside NAME.pth, present.json in
    a saved folder."""
    return checkpoint / PRESENT if checkpoint.is_dir() else checkpoint.with_suffix(f".{PRESENT}")


def weights_hash(checkpoint: Path) -> str:
    """SHA-256 of the file, or of the weights in a saved folder."""
    return content_hash(checkpoint / WEIGHTS if checkpoint.is_dir() else checkpoint)


def beside(checkpoint: Path, evidence: str | None) -> Calibration | None:
    """The calibration of a checkpoint, if there is one.

    Args:
        evidence: what the system gives as it was configured.

    Raises:
        ValueError: it is damaged, or of other weights, or of other evidence.
    """
    file = file_of(checkpoint)
    if not file.is_file():
        return None
    remedy = f"delete it, or make it anew ({TOOL})"
    content = parse_json(read_text(file), str(file), remedy)
    found = from_mapping(Calibration, content, str(file))
    if found.weights != weights_hash(checkpoint):
        raise ValueError(f"{file} calibrates other weights than those of {checkpoint}; {remedy}")
    if found.evidence != evidence:
        raise ValueError(
            f"{file} calibrates the evidence {found.evidence!r}, and {checkpoint} as it is"
            f" configured gives {evidence!r}; configure it as before, or {remedy}"
        )
    return found


def write(calibration: Calibration, checkpoint: Path) -> Path:
    """To where `beside` finds it."""
    file = file_of(checkpoint)
    write_text(file, json.dumps(to_dict(calibration), indent=2, ensure_ascii=False) + "\n")
    return file


def keep(calibration: Calibration | None, folder: Path) -> None:
    """With the same weights in a saved folder; none there where there is none."""
    if calibration is None:
        file_of(folder).unlink(missing_ok=True)
    else:
        write(replace(calibration, weights=weights_hash(folder)), folder)

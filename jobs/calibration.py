"""Fitting the probability that what a phrase means is in an image: the job behind tools.calibrate.

Every phrase is asked as `Grounder.ground` asks it, so that what is calibrated is what it gives.
"""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from groundwork.dataset.absent import Asked, annotated, of_wrong_images
from groundwork.dataset.images import CorruptImageError, ImagePlace
from groundwork.jobs.forms import FORMS
from groundwork.jobs.grounder import Grounder
from groundwork.jobs.presence import Calibration, Measured
from groundwork.metrics import bootstrap_interval
from groundwork.metrics.calibration import (
    Platt,
    area_under_roc,
    balanced_accuracy,
    best_threshold,
    calibration_error,
    fit_platt,
    reliability,
)
from groundwork.models import SYSTEMS
from groundwork.settings import RunConfig

logger = logging.getLogger("groundwork")
RULE = "best balanced accuracy on what it was fitted on"
_NAMED = 5


@dataclass(frozen=True)
class Sample:
    """Phrases of a split. wrong_images: how many of them were made of those of other images; seed:
    what drew them."""

    data: str
    asked: Sequence[Asked]
    wrong_images: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        there = sum(one.there for one in self.asked)
        if not there or there == len(self.asked):
            lacking = "without" if there else "with"
            made = "; --wrong-images makes some of those of other images" if there else ""
            raise ValueError(f"{self.data}: there is no phrase {lacking} target{made}")


@dataclass(frozen=True)
class Answers:
    """The evidence of a sample's phrases (n,), whether they have a target (n,), their images."""

    sample: Sample
    evidence: np.ndarray
    there: np.ndarray
    images: Sequence[ImagePlace]


def sample_of(config: RunConfig, split: str, *, wrong_images: bool, seed: int) -> Sample:
    """The phrases of one of the splits that a configuration evaluates.

    Args:
        wrong_images: each that has a target is asked of another image, too. seed: of the draw.

    Raises:
        ValueError: no such split, or phrases of one kind only.
    """
    if split not in config.evaluated_splits:
        raise ValueError(
            f"split {split!r}: the configuration evaluates"
            f" {', '.join(config.evaluated_splits) or 'none'}"
        )
    form = FORMS[SYSTEMS[config.system].samples]
    asked = annotated(form.records(config, [split]))
    made = of_wrong_images(asked, seed) if wrong_images else []
    name = f"{config.benchmark or 'own'} {split}"
    return Sample(name, [*asked, *made], wrong_images=len(made), seed=seed)


def answers_of(grounder: Grounder, sample: Sample) -> Answers:
    """Ask them all, image by image; images that cannot be read are named and left out.

    Raises:
        ValueError: the system has no evidence.
    """
    if grounder.evidence is None:
        raise ValueError(
            f"{grounder.about.title} gives one box for every phrase and no number that says whether"
            " it is there, so that there is nothing to calibrate"
        )
    by_image: dict[ImagePlace, list[Asked]] = defaultdict(list)
    for one in sample.asked:
        by_image[one.image].append(one)
    read: list[Asked] = []
    evidence: list[float] = []
    corrupt: list[str] = []
    for image, phrases in tqdm(by_image.items(), desc=sample.data, unit="image", mininterval=1.0):
        try:
            found = grounder.ground(image, [one.phrase for one in phrases])
        except CorruptImageError as error:
            corrupt.append(str(error))
            continue
        read += phrases
        evidence += [one.evidence for one in found if one.evidence is not None]
    if corrupt:
        named = "\n".join(corrupt[:_NAMED])
        logger.warning("%d images cannot be read and are left out:\n%s", len(corrupt), named)
    there = np.array([one.there for one in read], dtype=bool)
    return Answers(sample, np.array(evidence), there, [one.image for one in read])


def fit(answers: Answers, *, weights: str, evidence: str) -> Calibration:
    """The calibration of these answers, with the threshold of the best balanced accuracy.

    Raises:
        ValueError: the evidence does not tell phrases with target from those without.
    """
    try:
        line = fit_platt(answers.evidence, answers.there)
    except ValueError as error:
        raise ValueError(f"{answers.sample.data}: {evidence}: {error}") from error
    threshold = best_threshold(line.probabilities(answers.evidence), answers.there)
    return Calibration(
        weights=weights,
        evidence=evidence,
        slope=line.slope,
        intercept=line.intercept,
        threshold=threshold,
        rule=RULE,
        fitted=measure(answers, line, threshold),
    )


def measure(answers: Answers, line: Platt, threshold: float) -> Measured:
    """How well a calibration does on some answers."""
    there, sample = answers.there, answers.sample
    probabilities = line.probabilities(answers.evidence)
    right = (probabilities >= threshold) == there
    groups = [str(image) for image in answers.images]
    raw = Platt(1.0, 0.0).probabilities(answers.evidence)
    return Measured(
        data=sample.data,
        with_target=int(there.sum()),
        without_target=int((~there).sum()),
        wrong_images=sample.wrong_images,
        seed=sample.seed,
        auc=area_under_roc(answers.evidence, there),
        ece_before=calibration_error(reliability(raw, there)),
        ece_after=calibration_error(reliability(probabilities, there)),
        accuracy=float(right.mean()),
        interval=bootstrap_interval(right, groups=groups, seed=sample.seed),
        balanced_accuracy=balanced_accuracy(probabilities, there, threshold),
    )


def with_held_out(calibration: Calibration, answers: Sequence[Answers]) -> Calibration:
    """With what it measures on other data."""
    line, threshold = calibration.line, calibration.threshold
    return replace(calibration, held_out=tuple(measure(one, line, threshold) for one in answers))

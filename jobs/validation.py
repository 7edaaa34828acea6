"""The evaluation within a training that chooses its best checkpoints."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from groundwork import engine
from groundwork.jobs.evaluate import metric_values, predict, require_splits
from groundwork.jobs.forms import FORMS
from groundwork.jobs.samples import Evaluation
from groundwork.jobs.tokenizers import Tokenizer
from groundwork.models import SYSTEMS
from groundwork.models.common.system import Parts
from groundwork.report.predictions import Prediction, Run
from groundwork.report.results import metrics_of
from groundwork.settings import RunConfig

logger = logging.getLogger("groundwork")
_BOX = (0.0, 0.0, 1.0, 1.0)


def build_validation(
    config: RunConfig,
    parts: Parts,
    tokenizer: Tokenizer,
    device: torch.device,
    *,
    output_dir: Path,
    source: str,
) -> engine.Validation | None:
    """The evaluation that chooses the best checkpoints; None if the configuration wants none.

    Args:
        source: the file of the configuration.

    Raises:
        ValueError: select names what this system does not give on these splits.
    """
    select = config.select
    if select is None:
        return None
    require_splits(config, select.splits, source)
    form = FORMS[SYSTEMS[config.system].samples]
    evaluation = form.evaluation(config, select.splits, tokenizer)
    about = form.describe(config, None, select.splits)
    faults = engine.FaultLog(output_dir / "validation")
    parts.evaluated.to(device)
    metrics = {"metric": select.metric, "mask_metric": select.mask_metric}
    wanted = {key: name for key, name in metrics.items() if name is not None}

    def require_measured(names: Sequence[str]) -> None:
        for key, name in wanted.items():
            if name not in names:
                raise ValueError(
                    f"{source}: select: {name!r} is not measured on {', '.join(select.splits)};"
                    f" set select.{key} to one of {', '.join(names)}"
                )

    parts.evaluated.eval()
    if first := first_predictions(config, parts, evaluation, device):
        require_measured(measurable(about, first))

    def validate(epochs: int, preemption: engine.Preemption) -> dict[str, float] | None:
        if not select.due(epochs, config.epochs):
            return None
        predictions, remarks = predict(
            config, parts, evaluation, device, until=preemption.until_told
        )
        faults.add(remarks.faults)
        faults.write()
        values = metric_values(about, predictions)
        require_measured(list(values))
        for metric in select.best.values():
            logger.info("after epoch %d: %s %.2f", epochs, metric, values[metric])
        return values

    return engine.Validation(run=validate, best=select.best)


def first_predictions(
    config: RunConfig, parts: Parts, evaluation: Evaluation, device: torch.device
) -> list[Prediction]:
    """Those of this process's first batch that has an image, by weights that learnt nothing yet."""
    batches = engine.evaluate(
        parts.evaluated,
        parts.postprocess,
        evaluation.loader,
        device=device,
        precision=config.precision,
    )
    usable = ((batch, found) for batch, found in batches if found)
    return [
        evaluation.prediction(batch, row, grounding)
        for batch, found in islice(usable, 1)
        for row, grounding in enumerate(found)
    ]


def measurable(about: Run, predictions: Sequence[Prediction]) -> list[str]:
    """The metrics that predictions of this kind can have, whatever was found so far and whatever
    the truth of the others is: one object, several of them, none; with a mask or without."""
    names: dict[str, None] = {}
    for objects in (1, 2, 0):
        like = [
            replace(one, boxes=(_BOX,) * objects, box=_BOX, true_mask=one.true_mask or one.mask)
            for one in predictions
        ]
        found = metrics_of(about, like).items()
        names |= {name: None for name, metric in found if any(map(metric.given, like))}
    return list(names)

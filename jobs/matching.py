"""Does a model know which phrase belongs to which image? Reported beside the pointing game."""

from pathlib import Path

import numpy as np

from groundwork import utils
from groundwork.engine.training import to_device
from groundwork.jobs.forms import FORMS
from groundwork.jobs.tokenizers import load_texts
from groundwork.metrics import accuracy_rows
from groundwork.models import SYSTEMS
from groundwork.report.results import Row
from groundwork.settings import load_config


def matching_rows(
    config_file: str, file: Path, overrides: list[str], device: str | None = None
) -> list[Row]:
    """How often a phrase matches its own image better than another, as rows of results.json.

    Every phrase is scored with its own image and with the next one of its batch; guessing gives
    50 %. A phrase may be true of the other image as well, so short ones cannot reach 100 %.

    Args:
        config_file, overrides: the evaluation whose phrases and images are used.
        file: the checkpoint. device: as for `utils.choose_device`.
    """
    config = load_config(
        config_file, [*overrides, "batch_size=64", "data.workers=0"], purpose="evaluation"
    )
    splits_of = config.evaluated_splits
    chosen = utils.choose_device(device)
    system, tokenizer = SYSTEMS[config.system], load_texts(config, file)
    parts = system.build(config.model, tokenizer, training=False)
    system.load(parts.model, file)
    explainer = parts.evaluated.to(chosen).eval()
    form = FORMS[system.samples]
    evaluation = form.evaluation(config, splits_of, tokenizer)
    correct: list[float] = []
    splits: list[str] = []
    images: list[str] = []
    for batch in evaluation.loader:
        if len(batch["image"]) < 2:
            continue  # a last batch of one image has no other to be confused with
        moved = to_device(batch, chosen)
        own = explainer(moved)["score"]
        other = explainer(moved | {"image": moved["image"].roll(1, 0)})["score"]
        correct += (own > other).float().tolist()
        for sample in batch["sample_index"]:
            splits += [record.split for record, _ in evaluation.expressions(sample)]
        images += [batch["image_path"][i] for i in batch["phrase_image"].tolist()]
    about = form.describe(config, file, splits_of)
    keys = {
        "system": about.system,
        "objective": about.objective,
        "checkpoint": about.checkpoint,
        "benchmark": about.benchmark,
        "metric": "matching",
        "derived": False,
        "note": "chance: 50",
    }
    groups = np.unique(images, return_inverse=True)[1].tolist()
    return accuracy_rows(correct, splits, keys=keys, groups=groups, seed=config.seed)

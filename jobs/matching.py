"""Does a model know which phrase belongs to which image? Reported beside the pointing game."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from groundwork import utils
from groundwork.dataset.loader import make_eval_loader
from groundwork.dataset.text import load_tokenizer
from groundwork.engine.training import to_device
from groundwork.jobs.grounding import build_dataset, describe
from groundwork.metrics import accuracy_rows
from groundwork.models.albef import checkpoint
from groundwork.models.albef.build import build_grounding
from groundwork.settings import load_config


def matching_rows(
    config_file: str, file: Path, overrides: list[str], device: str | None = None
) -> list[dict]:
    """How often a phrase matches its own image better than another, as rows of results.json.

    Every phrase is scored with its own image and with the next one of its batch; guessing gives
    50 %. A phrase may be true of the other image as well, so short ones cannot reach 100 %.

    Args:
        config_file, overrides: the evaluation whose phrases and images are used.
        file: the checkpoint. device: as for `utils.choose_device`.
    """
    config = load_config(config_file, "grounding", [*overrides, "batch_size=64"])
    chosen = utils.choose_device(device)
    explainer, _ = build_grounding(config)
    checkpoint.load(explainer.model, file)
    explainer.to(chosen)
    dataset = build_dataset(config)
    loader = make_eval_loader(
        dataset, load_tokenizer(config.data.text_encoder), config.batch_size, workers=0
    )
    correct: list[float] = []
    splits: list[str] = []
    images: list[str] = []
    for batch in loader:
        if len(batch["image"]) < 2:
            continue  # a last batch of one image has no other to be confused with
        moved = to_device(batch, chosen)
        own = explainer(moved)["score"]
        other = explainer(moved | {"image": moved["image"].roll(1, 0)})["score"]
        correct += (own > other).float().tolist()
        splits += batch["splits"]
        images += [batch["image_path"][i] for i in batch["phrase_image"].tolist()]
    about = describe(config, file)
    keys = {
        "system": about.system,
        "objective": about.objective,
        "checkpoint": about.checkpoint,
        "benchmark": config.benchmark,
        "metric": "matching",
        "derived": False,
        "note": "chance: 50",
    }
    groups = np.unique(images, return_inverse=True)[1].tolist()
    return accuracy_rows(correct, splits, keys=keys, groups=groups, seed=config.seed)

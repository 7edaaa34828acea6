"""Tiny checkpoints of every system as a training run leaves them, without the training."""

from pathlib import Path

import pytest
import torch

from groundwork.jobs import evaluate
from groundwork.jobs.tokenizers import beside_weights, load_texts
from groundwork.models import SYSTEMS
from groundwork.report.prediction_files import predictions_files, read_predictions
from groundwork.report.predictions import Prediction, Run
from groundwork.settings import load_config, to_dict
from tests.helpers.script_runs import CONFIGS

# What is in the table -> (configuration of its training, of its evaluation, more settings).
_REFTR, _MASKS = "tiny/reftr/refcoco+", "tiny/reftr/refcoco+_res"
KINDS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "albef": ("tiny/Pretrain_vg_amc", "tiny/Grounding_refcoco", ()),
    "reftr": (_REFTR, _REFTR, ()),
    "reftr_masks": (_MASKS, _MASKS, ()),
    "refclip": ("tiny/refclip/refcoco+", "tiny/refclip/refcoco+", ("model.cache=null",)),
    "simrec": ("tiny/simrec/refcoco+", "tiny/simrec/refcoco+", ()),
    "alvg": ("tiny/alvg/refcoco+_res", "tiny/alvg/refcoco+_res", ()),
    "alvg_several": ("tiny/alvg/grefcoco", "tiny/alvg/grefcoco", ()),
}

# In half precision what is found depends on what else is in a batch.
SINGLE = "precision=fp32"


def write_checkpoint(kind: str, file: Path) -> Path:
    """A file of weights with which what is found depends on the words. The working directory is the
    one that the shipped configurations expect."""
    config_name, _, settings = KINDS[kind]
    config = load_config(CONFIGS / f"{config_name}.yaml", [SINGLE, *settings])
    system, texts = SYSTEMS[config.system], load_texts(config)
    torch.manual_seed(0)
    model = system.build(config.model, texts).model
    with torch.no_grad():
        for parameter in model.parameters():
            wide = parameter[0].numel() if parameter.ndim > 1 else 100
            parameter.add_(torch.randn_like(parameter), alpha=wide**-0.5)
    content = {"model": system.published_state(model), "config": to_dict(config)}
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content | {**system.beside, **beside_weights(texts)}, file)
    return file


def write_checkpoints(workplace: Path, folder: Path) -> dict[str, Path]:
    """kind -> a file of it in `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        return {kind: write_checkpoint(kind, folder / kind / "own.pth") for kind in KINDS}


def evaluated(kind: str, checkpoint: Path, out: Path) -> tuple[Run, list[Prediction]]:
    """What test.py predicts with it, image by image: padding that images of a batch get for others'
    sake shines through RefTR's convolutions, in any implementation."""
    _, config, settings = KINDS[kind]
    evaluate.main(
        ["--config", str(CONFIGS / f"{config}.yaml"), "--checkpoint", str(checkpoint),
         "--output_dir", str(out), "--device", "cpu", "--set", "data.workers=0",
         "eval_batch_size=1", SINGLE, *settings]
    )  # fmt: skip
    return read_predictions(predictions_files(out)[0])

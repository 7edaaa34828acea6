"""The names that the released AMC and SelfEQ training gives to its files and to what is in them."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from groundwork.engine import Names
from groundwork.models.albef import checkpoint
from groundwork.settings import RunConfig, StageConfig

_LOSSES = {
    "loss_mlm": "loss_mlm",
    "loss_ita": "loss_ita",
    "loss_itm": "loss_itm",
    "loss_amc_mean": "loss_cam1",
    "loss_amc_max": "loss_cam2",
    "loss_syn_mlm": "loss_syn_mlm",
    "loss_syn_ita": "loss_syn_ita",
    "loss_syn_itm": "loss_syn_itm",
    "loss_sim_syn": "loss_sim_syn",
    "loss_cst_syn": "loss_cst_syn",
}
"""Our name of a loss -> that in the released log."""


def names_of(config: RunConfig, stage: StageConfig) -> Names:
    """What the stage calls its files: as released with `released_files`, else as any run."""
    if not config.released_files:
        return Names()
    if "selfeq" not in stage.objective:
        return Names(epoch_line=partial(epoch_line, "train_"))
    return Names(
        checkpoint="checkpoint_relation_{:02d}.pth",
        optimizer=checkpoint.RELATION_OPTIMIZER,
        schedule=checkpoint.RELATION_SCHEDULE,
        epoch_line=partial(epoch_line, "relation_"),
    )


def epoch_line(prefix: str, epoch: int, means: Mapping[str, float]) -> dict[str, Any]:
    """The released line about an epoch: its means as texts under prefixed names."""
    known = {"lr": "lr", **_LOSSES}
    texts = {f"{prefix}{known[n]}": f"{v:.6g}" for n, v in means.items() if n in known}
    return {**texts, "epoch": epoch}

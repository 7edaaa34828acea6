"""A checkpoint of RefCLIP or SimREC as their released scripts write it, for use with those.

    python -m tools.export_refclip runs/refclip/checkpoint_best.pth --out det_best.pth

The file holds {epoch, state_dict, optimizer, scheduler, lr}. The released scripts load all of it,
in an evaluation, too. The state dict is the running mean of the weights, as there. The optimiser
has one group of as many tensors as theirs and no moments, which belong to other weights than the
mean: a training that is resumed there gathers new ones. The scheduler stands where the run stood.
"""

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from groundwork.engine.snapshot import Position
from groundwork.files.safe import atomic_write
from groundwork.jobs import run_script
from groundwork.models.common.checkpoint import CheckpointError, read_checkpoint, recognise
from groundwork.models.simrec.config import SimrecModelConfig
from groundwork.scheduler import learning_rate
from groundwork.settings import RunConfig
from groundwork.settings.load import config_of

_WORDS = "lang_encoder.embedding.weight"
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def main(argv: Sequence[str] | None = None) -> Path:
    """Write the file; returns its path.

    Raises:
        FileNotFoundError, CheckpointError: no checkpoint, or one of another system.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="of RefCLIP or SimREC, trained here")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    args = parser.parse_args(argv)
    content = read_checkpoint(args.checkpoint)
    if recognise(content["model"]) not in ("RefCLIP", "SimREC") or "run" not in content:
        raise CheckpointError(
            f"{args.checkpoint}: is no checkpoint of RefCLIP or SimREC that was trained here"
        )
    released = released_content(content, str(args.checkpoint))
    with atomic_write(args.out) as partial:
        torch.save(released, partial)
    print(
        f"{args.out}: {len(released['state_dict'])} tensors after "
        f"{content['run']['position']['epoch']} epochs; the vocabulary of its "
        f"{len(content['vocabulary'])} words is that of the annotation file it was trained with"
    )
    return args.out


def released_content(content: dict[str, Any], source: str) -> dict[str, Any]:
    """What a released file holds, of a checkpoint of ours.

    Args:
        source: its name, for messages.

    Raises:
        CheckpointError: the checkpoint is of the middle of an epoch.
    """
    config = config_of(content["config"], source)
    position = Position(**content["run"]["position"])
    if position.step:
        raise CheckpointError(
            f"{source}: was written within an epoch, which the released scripts do not know; take "
            "one of the end of an epoch"
        )
    simrec = isinstance(config.model, SimrecModelConfig)
    frozen = frozen_layers(config.model.backbone.train_from) if simrec else ("visual_encoder.",)
    count = len(optimised(content["model"], frozen))
    rate = next_rate(config, position)
    return {
        # RefCLIP counts finished epochs, SimREC names the last one, from 0.
        "epoch": position.epoch - 1 if simrec else position.epoch,
        "state_dict": content["model"],
        "optimizer": adam_state(config, rate, count),
        "scheduler": scheduler_state(config, rate, position.global_step),
        "lr": rate,
    }


def frozen_layers(train_from: int) -> tuple[str, ...]:
    """Prefixes of the layers of SimREC's backbone that are not trained."""
    return tuple(f"visual_encoder.model.{layer}." for layer in range(train_from))


def optimised(names: Collection[str], frozen: tuple[str, ...]) -> list[str]:
    """What the released optimisers hold of a state dict: all weights and biases, those that no loss
    reaches included, but the word vectors and the `frozen` layers (prefixes)."""
    return [
        name
        for name in names
        if not (name == _WORDS or name.startswith(frozen) or name.endswith(_STATISTICS))
    ]


def next_rate(config: RunConfig, position: Position) -> float:
    """The rate of the step after a position, which their scheduler has set already."""
    steps, per_epoch = position.global_step, position.global_step // position.epoch
    return learning_rate(config.schedule, config.optimizer, 0, steps, per_epoch)


def adam_state(config: RunConfig, rate: float, count: int) -> dict[str, Any]:
    """The state of torch.optim.Adam over `count` tensors before its first step."""
    group = {
        "lr": rate,
        "initial_lr": config.optimizer.lr,
        "betas": tuple(config.optimizer.betas),
        "eps": config.optimizer.eps,
        "weight_decay": 0,
        "amsgrad": False,
        "params": list(range(count)),
    }
    return {"state": {}, "param_groups": [group]}


def scheduler_state(config: RunConfig, rate: float, steps: int) -> dict[str, Any]:
    """The state of torch's LambdaLR after so many steps."""
    return {
        "base_lrs": [config.optimizer.lr],
        "last_epoch": steps,
        "_step_count": steps + 1,
        "_last_lr": [rate],
        "_get_lr_called_within_step": False,
        "lr_lambdas": [None],
    }


if __name__ == "__main__":
    run_script(main)

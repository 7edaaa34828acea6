"""A checkpoint of RefCLIP or SimREC as their released scripts write it, for use with those.

    python -m tools.export_refclip runs/refclip/checkpoint_best.pth --out det_best.pth

The file holds {epoch, state_dict, optimizer, scheduler, lr}. The state dict is the running mean of
the weights, as there. Resuming a training there starts a fresh optimiser: ours groups its
parameters otherwise.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

import utils
from cli import run_script
from models.common.checkpoint import CheckpointError, read_checkpoint, recognise


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
    rates = [group["lr"] for group in content["optimizer"]["param_groups"]]
    released = {
        "epoch": content["epoch"] + 1,  # counted from 1 there
        "state_dict": content["model"],
        "optimizer": {"state": {}, "param_groups": []},
        "scheduler": {"last_epoch": content["run"]["position"]["global_step"]},
        "lr": rates[0],
    }
    with utils.atomic_write(args.out) as partial:
        torch.save(released, partial)
    print(f"{args.out}: {len(released['state_dict'])} tensors after epoch {released['epoch']}")
    return args.out


if __name__ == "__main__":
    run_script(main)

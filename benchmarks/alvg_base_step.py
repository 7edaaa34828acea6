"""What ALVG costs at its published size: seconds and memory of a forward and of a training step.

    python -m benchmarks.alvg_base_step
    python -m benchmarks.alvg_base_step --device cuda --precision bf16 --batch 32

Random weights, pictures, texts, boxes and masks; network, losses and optimiser of the recipe
(`--config`), whose attention losses are on. The first step is not timed: it allocates. Peak memory
is that of the whole process on the CPU, of torch's tensors on a GPU, in GiB.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import utils
from cli import run_script
from configs import ReferringConfig, load_config
from engine.precision import DTYPES, computing
from engine.training import TrainingStep, to_device
from models.alvg.build import build_criterion, build_model
from optim import create_rated_optimizer

GIB = 2**30


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/alvg/refcoco.yaml")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=DTYPES, default="fp32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3, help="timed ones")
    parser.add_argument("--out", type=Path, default=Path("runs/alvg_base_step"))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of the config")
    return parser.parse_args(argv)


def random_batch(config: ReferringConfig, size: int) -> dict[str, object]:
    """Samples of one target each, as `ReferringCollate` makes them."""
    side, length = config.data.image_size, config.data.max_tokens
    inside = torch.zeros(size, side, side, dtype=torch.bool)
    inside[:, side // 4 : side // 2, side // 3 : side // 2] = True
    x, y, w, h = 5 / 12, 3 / 8, 1 / 6, 1 / 4
    return {
        "image": torch.randn(size, 3, side, side),
        "image_mask": torch.zeros(size, side, side, dtype=torch.bool),
        "text_ids": torch.randint(4, config.model.encoder.vocab_size, (size, length)),
        "text_mask": torch.ones(size, length, dtype=torch.int64),
        "target_boxes": [torch.tensor([[x, y, w, h]])] * size,
        "target_mask": inside,
    }


def seconds(run: Callable[[], object], device: torch.device, times: int) -> float:
    """Mean time of `times` calls after one that is not counted."""
    run()
    wait(device)
    began = time.perf_counter()
    for _ in range(times):
        run()
    wait(device)
    return (time.perf_counter() - began) / times


def wait(device: torch.device) -> None:
    """Until a GPU has done all that it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> float:
    """In GiB, see above."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def measure(config: ReferringConfig, args: argparse.Namespace) -> dict[str, object]:
    """One row."""
    device = torch.device(args.device)
    torch.manual_seed(config.seed)
    model = build_model(config.model).to(device).train()
    module = TrainingStep(model, build_criterion(config.model)).to(device)
    optimizer = create_rated_optimizer(config.optimizer, model)
    batch = to_device(random_batch(config, args.batch), device)

    def forward() -> dict[str, Tensor]:
        with torch.no_grad(), computing(device, args.precision):
            return model(batch)

    def train() -> float:
        with computing(device, args.precision):
            total, _ = module(batch)
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm or float("inf"))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total.item()

    row: dict[str, object] = {
        "config": args.config,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "precision": args.precision,
        "batch": args.batch,
        "pixels": config.data.image_size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "forward_seconds": round(seconds(forward, device, args.steps), 3),
        "forward_gib": round(peak_memory(device), 2),
        "step_seconds": round(seconds(train, device, args.steps), 3),
        "step_gib": round(peak_memory(device), 2),
        "loss": round(train(), 4),
    }
    return row


def main(argv: Sequence[str] | None = None) -> dict[str, object]:
    """Run with command line arguments `argv`; returns the row, which is also written and shown."""
    args = parse_args(argv)
    row = measure(load_config(args.config, "referring", args.set), args)
    args.out.mkdir(parents=True, exist_ok=True)
    name = f"{args.device}_{args.precision}_{args.batch}.json".replace(":", "")
    with utils.atomic_write(args.out / name) as partial:
        partial.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    print("\n".join(f"{key:16} {value}" for key, value in row.items()))
    return row


if __name__ == "__main__":
    run_script(main)

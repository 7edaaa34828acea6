"""What a recipe costs at its published size: seconds and memory of a forward and a training step.

    python -m experiments.base_step
    python -m experiments.base_step --device cuda --precision bf16 --batch 32
    python -m experiments.base_step --config configs/Pretrain_vg_amc.yaml --device cuda --batch 64

Takes a recipe of ALVG or of ALBEF (its first stage). Random weights, images, texts, boxes and
masks; network, losses and optimiser of the recipe (`--config`). The forward is that of the
evaluation: for ALBEF, one heat map per image. The first step is not timed: it allocates. Peak
memory is that of the whole process on the CPU, of torch's tensors on a GPU, in GiB.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from groundwork.dataset.text import load_tokenizer
from groundwork.engine.precision import DTYPES, computing
from groundwork.engine.training import TrainingStep, to_device
from groundwork.files.safe import write_text
from groundwork.jobs import run_script
from groundwork.models import SYSTEMS
from groundwork.models.alvg.model import PAD
from groundwork.optim import create_optimizer
from groundwork.settings import RunConfig, load_config

GIB = 2**30
WORDS = 12  # tokens of ALBEF's phrases, [CLS] and [SEP] included: about the longest of a batch


@dataclass(frozen=True)
class Subject:
    """What is measured: a network in training, one forward of its evaluation, and one batch."""

    module: TrainingStep
    optimizer: Optimizer
    forward: Callable[[dict], dict[str, Tensor]]
    batch: dict[str, object]
    pixels: int
    clip_norm: float | None


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/alvg/refcoco.yaml")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=DTYPES, default="fp32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3, help="timed ones")
    parser.add_argument("--out", type=Path, default=Path("runs/base_step"))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of the config")
    return parser.parse_args(argv)


def subject(args: argparse.Namespace, device: torch.device) -> Subject:
    """Of the recipe that the arguments name, on `device`."""
    config = load_config(Path(args.config), args.set)
    torch.manual_seed(config.seed)
    if config.system == "albef":
        tokenizer: object = load_tokenizer(config.data.text_encoder)
        batch, pixels = albef_batch(config, args.batch), config.model.image_size
    else:
        tokenizer, batch = AnyPieces(), alvg_batch(config, args.batch)
        pixels = config.data.image_size
    objectives = [stage.objective for stage in config.stages]
    parts = SYSTEMS[config.system].build(config.model, tokenizer, objectives)
    model = parts.model.to(device).train()
    optimizer = create_optimizer(config.optimizer, model)
    phrase_image = torch.arange(args.batch, device=device)
    return Subject(
        module=TrainingStep(model, parts.criteria[0]).to(device),
        optimizer=optimizer,
        forward=torch.no_grad()(
            lambda batch: parts.evaluated(batch | {"phrase_image": phrase_image})
        ),
        batch=to_device(batch, device),
        pixels=pixels,
        clip_norm=config.clip_norm,
    )


class AnyPieces:
    """A tokeniser of which only the sizes are asked."""

    pad_token_id = PAD

    def __len__(self) -> int:
        return 0


def alvg_batch(config: RunConfig, size: int) -> dict[str, object]:
    """Samples of one target each, as `ReferringCollate` makes them."""
    side, length = config.data.image_size, config.data.max_tokens
    x, y, w, h = 5 / 12, 3 / 8, 1 / 6, 1 / 4
    return {
        "image": torch.randn(size, 3, side, side),
        "image_mask": torch.zeros(size, side, side, dtype=torch.bool),
        "text_ids": torch.randint(4, config.model.encoder.vocab_size, (size, length)),
        "text_mask": torch.ones(size, length, dtype=torch.int64),
        "target_boxes": [torch.tensor([[x, y, w, h]])] * size,
        "target_mask": middle(size, side).bool(),
    }


def albef_batch(config: RunConfig, size: int) -> dict[str, object]:
    """Samples with one region each and no paraphrase, as `TrainCollate` makes them."""
    side, mask_side = config.model.image_size, config.data.mask_size
    nothing = torch.zeros(0, 1, dtype=torch.int64)
    return {
        "image": torch.randn(size, 3, side, side),
        "text_ids": torch.randint(config.model.text.vocab_size, (size, WORDS)),
        "text_mask": torch.ones(size, WORDS, dtype=torch.int64),
        "paraphrase_index": nothing[:, 0],
        "paraphrase_ids": nothing,
        "paraphrase_mask": nothing,
        "region_index": torch.arange(size),
        "region_mask": middle(size, mask_side),
    }


def middle(size: int, side: int) -> Tensor:
    """(size, side, side) float32: 1 in a rectangle about the middle."""
    mask = torch.zeros(size, side, side)
    mask[:, side // 4 : side // 2, side // 3 : side // 2] = 1
    return mask


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


def measure(args: argparse.Namespace) -> dict[str, object]:
    """One row."""
    device = torch.device(args.device)
    measured = subject(args, device)
    model, batch = measured.module.model, measured.batch

    def forward() -> dict[str, Tensor]:
        with computing(device, args.precision):
            return measured.forward(batch)

    def train() -> float:
        with computing(device, args.precision):
            total, _ = measured.module(batch)
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), measured.clip_norm or float("inf"))
        measured.optimizer.step()
        measured.optimizer.zero_grad(set_to_none=True)
        return total.item()

    row: dict[str, object] = {
        "config": args.config,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "precision": args.precision,
        "batch": args.batch,
        "pixels": measured.pixels,
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "forward_seconds": round(seconds(forward, device, args.steps), 4),
        "forward_gib": round(peak_memory(device), 2),
        "step_seconds": round(seconds(train, device, args.steps), 4),
        "step_gib": round(peak_memory(device), 2),
        "loss": round(train(), 4),
    }
    return row


def main(argv: Sequence[str] | None = None) -> dict[str, object]:
    """Run with command line arguments `argv`; returns the row, which is also written and shown."""
    args = parse_args(argv)
    row = measure(args)
    recipe = Path(args.config).stem
    name = f"{recipe}_{args.device}_{args.precision}_{args.batch}.json".replace(":", "")
    write_text(args.out / name, json.dumps(row, indent=1) + "\n")
    print("\n".join(f"{key:18} {value}" for key, value in row.items()))
    return row


if __name__ == "__main__":
    run_script(main)

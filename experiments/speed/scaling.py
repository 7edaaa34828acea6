"""What the time of a step consists of, and what it grows with.

    python -m experiments.speed.scaling
    python -m experiments.speed.scaling --systems AMC ALVG --times 1 2 4 --sides 0.5 1

Published sizes and random data as in `experiments.speed`, in one precision (auto). Of every
system's training step and evaluation: with more images, so that what a step costs whatever its
batch (the optimiser, the momentum encoders' update, rounded weights) stands apart from what each
image costs, by a line laid through the medians; with more phrases per image (ALBEF's evaluation,
and RefTR where a text has several); with other image sides; training with more processes, each of
which has such a batch and, on a CPU, the same share of its threads: a step that costs the same in
all has images for nothing. Then the training loaders alone, without masks, on drawn images of
640 x 480 pixels: what a step may have to wait for. Measurements of one kind take turns, and all of
one kind are in memory at once.

Writes scaling.json and scaling.md into --out.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from groundwork import utils
from groundwork.engine.precision import chosen
from groundwork.experiments.speed.loading import LOADERS, images_per_second
from groundwork.experiments.speed.subjects import SIDES, WORKLOADS, Workload, build_config
from groundwork.experiments.speed.timing import in_turn
from groundwork.files.safe import write_text
from groundwork.jobs import run_script

PHRASES = (1, 5, 20)
MULTIPLE = 32  # of image sides, which every network here takes


@dataclass(frozen=True)
class Measured:
    """workload, and what was changed (grows: "images", "phrases", "side" or "processes") to which
    value."""

    workload: str
    grows: str
    value: int
    seconds: float
    gib: float


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:N; by default a GPU if there is one")
    parser.add_argument("--size", choices=WORKLOADS, default="base")
    parser.add_argument("--systems", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--times", nargs="+", type=int, default=[1, 2, 4], help="the images")
    parser.add_argument("--sides", nargs="+", type=float, default=[0.5, 1], help="shares of it")
    parser.add_argument(
        "--processes", nargs="+", type=int, help="of a training; by default 1, and 2 or all GPUs"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--loading", type=int, default=256, help="images of a loader; 0: no")
    parser.add_argument("--out", type=Path, default=Path("runs/scaling"))
    return parser.parse_args(argv)


def group_sizes(device: torch.device) -> list[int]:
    """How many processes are measured unless it is said: one, and one for each GPU of this machine,
    or two on a CPU."""
    return sorted({1, torch.cuda.device_count() if device.type == "cuda" else 2})


def variations(
    load: Workload, times: Sequence[int], sides: Sequence[float], processes: Sequence[int]
) -> Iterator[tuple[str, list[tuple[int, Workload]]]]:
    """What grows -> its values, each with the workload that has it."""
    yield "images", [(load.images * n, replace(load, images=load.images * n)) for n in times]
    if load.training:
        share = max(1, torch.get_num_threads() // max(processes))
        yield "processes", [(n, replace(load, processes=n, threads=share)) for n in processes]
    if load.phrases > 1:
        yield "phrases", [(n, replace(load, phrases=n)) for n in PHRASES]
    config = build_config(load)
    side = getattr(config.model, "image_size", None) or config.data.image_size
    chosen_sides = sorted({max(1, round(side * part / MULTIPLE)) * MULTIPLE for part in sides})
    yield "side", [(one, replace(load, side=one)) for one in chosen_sides]


def measure(
    load: Workload, args: argparse.Namespace, precision: str, device: torch.device
) -> list[Measured]:
    """All variations of a workload."""
    found = []
    processes = args.processes or group_sizes(device)
    for grows, values in variations(load, args.times, args.sides, processes):
        timings = in_turn([(one, precision) for _, one in values], args.repeats, device)
        found += [
            Measured(load.name, grows, value, timing.median, timing.gib)
            for (value, _), timing in zip(values, timings, strict=True)
        ]
    return found


def line(measured: Sequence[Measured]) -> tuple[float, float]:
    """(seconds whatever the batch, seconds per image) of the least squares through the medians of
    at least two numbers of images."""
    slope, fixed = np.polyfit([one.value for one in measured], [one.seconds for one in measured], 1)
    return float(fixed), float(slope)


def markdown(report: dict[str, Any]) -> str:
    """The tables of a report."""
    measured = [Measured(**one) for one in report["steps"]]
    text = (
        f"{report['processor']}, {report['threads']} threads, PyTorch {report['torch']},"
        f" {report['precision']}; medians of {report['repeats']}.\n\n"
        "| | grows | seconds (GiB) | fixed, s | per image, s |\n|---|---|---|---|---|\n"
    )
    for name, grows in dict.fromkeys((one.workload, one.grows) for one in measured):
        same = [one for one in measured if (one.workload, one.grows) == (name, grows)]
        values = ", ".join(f"{one.value}: {one.seconds:.2f} ({one.gib:.1f})" for one in same)
        fitted = line(same) if grows == "images" and len(same) > 1 else None
        parts = " | ".join(f"{part:.2f}" for part in fitted) if fitted else " | "
        text += f"| {name} | {grows} | {values} | {parts} |\n"
    if report["loading"]:
        text += "\n| loader of | images/s on one core |\n|---|---|\n"
        text += "".join(f"| {name} | {rate:.0f} |\n" for name, rate in report["loading"].items())
    return text


def main(argv: Sequence[str] | None = None) -> dict[str, object]:
    """Run with command line arguments `argv`; returns the report, which is also written."""
    args = parse_args(argv)
    device = utils.choose_device(args.device)
    report: dict[str, Any] = {
        "processor": utils.processor_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "size": args.size,
        "precision": chosen("auto", device),
        "repeats": args.repeats,
        "steps": [],
        "loading": {},
    }
    for load in WORKLOADS[args.size]:
        if load.system in args.systems:
            report["steps"] += map(asdict, measure(load, args, report["precision"], device))
            write(report, args.out)
            print(f"{load.name}: done", flush=True)
    if args.loading:
        with tempfile.TemporaryDirectory() as folder:
            names = [name for name in LOADERS if name in args.systems]
            rates = images_per_second(names, args.loading, args.repeats, Path(folder))
            report["loading"] = rates
    write(report, args.out)
    print(markdown(report))
    return report


def write(report: dict[str, Any], folder: Path) -> None:
    """What was measured so far: an hour's work is not lost to what comes after it."""
    write_text(folder / "scaling.json", json.dumps(report, indent=1) + "\n")
    write_text(folder / "scaling.md", markdown(report))


if __name__ == "__main__":
    run_script(main)

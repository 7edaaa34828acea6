"""How fast every system trains and evaluates, in fp32 and in bf16, side by side in one run.

    python -m experiments.speed
    python -m experiments.speed --device cuda --times 16
    python -m experiments.speed --size tiny --systems RefTR ALVG
    python -m experiments.speed --variants fp32

Published sizes and recipes by default; random weights, images, texts, boxes and masks; nothing is
read but the configurations. Every variant runs in a process of its own, and all variants of a step
take turns, so that what else the machine does meets all of them; a time is the median of the
repetitions. ALBEF's evaluation, AMC's and SelfEQ's training are also timed as they were released
("released": `experiments.speed.released` says what that is), with this project's network. A
processor without arithmetic for bf16 would take hours; there it is left out unless asked for.
Training may also be compiled (--compile), which takes minutes before its first measured step.
The share of the peak is that of the rate at which this device computes a large linear map in the
same precision, measured in the same run; products inside of fused attention on a CPU are not
counted.

Writes speed.json and speed.md into --out.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from groundwork import utils
from groundwork.experiments.speed.subjects import VARIANTS, WORKLOADS, Workload, precision_of
from groundwork.experiments.speed.timing import Timing, product_rates, side_by_side
from groundwork.files.safe import write_text
from groundwork.jobs import run_script

HEAD = """| | | seconds (range) | ratio | images/s | expressions/s | memory, GiB | of the peak |
|---|---|---|---|---|---|---|---|
"""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    systems = list(dict.fromkeys(load.system for load in WORKLOADS["base"]))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:N; by default a GPU if there is one")
    parser.add_argument("--size", choices=WORKLOADS, default="base")
    parser.add_argument("--systems", nargs="+", choices=systems, default=systems)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help="by default not compiled")
    parser.add_argument("--compile", action="store_true", help="training also compiled")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--times", type=int, default=1, help="so many times the images of a batch")
    parser.add_argument("--out", type=Path, default=Path("runs/speed"))
    return parser.parse_args(argv)


def default_variants(device: torch.device, *, compiled: bool) -> list[str]:
    """All that this device is made for; `compiled` ones on request, since they take minutes."""
    return [
        one
        for one in VARIANTS
        if (compiled or not one.endswith("compiled"))
        and (precision_of(one) != "bf16" or utils.computes_in_bf16(device))
    ]


def rows_of(
    load: Workload, timings: dict[str, Timing], rates: dict[str, float]
) -> list[dict[str, object]]:
    """A row per variant of a workload; `ratio` says how many times as fast as the first it is."""
    first, *_ = timings.values()
    return [
        {
            "workload": load.name,
            "config": load.config,
            "variant": variant,
            "images": load.images,
            "expressions": load.expressions,
            "seconds": timing.median,
            "fastest": min(timing.seconds),
            "slowest": max(timing.seconds),
            "ratio": first.median / timing.median,
            "images_per_second": load.images / timing.median,
            "expressions_per_second": load.expressions / timing.median,
            "gib": timing.gib,
            "gflop": timing.gflop,
            "share_of_peak": timing.gflop / timing.median / rates[precision_of(variant) or "fp32"],
        }
        for variant, timing in timings.items()
    ]


def markdown(report: dict) -> str:
    """The table of a report, with a line about the machine."""
    lines = [
        "| {workload}, {images} x {each} | {variant} | {seconds:.2f} ({fastest:.2f} to "
        "{slowest:.2f}) | {ratio:.2f} | {images_per_second:.2f} | {expressions_per_second:.2f} | "
        "{gib:.2f} | {share_of_peak:.0%} |".format(each=row["expressions"] // row["images"], **row)
        for row in report["rows"]
    ]
    rates = ", ".join(f"{rate:.0f} in {name}" for name, rate in report["product_rates"].items())
    about = (
        f"{report['processor']}, {report['threads']} threads, PyTorch {report['torch']}; medians "
        f"of {report['repeats']}; 10^9 operations per second of a large matrix product: {rates}."
    )
    return f"{about}\n\n{HEAD}" + "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> dict[str, object]:
    """Run with command line arguments `argv`; returns the report, which is also written."""
    args = parse_args(argv)
    device = utils.choose_device(args.device)
    asked = args.variants or default_variants(device, compiled=args.compile)
    precisions = sorted({precision_of(one) or "fp32" for one in asked} | {"fp32"}, reverse=True)
    rates = product_rates(precisions, args.repeats, device)
    rows: list[dict[str, object]] = []
    report: dict[str, object] = {
        "processor": utils.processor_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "size": args.size,
        "repeats": args.repeats,
        "product_rates": rates,
        "rows": rows,
    }
    for load in WORKLOADS[args.size]:
        variants = [one for one in load.variants if one in asked]
        if load.system in args.systems and variants:
            load = replace(load, images=args.times * load.images)
            rows += rows_of(load, side_by_side(load, variants, args.repeats, device), rates)
            print(f"{load.name}: done", flush=True)
            # As far as it is, since all of it takes long.
            write_text(args.out / "speed.json", json.dumps(report, indent=1) + "\n")
            write_text(args.out / "speed.md", markdown(report))
    print(markdown(report))
    return report


if __name__ == "__main__":
    run_script(main)

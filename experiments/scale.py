"""What a number of image-phrase pairs needs: storage, shards, hosts, network, hours, money.

    python -m experiments.scale --pairs 1e9 --write docs/scale.md
    python -m experiments.scale --images photos     # measures bytes and decoding on your images
    python -m experiments.scale --hosts 4 --train_rate 500 --gpu_hour 2.2

Nothing is trained. Rates default to those that docs/results.md has of one H200, bytes and decoding
to what --images found on 323 photographs of Flickr30k; prices are assumed, so give yours. What
follows from them is arithmetic.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from groundwork.dataset.image_text.transforms import TrainTransform
from groundwork.dataset.images import load_image
from groundwork.experiments.pages import replace_between
from groundwork.files.safe import write_text
from groundwork.jobs import run_script

BEGIN, END = "<!-- made by python -m experiments.scale -->", "<!-- end of what is made -->"
DAY, MONTH = 24.0, 730.0  # hours
# A member of a tar file has a header of 512 bytes and is filled up to a multiple of that.
_TAR_BLOCK = 512
_MEMBERS = 2


@dataclass(frozen=True, kw_only=True)
class Given:
    """What everything follows from; rates are per second.

    pairs, epochs: what is trained on, how often. train_rate, label_rate: images of one GPU, in a
    training step and in an evaluation. decode_rate: images that one core reads, decodes and
    augments. image_bytes, text_bytes: of a pair. row_bytes: of a row of a label in Parquet.
    shard_images, block_images: in a tar file, and in a block of predict.py. parameters: that are
    trained; batch: images of one GPU in a step. gpus: of a host. efficiency: rate of a GPU among
    many, as a share of its rate alone. gpu_hour, gb_month: prices. gpu_hours_between_failures: of
    one GPU. save_seconds: that a checkpoint holds up the run.
    """

    pairs: float = 1e9
    epochs: float = 1.0
    train_rate: float = 361.0
    label_rate: float = 2302.0
    decode_rate: float = 186.0
    image_bytes: float = 39_600.0
    text_bytes: float = 100.0
    row_bytes: float = 200.0
    shard_images: int = 10_000
    block_images: int = 10_000
    parameters: float = 210e6
    batch: int = 64
    gpus: int = 8
    efficiency: float = 0.9
    gpu_hour: float = 3.0
    gb_month: float = 0.023
    gpu_hours_between_failures: float = 50_700.0
    save_seconds: float = 20.0


SOURCES = {
    "pairs": "the question",
    "epochs": "the question",
    "train_rate": "docs/results.md: ALBEF with AMC, 256 pixels, bf16, batch 64, one H200",
    "label_rate": "docs/results.md: the same, evaluation",
    "decode_rate": "measured: --images, one core of an Intel Xeon, 256 pixels",
    "image_bytes": "measured: --images, photographs of at most 500 pixels",
    "text_bytes": "assumed",
    "row_bytes": "assumed",
    "shard_images": "chosen",
    "block_images": "chosen",
    "parameters": "ALBEF of the published size, without its momentum twin",
    "batch": "docs/results.md",
    "gpus": "chosen",
    "efficiency": "assumed; no run on several hosts was made",
    "gpu_hour": "assumed, dollars; give yours",
    "gb_month": "assumed, dollars of an object store; give yours",
    "gpu_hours_between_failures": "419 interruptions in 54 days of 16,384 GPUs (Llama 3, 2024)",
    "save_seconds": "assumed",
}


def storage(given: Given) -> dict[str, str]:
    """What lies where."""
    padded = sum(
        _TAR_BLOCK * (1 + math.ceil(size / _TAR_BLOCK))
        for size in (given.image_bytes, given.text_bytes)
    )
    total = given.pairs * padded
    rows = given.pairs * given.row_bytes
    return {
        "pairs in tar shards": f"{total / 1e12:,.1f} TB",
        "of it headers and padding": f"{1 - (given.image_bytes + given.text_bytes) / padded:.1%}",
        "shards": f"{math.ceil(given.pairs / given.shard_images):,} of"
        f" {given.shard_images * padded / 1e9:.2f} GB",
        "labels of all pairs, Parquet": f"{rows / 1e12:,.2f} TB in"
        f" {math.ceil(given.pairs / given.block_images):,} blocks",
        "storage, a month": money(given.gb_month * (total + rows) / 1e9),
    }


def one_host(given: Given) -> dict[str, str]:
    """What a host with its GPUs takes in, and what it needs for that."""
    rate = given.train_rate * given.gpus
    labels = given.label_rate * given.gpus
    return {
        "images per second, training": f"{rate:,.0f}",
        "read from the store, training": gigabits(rate * given.image_bytes),
        "cores that decode for training": f"{math.ceil(rate / given.decode_rate)}"
        f" ({rate / given.decode_rate / given.gpus:.1f} per GPU)",
        "images per second, labelling": f"{labels:,.0f}",
        "read from the store, labelling": gigabits(labels * given.image_bytes),
        "cores that decode for labelling": f"{math.ceil(labels / given.decode_rate)}",
        "gradients of a step that leave the host (fp32)": f"{given.parameters * 4 / 1e9:.2f} GB"
        f" in {given.batch / given.train_rate:.2f} s,"
        f" {gigabits(2 * given.parameters * 4 / (given.batch / given.train_rate))} if a ring sends"
        " them while the step goes on",
    }


def cluster(given: Given, hosts: int) -> dict[str, str]:
    """What so many hosts take for all pairs."""
    gpus = hosts * given.gpus
    efficiency = 1.0 if hosts == 1 else given.efficiency
    hours = given.pairs * given.epochs / (given.train_rate * gpus * efficiency) / 3600
    labelling = given.pairs / (given.label_rate * gpus) / 3600
    between = given.gpu_hours_between_failures / gpus
    # Young's first-order optimum of what a checkpoint costs and what it saves.
    every = math.sqrt(2 * given.save_seconds / 3600 * between)
    lost = given.save_seconds / 3600 / every + every / 2 / between
    return {
        "hosts": str(hosts),
        "GPUs": str(gpus),
        "training, days": f"{hours * (1 + lost) / DAY:,.1f}",
        "training, GPU-hours": f"{hours * gpus * (1 + lost):,.0f}",
        "training": money(hours * gpus * (1 + lost) * given.gpu_hour),
        "labelling, hours": f"{labelling:,.1f}",
        "labelling": money(labelling * gpus * given.gpu_hour),
        "from the store": gigabits(given.train_rate * gpus * efficiency * given.image_bytes),
        "hours between failures": f"{between:,.0f}",
        "checkpoint every, minutes": f"{every * 60:,.0f}",
        "lost to both": f"{lost:.2%}",
    }


def gigabits(bytes_per_second: float) -> str:
    """Bytes per second as a network's rate."""
    return f"{bytes_per_second * 8 / 1e9:,.1f} Gbit/s"


def money(dollars: float) -> str:
    """Dollars, to three digits."""
    digits = -int(math.floor(math.log10(max(dollars, 1)))) + 2
    return f"${round(dollars, digits):,.0f}"


def measured(folder: Path, side: int = 256, seconds: float = 3.0) -> dict[str, float]:
    """Mean bytes of the images in a folder, and how many of them one core opens and augments per
    second for a training at `side` pixels.

    Raises:
        ValueError: no image in it.
    """
    known = Image.registered_extensions()
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in known)
    if not files:
        raise ValueError(f"--images {folder} holds no image")
    transform, rng = TrainTransform(image_size=side, mask_size=side), np.random.default_rng(0)
    count, began = 0, time.process_time()
    while time.process_time() - began < seconds:
        image = load_image(files[count % len(files)], opener="pillow")
        transform(image, [(0.0, 0.0, float(image.shape[1]), float(image.shape[0]))], rng)
        count += 1
    return {
        "image_bytes": sum(file.stat().st_size for file in files) / len(files),
        "decode_rate": count / (time.process_time() - began),
    }


def page(given: Given, hosts: Sequence[int]) -> str:
    """All of it as Markdown."""
    inputs = [
        f"| {name.replace('_', ' ')} | {value:,.6g} | {SOURCES[name]} |"
        for name, value in asdict(given).items()
    ]
    columns = [cluster(given, count) for count in hosts]
    return "\n".join(
        [
            "| given | | from |\n|---|---|---|",
            *inputs,
            "\n| all pairs | |\n|---|---|",
            *(f"| {name} | {value} |" for name, value in storage(given).items()),
            "\n| one host | |\n|---|---|",
            *(f"| {name} | {value} |" for name, value in one_host(given).items()),
            f"\n| {' | '.join(['', *('hosts: ' + column['hosts'] for column in columns)])} |",
            f"|---{'|---' * len(columns)}|",
            *(
                f"| {name} | {' | '.join(column[name] for column in columns)} |"
                for name in columns[0]
                if name != "hosts"
            ),
        ]
    )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in asdict(Given()).items():
        parser.add_argument(f"--{name}", type=type(value), help=f"{value:,.6g}: {SOURCES[name]}")
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--images", type=Path, help="photographs to measure bytes and decoding on")
    parser.add_argument("--write", type=Path, help="page that receives the tables")
    parser.add_argument("--out", type=Path, help="receives scale.json")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> Given:
    """Run with command line arguments; returns what the tables follow from."""
    args = parse_args(argv)
    values = measured(args.images) if args.images else {}
    for name in asdict(Given()):
        if (value := getattr(args, name)) is not None:
            if value <= 0:
                raise ValueError(f"--{name} {value}: give a number above 0")
            values[name] = value
    if min(args.hosts) < 1:
        raise ValueError(f"--hosts {min(args.hosts)}: give 1 or more")
    given = Given(**values)
    text = page(given, args.hosts)
    print(text)
    if args.write:
        replace_between(args.write, BEGIN, END, text)
    if args.out:
        clusters = [cluster(given, count) for count in args.hosts]
        content = {"given": asdict(given), "all": storage(given), "host": one_host(given)}
        write_text(args.out / "scale.json", json.dumps({**content, "hosts": clusters}, indent=2))
    return given


if __name__ == "__main__":
    run_script(main)

"""A checkpoint as one file that runs without PyTorch (.onnx) or without this project (.pt2).

    python -m tools.export checkpoints/quickstart_amc --out amc.onnx --time
    python predict.py photo.jpg "the red circle" --checkpoint amc.onnx

The file takes images, token ids and masks, and gives what the system gives: heat maps and scores
(ALBEF, AMC, SelfEQ), boxes, masks. It has its configuration and tokeniser in it, so that
`predict.py` and `Grounder.load` ask it as they ask the checkpoint. What was written is run and
compared with PyTorch. docs/export.md says what is in the file.
"""

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from groundwork import utils
from groundwork.jobs import run_script
from groundwork.jobs.export import WRITERS, as_exported, differences, example_of, export
from groundwork.jobs.exported import open_network
from groundwork.jobs.grounder import Grounder
from groundwork.jobs.questions import questions_of
from groundwork.jobs.recognition import load_system

TOLERANCE = 1e-4
# (images, texts, tokens) that the file is compared for.
SHAPES = ((1, 1, 4), (1, 6, 9), (3, 4, 12))
PHRASES = 16


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Write and check the file; returns its `path`, `differences` and, with --time, `seconds`.

    Raises:
        FileNotFoundError, ValueError: see `load_system` and `jobs.export.export`; or the file
            answers otherwise than the checkpoint.
    """
    args = parse_args(argv)
    utils.setup_logging()
    loaded = load_system(
        args.checkpoint,
        device=torch.device("cpu"),
        config=args.config,
        tokenizer=args.tokenizer,
        data=args.data,
        overrides=args.set,
    )
    about = export(loaded, args.out, split=args.split, outputs=args.outputs)
    written, _ = open_network(args.out, "cpu")
    config, network = as_exported(loaded.config), loaded.parts.evaluated
    questions = questions_of(config, loaded.tokenizer)
    apart = differences(
        network,
        written,
        (
            example_of(
                questions, loaded.tokenizer, network, images=images, texts=texts, tokens=tokens,
                seed=seed,
            )
            for seed, (images, texts, tokens) in enumerate(SHAPES)
        ),
    )  # fmt: skip
    for file in filter(None, (about.images, args.out.name)):
        size = args.out.with_name(file).stat().st_size / 2**20
        print(f"{args.out.with_name(file)}: {about.system}, {size:.1f} MiB")
    for name, share in apart.items():
        print(f"  {name}: differs from PyTorch by {share:.1e} of its largest value")
    worst = max(apart, key=lambda name: apart[name])
    if not apart[worst] <= TOLERANCE:
        raise ValueError(
            f"{args.out}: its {worst} differs from PyTorch's by {apart[worst]:.1e} of the largest"
            f" value, more than {TOLERANCE:g}; do not use it, and report checkpoint and versions"
        )
    seconds = {}
    if args.time:
        asked = {"PyTorch": Grounder(loaded), "file": Grounder.load(args.out, device="cpu")}
        seconds = timed(asked, args.rounds)
    return {"path": args.out, "differences": apart, "seconds": seconds}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """What the command says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="a file or saved folder of any system")
    parser.add_argument(
        "--out", type=Path, required=True, help=f"file to write: {' or '.join(WRITERS)}"
    )
    parser.add_argument(
        "--split",
        action="store_true",
        help="images in a file of their own, NAME.images.onnx: each is encoded once for all texts",
    )
    parser.add_argument(
        "--outputs",
        nargs="+",
        default=[],
        metavar="NAME",
        help="only what gives these, for other programs: text_features is ALBEF's text encoder",
    )
    parser.add_argument("--time", action="store_true", help="compare its speed with PyTorch's")
    parser.add_argument("--rounds", type=int, default=9, help="timings of each (%(default)s)")
    parser.add_argument("--config", help="of a file without one")
    parser.add_argument("--tokenizer", help="hub name, folder, or vocab.txt")
    parser.add_argument("--data", help="root of the data, for configurations that need it")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    if args.rounds < 1:
        parser.error(f"--rounds {args.rounds}: give how many, 1 or more")
    if args.outputs and (args.split or args.time):
        parser.error("--outputs: such a file answers no questions, so without --split and --time")
    return args


def timed(asked: Mapping[str, Grounder], rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds from an array to groundings, of an image with one and with many phrases, asked
    in turn; prints them."""
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    print(
        f"{utils.processor_name()}, {torch.get_num_threads()} threads; median of {rounds} of each,"
        " in turn (fastest to slowest)"
    )
    found: dict[str, dict[str, float]] = {}
    for count in (1, PHRASES):
        phrases = [f"the red circle number {n}" for n in range(count)]
        taken: dict[str, list[float]] = {name: [] for name in asked}
        for number in range(rounds + 2):
            for name, grounder in asked.items():
                began = time.perf_counter()
                grounder.ground(image, phrases)
                if number >= 2:  # the first ones find their memory
                    taken[name].append(time.perf_counter() - began)
        found[f"{count} phrases"] = {name: statistics.median(one) for name, one in taken.items()}
        for name, one in taken.items():
            print(
                f"  {count:2} phrases, {name:7}: {1e3 * statistics.median(one):8.1f} ms"
                f" ({1e3 * min(one):.1f} to {1e3 * max(one):.1f})"
            )
    return found


if __name__ == "__main__":
    run_script(main)

"""What further phrases of an image cost: ALBEF of its published size, random weights, on this
processor.

    python -m experiments.phrases_per_image --out runs/phrases_per_image

Times are medians of `--rounds` rounds that take every measurement once, one after the other, so
that what else the machine does falls on all of them. Beside them the multiplications of linear and
convolutional layers, which say what the ratio is where time goes into nothing else.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from groundwork import Grounder, utils
from groundwork.files.safe import write_text
from groundwork.jobs.tokenizers import load_texts
from groundwork.models import SYSTEMS
from groundwork.settings import load_config
from groundwork.settings.load import CONFIGS

COLOURS = ("red", "blue", "green", "small", "large")
THINGS = ("dog", "woman", "car", "chair", "ball", "tree", "window", "hat", "table", "boat")
SHORT = [f"the {colour} {thing}" for colour in COLOURS for thing in THINGS]
PHRASES = {3: SHORT, 6: [f"{one} on the left" for one in SHORT]}
"""Words -> as many different phrases of that many."""


def checkpoint(config_name: str, folder: Path) -> Path:
    """A file of random weights in the published layout."""
    config = load_config(CONFIGS / f"{config_name}.yaml", purpose="evaluation")
    system = SYSTEMS[config.system]
    torch.manual_seed(0)
    model = system.build(config.model, load_texts(config), training=False).model
    file = folder / "random.pth"
    torch.save({"model": system.published_state(model)}, file)
    return file


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(
    grounder: Grounder, image: np.ndarray, phrases: list[str], rounds: int
) -> dict[str, float]:
    """Medians in seconds; a first call on a session encodes the image, a second one does not."""
    found: dict[str, list[float]] = {}
    grounder.ground(image, phrases[:1])  # what only the first call of a process costs
    for _ in range(rounds):
        for count in (1, len(phrases)):
            session, some = grounder.look(image), phrases[:count]
            for call in ("first", "second"):
                took = seconds(lambda: session.ground(some))  # noqa: B023
                found.setdefault(f"{call} call, {count} phrases", []).append(took)
    return {name: statistics.median(times) for name, times in found.items()}


class Multiplications(TorchDispatchMode):
    """Counts those of products, convolutions and attentions within it, in `total`. torch's own
    counter follows modules, too, and cannot be around a gradient of a leaf."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func.overloadpacket)) is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out) // 2
        return out


def multiplications(grounder: Grounder, image: np.ndarray, phrases: list[str]) -> int:
    """Of one call, gradients among them."""
    with Multiplications() as counted:
        grounder.ground(image, phrases)
    return counted.total


def ratios_of(grounder: Grounder, image: np.ndarray, words: int, rounds: int) -> dict[str, Any]:
    """What is measured with the phrases of some words: `seconds`, and what they say."""
    phrases = PHRASES[words]
    times = measure(grounder, image, phrases, rounds)
    one, many = (times[f"first call, {n} phrases"] for n in (1, len(phrases)))
    few, all_ = (multiplications(grounder, image, some) for some in (phrases[:1], phrases))
    return {
        "seconds": times,
        "50 phrases / one": many / one,
        "50 phrases / one, multiplications": all_ / few,
        "second call / first, one phrase": times["second call, 1 phrases"] / one,
        "second call / first, 50 phrases": times[f"second call, {len(phrases)} phrases"] / many,
    }


def main(arguments: list[str] | None = None) -> dict[str, dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", default="Grounding_refcoco", help="a shipped recipe")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--image-size", type=int, nargs=2, default=(480, 640), help="H W")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/phrases_per_image"))
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        file = checkpoint(args.config, Path(folder))
        grounder = Grounder.load(file, device=args.device, config=args.config)
    image = np.random.default_rng(0).integers(0, 256, (*args.image_size, 3), dtype=np.uint8)
    found = {f"{words} words": ratios_of(grounder, image, words, args.rounds) for words in PHRASES}
    result = {
        "processor": utils.processor_name(),
        "threads": torch.get_num_threads(),
        **found,
    }
    write_text(args.out / "times.json", json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return found


if __name__ == "__main__":
    main()

"""What further phrases of an image cost: ALBEF of its published size, random weights, on this
processor.

    python -m experiments.phrases_per_image --out runs/phrases_per_image

Times are medians of `--rounds` rounds that take every measurement once, one after the other, so
that what else the machine does falls on all of them.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from groundwork import Grounder, utils
from groundwork.files.safe import write_text
from groundwork.jobs.tokenizers import load_texts
from groundwork.models import SYSTEMS
from groundwork.settings import load_config
from groundwork.settings.load import CONFIGS

COLOURS = ("red", "blue", "green", "small", "large")
THINGS = ("dog", "woman", "car", "chair", "ball", "tree", "window", "hat", "table", "boat")
PHRASES = [f"the {colour} {thing} on the left" for colour in COLOURS for thing in THINGS]


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


def measure(grounder: Grounder, image: np.ndarray, rounds: int) -> dict[str, float]:
    """Medians in seconds; a first call on a session encodes the image, a second one does not."""
    found: dict[str, list[float]] = {}
    grounder.ground(image, PHRASES[:1])  # what only the first call of a process costs
    for _ in range(rounds):
        for count in (1, len(PHRASES)):
            session, phrases = grounder.look(image), PHRASES[:count]
            for call in ("first", "second"):
                took = seconds(lambda: session.ground(phrases))  # noqa: B023
                found.setdefault(f"{call} call, {count} phrases", []).append(took)
    return {name: statistics.median(times) for name, times in found.items()}


def main(arguments: list[str] | None = None) -> dict[str, float]:
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
    times = measure(grounder, image, args.rounds)
    one, many = (times[f"first call, {n} phrases"] for n in (1, len(PHRASES)))
    ratios = {
        "50 phrases / one": many / one,
        "second call / first, one phrase": times["second call, 1 phrases"] / one,
        "second call / first, 50 phrases": times[f"second call, {len(PHRASES)} phrases"] / many,
    }
    result = {
        "processor": utils.processor_name(),
        "threads": torch.get_num_threads(),
        "seconds": times,
        "ratios": ratios,
    }
    write_text(args.out / "times.json", json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return ratios


if __name__ == "__main__":
    main()

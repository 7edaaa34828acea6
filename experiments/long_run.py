"""Thousands of steps in one process: do memory, open files and the disk stay bounded?

    python -m experiments.long_run --steps 5000 --out runs/long_run --write docs/reliability.md

Draws data, trains the tiny AMC with `train.py` in a process of its own, with a validation after
every epoch and checkpoints within it, `keep: 2`. Its memory (PSS, of the loading process, too), its
open files and the size of its folder are read once a second from /proc, so this runs on Linux.
After the first fifth, when caches and allocators have filled, a line is fitted to the memory.
"""

import argparse
import json
import math
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from groundwork import utils
from groundwork.dataset.synthetic import write_dataset
from groundwork.engine.folder import checkpoints_of, remove_run
from groundwork.experiments.pages import replace_between
from groundwork.files.json_lines import JsonLines
from groundwork.files.safe import write_text
from groundwork.jobs import run_script

ROOT = Path(__file__).resolve().parents[1]
KEEP = 2
STEPS_PER_EPOCH = 100
# Of a model so small that thousands of steps take minutes: what piles up does so by the step.
SMALL = (
    "batch_size=4", "precision=fp32", "model.image_size=32", "model.vision_width=32",
    "model.vision_heads=2", "model.embed_dim=16", "model.text.hidden_size=32",
    "model.text.num_attention_heads=2", "model.text.intermediate_size=48", "data.mask_size=32",
)  # fmt: skip
WARM_UP = 0.2
"""Share of the readings that are left out of the fit."""
MOST_MB_PER_1000_STEPS = 5.0
BEGIN, END = "<!-- made by python -m experiments.long_run -->", "<!-- end of the long run -->"


@dataclass(frozen=True)
class Reading:
    """step: of the last line of the log. memory: PSS in MB, and files: open ones, of all processes
    of the run. disk: MB in its folder without curves and logs. checkpoints: how many are there."""

    seconds: float
    step: int
    memory: float
    files: int
    disk: float
    checkpoints: int


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--out", type=Path, default=Path("runs/long_run"))
    parser.add_argument("--write", type=Path, metavar="PAGE", help="whose lines are made anew")
    return parser.parse_args(argv)


def command(args: argparse.Namespace) -> list[str]:
    """The training."""
    epochs = math.ceil(args.steps / STEPS_PER_EPOCH)
    data = args.out.absolute() / "data"
    return [
        sys.executable, str(ROOT / "train.py"),
        "--config", str(ROOT / "configs/tiny/Pretrain_vg_amc.yaml"),
        "--output_dir", str(args.out / "run"), "--device", "cpu", "--set",
        f"roots.embedded={data}", f"stages.0.epochs={epochs}", f"stages.0.steps={STEPS_PER_EPOCH}",
        *SMALL, "log_every=10", "save_every_steps=50", f"keep={KEEP}",
        "benchmark=embedded/refcoco+", f"data.test_file=[{data}/refcoco+/test.json]",
        f"data.refcoco_data={data}", "select={splits: [val], metric: pointing}",
    ]  # fmt: skip


def processes_of(pid: int) -> list[int]:
    """A process and those that it started, theirs, too."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return [pid, *(one for child in children for one in processes_of(int(child)))]


def reading(pid: int, run: Path, began: float) -> Reading:
    """What the run takes at this moment."""
    memory, files = 0.0, 0
    for one in processes_of(pid):
        lines = Path(f"/proc/{one}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        memory += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000
        files += len(list(Path(f"/proc/{one}/fd").iterdir()))
    kept = [path for path in run.glob("*") if path.suffix in (".pth", ".ckpt", ".tmp")]
    rows = JsonLines(run / "log.txt").rows()
    return Reading(
        time.monotonic() - began,
        rows[-1]["global_step"] if rows else 0,
        memory,
        files,
        sum(path.stat().st_size for path in kept) / 1e6,
        len(checkpoints_of(run)),
    )


def readings(args: argparse.Namespace) -> Iterator[Reading]:
    """Train, and read once a second; what exists for a moment only is skipped.

    Raises:
        RuntimeError: the training fails; its words are in OUT/said.txt.
    """
    began = time.monotonic()
    with open(args.out / "said.txt", "wb") as said:
        training = subprocess.Popen(command(args), stdout=said, stderr=subprocess.STDOUT)
        while training.poll() is None:
            time.sleep(1.0)
            try:
                yield reading(training.pid, args.out / "run", began)
            except (FileNotFoundError, ProcessLookupError):
                continue  # a process or a file ended while it was looked at
    if training.returncode:
        raise RuntimeError(f"the training ends with {training.returncode}; see {said.name}")


def verdict(found: Sequence[Reading]) -> dict[str, float | int | bool]:
    """The slope of the memory after warming up, and the largest of the rest."""
    warm = [one for one in found if one.step > WARM_UP * found[-1].step]
    steps, memory = (np.array([getattr(one, name) for one in warm]) for name in ("step", "memory"))
    slope, start = np.polyfit(steps / 1000, memory, 1)
    middle = len(warm) // 2
    early, late = (max(one.files for one in half) for half in (warm[:middle], warm[middle:]))
    most = max(one.checkpoints for one in found)
    return {
        "steps": found[-1].step,
        "minutes": round(found[-1].seconds / 60, 1),
        "readings": len(found),
        "memory after warm-up, MB": round(float(np.median(memory)), 1),
        "slope, MB per 1000 steps": round(float(slope), 2),
        "noise around the line, MB (s.d.)": round(
            float(np.std(memory - start - slope * steps / 1000)), 2
        ),
        "most open files, first and second half": f"{early} and {late}",
        "most checkpoints at once": most,
        "most MB of checkpoints": round(max(one.disk for one in found), 1),
        "holds": bool(slope < MOST_MB_PER_1000_STEPS and late <= early and most <= KEEP + 3),
    }


def main(argv: Sequence[str] | None = None) -> dict[str, float | int | bool]:
    """Run with command line arguments; returns the verdict.

    Raises:
        SystemExit: memory grows by more than the bound, files stay open, or checkpoints pile up.
    """
    args = parse_args(argv)
    write_dataset(args.out / "data", scenes=200, seed=1)
    remove_run(args.out / "run")
    found = list(readings(args))
    result = verdict(found)
    write_text(args.out / "readings.json", json.dumps(list(map(asdict, found))) + "\n")
    write_text(args.out / "long_run.json", json.dumps(result, indent=2) + "\n")
    rows = "\n".join(f"| {key} | {value} |" for key, value in result.items() if key != "holds")
    text = (
        f"| | |\n|---|---|\n{rows}\n\n{time.strftime('%d %B %Y')}, {utils.processor_name()}, Python"
        f" {platform.python_version()}, torch {torch.__version__}."
    )
    print(text)
    if args.write:
        replace_between(args.write, BEGIN, END, text)
    if not result["holds"]:
        raise SystemExit(f"not bounded, see {args.out / 'readings.json'}")
    return result


if __name__ == "__main__":
    run_script(main)

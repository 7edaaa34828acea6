"""What millions of regions cost: one-off conversion, opening, memory of the loader's workers.

    python -m experiments.memory --regions 5000000 --workers 4 --out runs/memory

Writes a training list in the released VG format (one region per entry, all of one tiny image),
converts it with `read_splits`, opens it again, and loads from it through `TrainDataset` and
`train_loader`. A worker's own memory (USS) is Private_Clean + Private_Dirty of its
/proc/PID/smaps_rollup, so this runs on Linux; the largest of several readings counts.

--start says how workers start. A forked one, or one of a fork server (Python's default on Linux
since 3.14), shares the libraries' memory. A spawned one imports them for itself: torch alone takes
300 MB, torchvision 90 MB, transformers 20 MB, so that it is over the limit before it has a record.
"""

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from groundwork.dataset.formats import vg
from groundwork.dataset.image_text.collate import TrainCollate
from groundwork.dataset.image_text.dataset import TrainDataset
from groundwork.dataset.image_text.transforms import TrainTransform
from groundwork.dataset.loader import train_loader
from groundwork.dataset.record import Phrase, Record
from groundwork.dataset.sources import read_splits
from groundwork.dataset.text import load_tokenizer
from groundwork.files.safe import write_text

VOCABULARY = Path(__file__).parent.parent / "dataset" / "vocabularies" / "bert-base-uncased"
MOST_OPEN_SECONDS, MOST_WORKER_MB = 5, 150
_FIELDS = ("Rss", "Pss", "Private_Clean", "Private_Dirty")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--regions", type=int, default=5_000_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--batches", type=int, default=400, help="of 64 samples, loaded")
    parser.add_argument("--start", choices=("fork", "forkserver", "spawn"), default="fork")
    parser.add_argument("--out", type=Path, default=Path("runs/memory"))
    return parser.parse_args(argv)


def write_list(path: Path, regions: int) -> None:
    """The training list, and beside it its image of 64 x 48 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), (90, 120, 150)).save(path.parent / "picture.jpg")
    boxes = ((i % 40, i % 30, i % 40 + 5 + i % 19, i % 30 + 5 + i % 13) for i in range(regions))
    phrases = (
        Phrase(f"the man number {i} left of the red dog on a hat", boxes=(box,))
        for i, box in enumerate(boxes)
    )
    vg.write((Record("picture.jpg", None, None, (one,)) for one in phrases), path)


def memory(pid: int) -> dict[str, float]:
    """Rss, Pss, Private_Clean, Private_Dirty and their private sum Uss of a process, in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1000 * 1.024 for line in lines}
    found = {field: sizes[field] for field in _FIELDS}
    return found | {"Uss": found["Private_Clean"] + found["Private_Dirty"]}


def load(dataset: TrainDataset, args: argparse.Namespace) -> Iterator[dict[int, dict[str, float]]]:
    """Readings of all workers by pid, every 20 batches."""
    loader = train_loader(
        dataset, TrainCollate(load_tokenizer(VOCABULARY), 25, 256), 64, workers=args.workers
    )
    for number, _ in enumerate(loader, 1):
        if number % 20 == 0:
            yield {child.pid: memory(child.pid) for child in multiprocessing.active_children()}
        if number >= args.batches:
            return


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Every step with its time; the largest reading of each field over workers and time."""
    times, listing, cache = {}, args.out / "train.json", args.out / "cache"

    def timed(name: str, call: Any) -> Any:
        start = time.perf_counter()
        result = call()
        times[name] = round(time.perf_counter() - start, 3)
        print(f"{name}: {times[name]:.2f} s", flush=True)
        return result

    for stale in cache.glob("*.arrow"):
        stale.unlink()
    timed("generate", lambda: write_list(listing, args.regions))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    timed("convert", lambda: read_splits({"train": [str(listing)]}, "vg", str(cache)))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1000 * 1.024
    table = timed("open", lambda: read_splits({"train": [str(listing)]}, "vg", str(cache)))
    dataset = TrainDataset(table, str(args.out), TrainTransform(32, 16))
    readings = timed("load", lambda: list(load(dataset, args)))
    if not readings or not all(len(reading) == args.workers for reading in readings):
        raise RuntimeError(f"fewer readings than {args.workers} workers; load more --batches")
    largest = {
        field: round(max(m[field] for reading in readings for m in reading.values()), 1)
        for field in (*_FIELDS, "Uss")
    }
    ends = [[round(m["Uss"], 1) for m in readings[i].values()] for i in (0, -1)]
    return {
        "regions": len(table), "workers": args.workers, "start": args.start, "seconds": times,
        "batches_of_64": args.batches, "conversion_peak_growth_mb": round(grown, 1),
        "list_mb": round(listing.stat().st_size / 1e6, 1),
        "table_mb": round(sum(f.stat().st_size for f in cache.glob("*.arrow")) / 1e6, 1),
        "worker_mb_largest": largest,
        "uss_mb_first_and_last": ends,
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Returns what it also writes to `memory.json`.

    Raises:
        SystemExit: opening or a worker takes more than is promised; the numbers are written first.
    """
    args = parse_args(argv)
    multiprocessing.set_start_method(args.start, force=True)
    result = measure(args)
    write_text(args.out / "memory.json", json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    uss = result["worker_mb_largest"]["Uss"]
    if result["seconds"]["open"] > MOST_OPEN_SECONDS or uss > MOST_WORKER_MB:
        raise SystemExit(f"over {MOST_OPEN_SECONDS} s to open or {MOST_WORKER_MB} MB per worker")
    return result


if __name__ == "__main__":
    main()

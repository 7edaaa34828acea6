"""A job over all blocks of a source: what is there already is kept, what is missing is made."""

import argparse
import contextlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from groundwork.files.lock import held
from groundwork.files.manifest import fingerprint, run_state
from groundwork.jobs import pretrained
from groundwork.jobs.bulk import cluster
from groundwork.jobs.bulk.source import Block, blocks_of, source_of
from groundwork.jobs.bulk.store import FAULTS, MANIFEST, Done, Store
from groundwork.jobs.bulk.work import Job, Work

logger = logging.getLogger("groundwork")
BLOCK = 256
_NAMED = 5


@dataclass(frozen=True)
class Summary:
    """What a job made: how many images and rows, and what is said of images that are left out."""

    images: int
    rows: int
    faults: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What says how blocks are made, and where: of `run`."""
    group = parser.add_argument_group("millions of images")
    group.add_argument("--parquet", metavar="OUT", help="folder or URL that receives the rows")
    group.add_argument("--block", type=int, default=BLOCK, help=f"images at a time ({BLOCK})")
    group.add_argument(
        "--images_at_once", type=int, default=1, help="that make one batch of a GPU (1)"
    )
    group.add_argument(
        "--ray",
        nargs="?",
        const="auto",
        metavar="ADDRESS",
        help="on a Ray cluster: its address; auto: that of this machine; local: one of its own",
    )
    group.add_argument("--actors", type=int, help="of the cluster (as many as it has room for)")
    group.add_argument(
        "--gpus_per_actor", type=float, default=1.0, help="share of a GPU, if there are any (1)"
    )


def run(job: Job, args: argparse.Namespace, place: str, phrases: tuple[str, ...]) -> Summary:
    """Make the rows of all blocks of the source at `place` that are not there yet.

    Args:
        args: of `add_arguments`, and `strict`.

    Raises:
        FileNotFoundError, ValueError: a source, a system or a cluster that cannot be used; an image
            that cannot, if `strict`.
        FileExistsError: OUT holds something else.
    """
    if args.images_at_once < 1:
        raise ValueError(f"--images_at_once {args.images_at_once}: give 1 or more")
    source, store = source_of(place, phrases, args.block), Store(args.parquet)
    size = None if args.ray is None else cluster.size_of(args.ray, args.actors, args.gpus_per_actor)
    identity = job.identity()
    with _alone(store):
        # What is found depends to rounding on what else is in a batch.
        batches = {"block": args.block, "images_at_once": args.images_at_once}
        asked = {"source": place, "phrases": list(phrases), **batches, **identity}
        blocks = store.begin(asked, blocks_of(source))
        done = {one.number: one for one in store.done(blocks)}
        missing = [block for block in blocks if block.number not in done]
        if done:
            logger.info("%s: %d of %d blocks are there", store.place, len(done), len(blocks))
        work = Work(job, source, store, len(blocks), args.strict, args.images_at_once)
        made = _here(work, missing) if size is None else cluster.made(work, missing, size)
        with tqdm(total=len(blocks), initial=len(done), unit="block", mininterval=1.0) as bar:
            for one in made:
                done[one.number] = one
                images, faults = _counts(done.values())
                bar.set_postfix(images=images, faults=faults, refresh=False)
                bar.update()
        return _finish(store, asked, [done[block.number] for block in blocks])


def _here(work: Work, missing: Iterable[Block]) -> Iterator[Done]:
    """In this process."""
    answerer = None
    for block in missing:
        answerer = answerer or work.job.load()
        yield work.do(answerer, block)


def _counts(done: Iterable[Done]) -> tuple[int, int]:
    pairs = [(one.images, len(one.faults)) for one in done]
    return sum(images for images, _ in pairs), sum(faults for _, faults in pairs)


def _finish(store: Store, asked: Mapping[str, Any], done: list[Done]) -> Summary:
    """What is told of the whole; the manifest comes last."""
    faults = tuple(line for one in done for line in one.faults)
    summary = Summary(sum(one.images for one in done), sum(one.rows for one in done), faults)
    if faults:
        store.write_text(FAULTS, "".join(f"{line}\n" for line in faults))
        logger.warning(
            "%d images cannot be used and are left out (--strict stops at the first), see %s/%s:"
            "\n%s", len(faults), store.place, FAULTS, "\n".join(faults[:_NAMED]),
        )  # fmt: skip
    counts = {"blocks": len(done), "images": summary.images, "rows": summary.rows}
    manifest = {**run_state(), "asked": asked, **counts, "left_out": len(faults)}
    store.write_text(MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    return summary


def _alone(store: Store) -> contextlib.AbstractContextManager[None]:
    """Nobody else writes there; on other machines' file systems nobody can tell, and two calls
    write the same."""
    return contextlib.nullcontext() if store.local is None else held(store.local, "writes")


def content_of(checkpoint: str | Path) -> dict[str, Any]:
    """What tells the files of a checkpoint, or of a saved folder, from others.

    Raises:
        FileNotFoundError: there is none.
    """
    path = pretrained.located(checkpoint)
    if not path.exists():
        raise FileNotFoundError(f"checkpoint not found: {path}; give a file or a saved folder")
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {file.name: fingerprint(file) for file in files if file.is_file()}

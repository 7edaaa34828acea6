"""Blocks on a Ray cluster: a pool of actors of Ray Data, each with systems of its own.

An actor that dies is started again, and does its block again. When a node is lost there may be no
room for its actors, and Ray Data would wait for it: the pool is then begun anew on the nodes that
are left, with the blocks that are not there.
"""

import functools
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from groundwork.jobs import INPUT_ERRORS, plain_message
from groundwork.jobs.bulk.source import Block
from groundwork.jobs.bulk.store import Done
from groundwork.jobs.bulk.work import Answerer, Work

logger = logging.getLogger("groundwork")
_BLOCKS_AT_ONCE = 10_000  # that Ray Data is told of; further ones are the next pool's
_LOOK = 1.0  # seconds between looks at the nodes


@dataclass(frozen=True)
class Size:
    """address: of the cluster; actors: how many, None: as many as there is room for; gpus: share
    of a GPU of each, where the cluster has some."""

    address: str
    actors: int | None
    gpus: float


@dataclass(frozen=True)
class _Share:
    """How many actors, and what of a node each of them has."""

    actors: int
    cpus: float
    gpus: float


def size_of(address: str, actors: int | None, gpus: float) -> Size:
    """What the command says, before anything is made.

    Raises:
        ValueError: Ray is not installed, or there cannot be such a pool.
    """
    if actors is not None and actors < 1:
        raise ValueError(f"--actors {actors}: give how many, 1 or more")
    if not 0 < gpus or (gpus > 1 and gpus % 1):
        raise ValueError(f"--gpus_per_actor {gpus}: a share of one GPU, or whole ones")
    _ray()
    return Size(address, actors, gpus)


def made(work: Work, blocks: Sequence[Block], size: Size) -> Iterator[Done]:
    """Blocks that are made, as they come.

    Raises:
        ValueError: there is no such cluster; a block that cannot be made, said in its words.
    """
    if not blocks:
        return
    ray = _ray()
    ours = not ray.is_initialized()
    if ours:
        _join(size.address)
    try:
        left = {block.number: block for block in blocks}
        while left:
            some = list(left.values())[:_BLOCKS_AT_ONCE]
            before = len(left)
            for done in _pool(work, some, size):
                if left.pop(done.number, None) is not None:
                    yield done
            if len(left) == before:
                raise ValueError(
                    "the cluster made no block of those that are left; see its logs (ray logs)"
                )
    finally:
        if ours:
            ray.shutdown()


def _pool(work: Work, blocks: Sequence[Block], size: Size) -> Iterator[Done]:
    """What a pool makes of the blocks until they are made or a node is lost."""
    ray = _ray()
    nodes = _alive()
    share = _share(size)
    logger.info("%d actors on %d nodes, %d blocks", share.actors, len(nodes), len(blocks))
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    pool = ray.remote(_Pool).options(num_cpus=0, scheduling_strategy=here).remote()
    try:
        run = pool.run.options(num_returns="streaming")
        found = run.remote(work, [_packed(block) for block in blocks], share)
        while True:
            ready, _ = ray.wait([found], timeout=_LOOK, fetch_local=False)
            lost = nodes - _alive()
            if ready:
                try:
                    done = json.loads(ray.get(next(found)))
                except StopIteration:
                    return
                except ray.exceptions.RayActorError as error:
                    logger.warning("the pool has died (%s); another goes on", error)
                    break
                if "error" in done:
                    raise ValueError(done["error"])
                yield Done(**{**done, "faults": tuple(done["faults"])})
            elif lost:
                logger.warning("%d nodes are lost; the others go on with their blocks", len(lost))
                break
        yield from work.store.done(blocks, of=work.blocks)  # also what was made, but not told
    finally:
        ray.kill(pool)


class _Pool:
    """Drives Ray Data in a process that can be ended, and its actors with it."""

    def run(self, work: Work, blocks: list[str], share: _Share) -> Iterator[str]:
        """Each block that is made, as JSON."""
        ray = _ray()
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = [{"block": block} for block in blocks]
        made = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Worker,
            fn_constructor_args=(work,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=share.actors, max_tasks_in_flight_per_actor=2),
            num_cpus=share.cpus,
            num_gpus=share.gpus,
        )
        for row in made.iter_rows():
            yield row["done"]


class _Worker:
    """An actor: systems that are loaded once, for all blocks that come to it."""

    def __init__(self, work: Work) -> None:
        self.work = work
        if os.path.isdir(work.folder):
            os.chdir(work.folder)  # what the command says is told from there

    @functools.cached_property
    def answerer(self) -> Answerer:
        return self.work.job.load()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Ray Data's batch of one block."""
        (packed,) = batch["block"]
        try:
            done = json.dumps(asdict(self.work.do(self.answerer, _unpacked(packed))))
        except (*INPUT_ERRORS, OSError) as error:
            # As a row: what ends the command is its words, not the traceback of a cluster.
            done = json.dumps({"error": plain_message(error)})
        return {"done": [done]}


def _packed(block: Block) -> str:
    return json.dumps(asdict(block))


def _unpacked(text: str) -> Block:
    row = json.loads(text)
    return Block(**{**row, "files": tuple(row["files"])})


def _share(size: Size) -> _Share:
    """Of the nodes that are alive; without GPUs an actor has a node's cores for itself."""
    nodes = [node["Resources"] for node in _ray().nodes() if node["Alive"]]
    gpus = sum(node.get("GPU", 0.0) for node in nodes)
    cpus = [node["CPU"] for node in nodes if node.get("CPU")]
    if gpus:
        fit = sum(int(node.get("GPU", 0.0) / size.gpus) for node in nodes)
        actors = size.actors or max(1, fit)
        return _Share(actors, max(1.0, sum(cpus) // (2 * actors)) if cpus else 0.0, size.gpus)
    actors = size.actors or max(1, len(cpus))
    per_node = -(-actors // max(1, len(cpus)))
    return _Share(actors, max(1.0, min(cpus, default=1.0) // per_node), 0.0)


def _alive() -> set[str]:
    return {node["NodeID"] for node in _ray().nodes() if node["Alive"]}


def _join(address: str) -> None:
    """Raises ValueError: there is no cluster at the address."""
    ray = _ray()
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except ConnectionError as error:
        raise ValueError(
            f"--ray {address}: no cluster there ({error}); start one with ray start --head, or give"
            " --ray local"
        ) from error


def _ray() -> Any:
    """The package, which is optional.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import ray
        import ray.data
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise ValueError(
            f"--ray needs packages that are not installed ({error}): pip install -e .[ray]"
        ) from error
    return ray

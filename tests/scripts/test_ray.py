"""predict.py on a Ray cluster whose actors and nodes die: nothing is lost, rows are the same."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.dataset as ds
import pytest

import predict
from groundwork.jobs.systems import SHIPPED
from tests.helpers.script_runs import error_of

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
cluster_utils = pytest.importorskip("ray.cluster_utils", reason="the extra ray is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("embedded")]
PHRASES = ["the red circle", "the blue square"]
_NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
_PATIENCE = 300.0


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two nodes on this machine, to which this process belongs."""
    found = started()
    found.second = found.add_node(**_NODE)
    ray.init(address=found.address, log_to_driver=False)
    yield found
    ray.shutdown()
    found.shutdown()


def started(tries: int = 3):
    """Ray gives a node 30 seconds to start, which on a busy machine may not be enough."""
    while True:
        try:
            return cluster_utils.Cluster(initialize_head=True, head_node_args=_NODE)
        except Exception as error:  # of no narrower kind in Ray
            tries -= 1
            if not tries or "timed out during startup" not in str(error):
                raise


def parts(out: Path) -> int:
    return len(list(out.glob("part-*.parquet")))


def wait_for(happens: Callable[[], object]) -> None:
    end = time.monotonic() + _PATIENCE
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.02)


def worker_of(node) -> int:
    """The process of an actor of the pool on a node."""
    raylet = node.all_processes["raylet"][0].process.pid
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == raylet and b"_Worker" in (folder / "cmdline").read_bytes():
                return int(folder.name)
        except OSError:
            continue  # a process that has just ended
    pytest.fail("no actor on the node")


def run(source: Path, out: Path, *more: str) -> dict:
    return predict.main(
        [str(source), *PHRASES, "--checkpoint", str(SHIPPED), "--device", "cpu", "--parquet",
         str(out), "--block", "2", *more]
    )  # fmt: skip


def test_what_a_block_cannot_is_said_in_a_sentence(cluster, tmp_path):
    source = tmp_path / "photos"
    source.mkdir()
    (source / "a.png").write_bytes(b"no image")
    message = error_of(lambda: run(source, tmp_path / "out", "--strict", "--ray", cluster.address))
    assert "a.png cannot be decoded" in message


def test_an_actor_and_a_node_are_killed_and_the_rows_are_those_of_one_machine(
    cluster, embedded, tmp_path
):
    source, out, told = tmp_path / "photos", tmp_path / "ray", []
    source.mkdir()
    for image in sorted((embedded / "images").iterdir())[:40]:
        shutil.copy(image, source)

    def disturb():
        wait_for(lambda: parts(out) >= 3)
        os.kill(worker_of(cluster.head_node), signal.SIGKILL)
        after = parts(out)
        wait_for(lambda: parts(out) >= after + 3)
        cluster.remove_node(cluster.second, allow_graceful=False)
        told.append(parts(out))

    disturbance = threading.Thread(target=disturb, daemon=True)
    disturbance.start()
    assert run(source, out, "--ray", "auto")["images"] == 40
    disturbance.join(1)
    assert told and told[0] < 20, "the node was lost when all was done"
    run(source, tmp_path / "here")
    assert ds.dataset(out).to_table() == ds.dataset(tmp_path / "here").to_table()

"""Processes of tests, forked from one that has imported every script; groups of them."""

import multiprocessing
import os
import socket
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

_ROOT = Path(__file__).parents[2]
# pandas is imported by pyarrow where it is installed.
_IMPORTED = ["tests.faults.matrix.doors", "tests.helpers.tiny_runs", "pandas"]


def fork_server() -> ForkServerContext:
    """The context whose processes begin with all of it imported, which takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    # The server looks for modules where it is started, and goes without those that it misses.
    before = os.getcwd()
    os.chdir(_ROOT)
    try:
        forkserver.ensure_running()
    finally:
        os.chdir(before)
    return context


def addresses(size: int) -> list[dict[str, str]]:
    """What a launcher tells each of the processes of a group on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    return [where | {"RANK": str(rank), "WORLD_SIZE": str(size)} for rank in range(size)]

"""Processes of tests, forked from one that has imported every script."""

import multiprocessing
import os
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_IMPORTED = ["tests.faults.matrix.doors", "tests.helpers.tiny_runs"]


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

"""Which model a checkpoint file without a configuration is of, read from its keys and shapes.

Sizes are read from tensors. Only what leaves no trace in them (how many heads an attention has) is
that of the published networks, which every room writes down in its `layout.py`.
"""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from groundwork.models.common.checkpoint import CheckpointError

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """The published layout that a file has.

    title: what it is, in a word or two. config: the configuration that ships which it is trained or
    evaluated with. settings: dotted keys of it -> what the file says.
    """

    title: str
    config: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def count_of(state: State, pattern: str) -> int:
    """How many layers there are: one more than the largest number that `pattern`, which has a group
    of digits and begins at the start of a key, finds; 0 without any."""
    found = (re.match(pattern, key) for key in state)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def heads_of(width: int, per_head: int, key: str) -> int:
    """The heads of an attention of this width, which no tensor tells.

    Raises:
        CheckpointError: not a multiple of what every head of the published networks has.
    """
    if width % per_head:
        raise CheckpointError(
            f"the file holds no configuration, and how many heads its width of {width} is divided "
            f"into is not in it (published: {per_head} channels per head); give a configuration "
            f"with {key} as config="
        )
    return width // per_head


def side_of(rows: int, key: str) -> int:
    """The side of a square grid of so many cells.

    Raises:
        CheckpointError: it is none.
    """
    side = round(rows**0.5)
    if side * side != rows:
        raise CheckpointError(f"{key} has positions of {rows} cells, which is not a square grid")
    return side


def arguments_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """The command line that a file was trained with, where it holds one."""
    kept = content.get("args")
    if isinstance(kept, argparse.Namespace):
        return vars(kept)
    return kept if isinstance(kept, dict) else {}

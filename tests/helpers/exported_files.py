"""Checkpoints of every system with files exported of them, each made once in a run of the tests."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from groundwork.files.lock import held
from groundwork.jobs.systems import SHIPPED
from groundwork.tools import export
from tests.helpers.own_checkpoints import KINDS, write_checkpoint

_PHRASES = "tiny/reftr/flickr30k"
FORMS = {
    "quickstart_amc": ".onnx",
    "reftr_masks": ".onnx",
    "refclip": ".onnx",
    "simrec": ".onnx",
    "alvg_several": ".onnx",
    "quickstart_base.pth": ".pt2",
    "reftr_phrases": ".pt2",
    "alvg": ".pt2",
}
"""What ships and kinds of `KINDS`, or this one -> ending of the file that is made of it."""
_FAST = ("quickstart_amc", "simrec", "refclip")
_PATIENCE = 250  # seconds that another process may take


def marked(kinds: Iterable[str], fast: Collection[str] = _FAST) -> list:
    """Parameters of tests; slow are those whose export takes longest."""
    marks = [pytest.mark.slow]
    return [pytest.param(kind, marks=() if kind in fast else marks) for kind in kinds]


class Pair(NamedTuple):
    """A checkpoint and the exported file of it."""

    checkpoint: Path
    file: Path


def checkpoint_of(kind: str, workplace: Path, shared: Path) -> Path:
    """What ships under this name, or a file of a kind of `KINDS` or `FORMS`; `workplace`, `shared`:
    the fixtures."""
    ships, folder = SHIPPED.with_name(kind), _folder(kind, shared)
    if ships.exists():
        return ships
    with held(folder, "writes", patience=_PATIENCE), pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        patch.setitem(KINDS, "reftr_phrases", (_PHRASES, _PHRASES, ()))
        own = folder / "own.pth"
        return own if own.exists() else write_checkpoint(kind, own)


def exported(kind: str, workplace: Path, shared: Path, *more: str) -> Pair:
    """Both of a kind of `FORMS`; `more`: flags of tools/export; the rest as of `checkpoint_of`."""
    checkpoint, folder = checkpoint_of(kind, workplace, shared), _folder(kind, shared)
    file = folder / f"{kind}{''.join(more)}{FORMS[kind]}"
    with held(folder, "exports", patience=_PATIENCE), pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        if not file.exists():
            export.main([str(checkpoint), "--out", str(file), *more])
    return Pair(checkpoint, file)


def _folder(kind: str, shared: Path) -> Path:
    return shared / "exported" / kind

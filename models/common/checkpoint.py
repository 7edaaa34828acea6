"""Reading checkpoint files of any system, and filling a model strictly from a state dict.

What rooms load from files by these functions raises what they raise, and returns a `LoadReport`.
"""

import argparse
import pickle
import re
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundwork.files import plain_values
from groundwork.models.common.file_kinds import foreign_content, kind_of

# A key prefix that gives a system away, for the message when a file belongs to another one.
SIGNATURES = {
    "visual_encoder.blocks": "ALBEF, AMC or SelfEQ",
    "vl_transformer.": "RefTR",
    "lang_backbone.": "RefTR",
    "linear_vs.": "RefCLIP",
    "attention_manner.": "SimREC",
    "lang_encoder.": "RefCLIP or SimREC",
    "beit3.": "BEiT-3",
    "vis_enc.": "ALVG",
    "transformer.encoder.layers": "DETR",
}


_WRAPPERS = re.compile(r"^(module\.)+")
_WITHIN = re.compile(r"_orig_mod\.|_fsdp_wrapped_module\.")
_COUNTER = "num_batches_tracked"
# What torch.load raises on damaged bytes depends on the instruction that they happen to form.
_DAMAGE = (
    RuntimeError,
    EOFError,
    OSError,
    LookupError,
    ValueError,
    AttributeError,
    TypeError,
    AssertionError,
    MemoryError,
    struct.error,
)


class CheckpointError(ValueError):
    """A checkpoint cannot be read or does not fit; the message names file, keys and remedy."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a `.pth` file without running any code from it.

    It may hold tensors, plain values (NumPy's among them) and `argparse.Namespace`, which only
    keeps what it is given: released files have the command line in one.

    Returns:
        The dictionary that was saved; `model` holds the state dict, also where it is bare or called
        `state_dict` (RefCLIP, SimREC), under the names that it has without wrappers.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is truncated, is no checkpoint, which is said as far as it can
            be told, or contains objects of other classes, the first of which is named.
    """
    path = Path(path)
    if path.is_dir():
        inside = next((file.name for file in sorted(path.glob("*.pth"))), "a .pth")
        raise CheckpointError(f"{path} is a folder; give one of its files, such as {inside}")
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint not found: {path}")
    content = _load(path)
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}, not a dictionary with a state dict"
        )
    if "model" not in content and all(isinstance(value, Tensor) for value in content.values()):
        content = {"model": content}
    if "model" not in content and "module" in content:  # BEiT-3
        content = {**content, "model": content["module"]}
    if "model" not in content and "state_dict" in content:
        content = {**content, "model": content["state_dict"]}
    if not isinstance(content.get("model"), dict):
        raise CheckpointError(
            f"{path}: no entry 'model' (its entries: {', '.join(map(str, content))})"
        )
    others = [
        key
        for key, value in content["model"].items()
        if not (isinstance(key, str) and isinstance(value, Tensor))
    ]
    if others:
        raise CheckpointError(
            f"{path}: entry 'model' is no state dict; these of its entries are not tensors under a "
            f"name: {', '.join(map(str, others[:5]))}"
        )
    return {**content, "model": without_wrappers(content["model"], str(path))}


def _load(path: Path) -> Any:
    """What torch.load gives.

    Raises:
        CheckpointError: see `read_checkpoint`.
    """
    other = kind_of(path)
    if other is not None:
        raise CheckpointError(f"{path}: is {other}")
    try:
        with torch.serialization.safe_globals([argparse.Namespace, *plain_values.torch_globals()]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if reason := foreign_content(error):
            raise CheckpointError(
                f"{path}: not loaded, because it holds more than tensors and plain values"
                f" ({reason}). Re-save it with only its state dict."
            ) from error
        raise CheckpointError(
            f"{path}: damaged, or no checkpoint at all. Copy or download it again."
        ) from error
    except _DAMAGE as error:
        raise CheckpointError(
            f"{path}: truncated or damaged ({first_line(error)}). Copy or download it again."
        ) from error


def first_line(error: Exception) -> str:
    """What an error says in its first line, or its kind if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def recognise(state: dict[str, Tensor]) -> str:
    """Which published system these keys belong to, or "an unknown system"."""
    for prefix, system in SIGNATURES.items():
        if any(key.startswith(prefix) for key in state):
            return system
    return "an unknown system"


def without_wrappers(state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Without what wrappers put into the names of a model: `module.` of DistributedDataParallel and
    DataParallel before them, any number of times, and `_orig_mod.` of torch.compile and
    `_fsdp_wrapped_module.` of FullyShardedDataParallel anywhere.

    Raises:
        CheckpointError: two entries have one name then.
    """
    names = {key: _WRAPPERS.sub("", _WITHIN.sub("", key)) for key in state}
    if len(set(names.values())) < len(names):
        twice = next(name for name, count in Counter(names.values()).items() if count > 1)
        keys = ", ".join(key for key, name in names.items() if name == twice)
        raise CheckpointError(f"{source}: holds {twice} more than once, as {keys}; keep one")
    return {names[key]: value for key, value in state.items()}


def part_of(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries of one part of a model, under their names in it."""
    return {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }


def seen_coco(what: str) -> str:
    """What is to be said of results with `what`."""
    return (
        f"{what} was trained on COCO, whose training images include many of the RefCOCO, RefCOCO+"
        " and RefCOCOg validation and test images: the results are not those of a network that"
        " never saw them."
    )


def with_counters(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """With the model's own counters of batches where a file has none; nothing depends on them."""
    own = model.state_dict()
    counters = {key: value for key, value in own.items() if key.endswith(_COUNTER)}
    return {**counters, **state}


@dataclass
class LoadReport:
    """What happened to the entries of a checkpoint, for one paragraph in the log."""

    source: str
    used: int = 0
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"Loaded {self.source}: {self.used} entries used. " + " ".join(self.notes)


def read_published(path: str | Path) -> tuple[dict[str, Tensor], LoadReport]:
    """The weights of a checkpoint file as they are in it, and a report that names their epoch.

    Raises:
        FileNotFoundError, CheckpointError: see `read_checkpoint`.
    """
    content = read_checkpoint(path)
    report = LoadReport(source=str(path))
    if isinstance(content.get("epoch"), int):
        report.notes.append(f"Written after epoch {content['epoch']}.")
    return content["model"], report


def load_strictly(
    model: nn.Module,
    state: dict[str, Tensor],
    *,
    report: LoadReport,
    may_be_missing: tuple[str, ...] = (),
    ignored: tuple[str, ...] = (),
) -> None:
    """Copy `state` into `model`; every key must be accounted for.

    Args:
        state: already renamed to the model's keys.
        may_be_missing, ignored: key prefixes. A missing key keeps the model's own value; an ignored
            one is an entry of the file that this model has no use for. Both are noted in `report`.

    Raises:
        CheckpointError: other keys are missing or left over, shapes differ, or values are not
            finite; names up to five of each.
    """
    target = model.state_dict()
    missing = [key for key in target if key not in state]
    extra = [key for key in state if key not in target]
    unexplained = [key for key in missing if not key.startswith(may_be_missing or ("\0",))]
    unknown = [key for key in extra if not key.startswith(ignored or ("\0",))]
    shared = [key for key in target if key in state]
    shapes = [
        f"{key} {tuple(state[key].shape)} in the file, {tuple(target[key].shape)} in the model"
        for key in shared
        if state[key].shape != target[key].shape
    ]
    problems = [
        f"{title}: {'; '.join(found[:5])}"
        + (f" and {len(found) - 5} more" if len(found) > 5 else "")
        for title, found in (
            ("missing", unexplained),
            ("unknown", unknown),
            ("other shapes", shapes),
        )
        if found
    ]
    if problems:
        raise CheckpointError(
            f"{report.source} does not fit the model. It looks like a checkpoint of "
            f"{recognise(state)}. {'. '.join(problems)}. Give the file of the configured system, "
            "or set the config's `model` section to the sizes of the file."
        )
    _require_finite({key: state[key] for key in shared}, report.source)
    with torch.no_grad():
        for key in shared:
            target[key].copy_(state[key])
    report.used = len(shared)
    for title, keys in (("Kept as initialised (not in the file)", missing), ("Not used", extra)):
        if keys:
            report.notes.append(f"{title}: {summarise(keys)}.")


def _require_finite(state: dict[str, Tensor], source: str) -> None:
    broken = [key for key, value in state.items() if not value.isfinite().all()]
    if broken:
        more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
        raise CheckpointError(
            f"{source}: NaN or infinite values in {', '.join(broken[:5])}{more}. Its training"
            " diverged, or the file is damaged; take an earlier checkpoint, or download it again."
        )


def summarise(keys: list[str]) -> str:
    """Keys counted by their first part: `visual_encoder_m (152), temp (1)`."""
    counts: dict[str, int] = {}
    for key in keys:
        counts[key.split(".")[0]] = counts.get(key.split(".")[0], 0) + 1
    return ", ".join(f"{name} ({count})" for name, count in counts.items())

"""What every run needs and no method knows: device, process group, seeds, logs, files, manifest.

Collectives are the identity without a process group, so that the same code runs in one process.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import numpy as np
import torch
import torch.distributed as dist

MANIFEST = "manifest.json"
_MEBIBYTE = 1 << 20
_PACKAGES = ("torch", "torchvision", "timm", "transformers", "numpy", "pillow", "opencv", "pyarrow")
shared_random = torch.Generator()  # the same numbers on all processes of a training step
_PACKAGE_NAMES = {"opencv": "opencv-python-headless"}


# --- device and process group ---------------------------------------------------------------------


def choose_device(name: str | None = None) -> torch.device:
    """The device called `name`, by default CUDA if there is any, else the CPU.

    Under a launcher `cuda` means the GPU of this process's local rank.

    Raises:
        ValueError: the name is no device, or a CUDA device that this machine does not have.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name}: not a device; use cpu, cuda or cuda:N") from error
    if device.type != "cuda":
        return device
    index = int(os.environ.get("LOCAL_RANK", 0)) if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise ValueError(
            f"--device {name}: GPU {index} is not among the {torch.cuda.device_count()} that torch "
            f"{torch.__version__} sees; use --device cpu, or start fewer processes"
        )
    return torch.device("cuda", index)


def init_distributed(device: str | None = None) -> torch.device:
    """Joins the process group that the launcher describes, and chooses this process's device.

    torchrun and `python -m torch.distributed.launch --use_env` set RANK, LOCAL_RANK and WORLD_SIZE;
    `srun` sets Slurm's own names. Without a launcher there is no group.

    Args:
        device: as for `choose_device`. GPUs talk over nccl, CPUs over gloo.

    Returns:
        The device of this process; a GPU is also made torch's current one.
    """
    _adopt_slurm()
    chosen = choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", init_method="env://")
    return chosen


def close_distributed() -> None:
    """Leaves the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _adopt_slurm() -> None:
    """Gives Slurm's variables the names torch reads. Only `srun` sets the step's task count."""
    if "RANK" in os.environ or "SLURM_STEP_NUM_TASKS" not in os.environ:
        return
    os.environ["RANK"] = os.environ["SLURM_PROCID"]
    os.environ["LOCAL_RANK"] = os.environ["SLURM_LOCALID"]
    os.environ["WORLD_SIZE"] = os.environ["SLURM_STEP_NUM_TASKS"]
    os.environ.setdefault("MASTER_ADDR", _first_host(os.environ["SLURM_STEP_NODELIST"]))
    # Every task of a job computes the same port; two jobs on one node rarely do.
    job = int(os.environ.get("SLURM_JOB_ID", 0))
    os.environ.setdefault("MASTER_PORT", str(20000 + job % 20000))


def _first_host(nodes: str) -> str:
    """`gpu[03-07,12],login1` -> `gpu03`: the first name of a Slurm host list."""
    match = re.match(r"([^\[,]+)(?:\[(\w+))?", nodes)
    if match is None:
        raise ValueError(f"SLURM_STEP_NODELIST {nodes!r} names no host; set MASTER_ADDR yourself")
    return match[1] + (match[2] or "")


def rank() -> int:
    """Number of this process in the group; 0 without one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes in the group; 1 without one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes the files and the log."""
    return rank() == 0


def barrier() -> None:
    """Waits for every process."""
    if dist.is_initialized():
        dist.barrier()


def all_gather(tensor: torch.Tensor) -> torch.Tensor:
    """Joins the tensors of all processes along dimension 0, in rank order, without gradients.

    Args:
        tensor: (n, ...); n may differ between processes, the other sizes and the type may not.

    Returns:
        (sum of n, ...) on every process.
    """
    if world_size() == 1:
        return tensor.detach()
    count = torch.tensor([tensor.shape[0]], device=tensor.device)
    counts = [torch.zeros_like(count) for _ in range(world_size())]
    dist.all_gather(counts, count)
    lengths = torch.cat(counts).tolist()  # all at once: reading a GPU makes this process wait
    padded = tensor.new_zeros((max(lengths), *tensor.shape[1:]))
    padded[: tensor.shape[0]] = tensor.detach()
    parts = [torch.zeros_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])


def broadcast(tensors: Iterable[torch.Tensor]) -> None:
    """Gives the tensors of every process the values they have on process 0, in place."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def all_gather_objects(value: Any) -> list[Any]:
    """The picklable values of all processes in rank order, on every process."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


# --- random numbers -------------------------------------------------------------------------------


def seed_everything(seed: int) -> None:
    """Seeds Python, numpy and torch with seed + rank, so that processes draw different numbers."""
    random.seed(seed + rank())
    np.random.seed((seed + rank()) % 2**32)
    torch.manual_seed(seed + rank())


# --- logs and files -------------------------------------------------------------------------------


def setup_logging() -> None:
    """Log lines to standard error: from process 0 all of them, from the others warnings only."""
    logging.basicConfig(
        level=logging.INFO if is_main() else logging.WARNING,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
        force=True,
    )


class JsonLines:
    """A file with one JSON object per line, which an interrupted run finds again.

    Rows are added at the end, not atomically: a process that is killed meanwhile may leave its last
    line unfinished. `rows` does not see such a line and the next `append` cuts it off. Threads of a
    process may share the object; of a process group only process 0 writes, the others' `append` and
    `replace` do nothing.

    Args:
        path: the file; it and its folder are made by the first row.
        sync: False: when `append` returns, the operating system has the rows, and this process may
            be killed. True: the disk has them, and the power may fail; that takes milliseconds.
    """

    def __init__(self, path: str | Path, *, sync: bool = False):
        self.path = Path(path)
        self.sync = sync
        self._lock = threading.Lock()

    def append(self, *rows: Mapping[str, Any]) -> None:
        """Adds rows of JSON values (nan and inf are kept as JavaScript writes them)."""
        if not is_main() or not rows:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            created = not self.path.exists()
            with self.path.open("a+b") as file:
                _drop_unfinished_line(file)
                file.write(_json_lines(rows))
                if self.sync:
                    file.flush()
                    os.fsync(file.fileno())
            if self.sync and created:
                _sync(self.path.parent)

    def rows(self) -> list[dict[str, Any]]:
        """All rows; ValueError if a line, but for an unfinished last one, is no JSON object."""
        if not self.path.exists():
            return []
        found = []
        for number, line in enumerate(self.path.read_bytes().split(b"\n")[:-1], 1):
            try:
                row = json.loads(line)
            except ValueError as error:  # of JSON, or of UTF-8
                raise ValueError(f"{self.path} line {number}: {error}; delete the line") from error
            if not isinstance(row, dict):
                raise ValueError(f"{self.path} line {number} is no object; delete the line")
            found.append(row)
        return found

    def replace(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Makes `rows` the whole file, atomically: how a resumed run drops rows after its step."""
        if is_main():
            write_text(self.path, _json_lines(rows).decode())


def _json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _drop_unfinished_line(file: BinaryIO) -> None:
    """Cuts a file that is open for reading and appending after its last line end."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
    if file.read(1) not in (b"", b"\n"):
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def inside(name: str, what: str, remedy: str = "correct the name") -> PurePath:
    """A file name that data bring along, before it is joined with a folder: it stays below that.

    "a/../b.jpg" is "b.jpg". Symbolic links below the folder are followed. `what` and `remedy` begin
    and end the error's message.

    Raises:
        ValueError: an absolute path, or one that leads out by "..".
    """
    path = PurePath(os.path.normpath(name))
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{what} {name!r} leads out of the folder it belongs to; {remedy}")
    return path


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a path to write to; the file appears at `path` complete or not at all, even if killed.

    An existing file is replaced once the block ends without an error; the folder is made if
    missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        _sync(partial)
        partial.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync(path.parent)  # so that the rename survives a power cut


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file so that a reader sees the old or the new content, never half of it."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def remove_partial(folder: str | Path, pattern: str) -> None:
    """Removes what killed processes left half written of files called `pattern` (a glob)."""
    for partial in Path(folder).glob(f".{pattern}.*.tmp"):
        partial.unlink(missing_ok=True)


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def _sync(path: Path) -> None:
    """Brings a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- the run manifest -----------------------------------------------------------------------------


def write_manifest(
    folder: str | Path,
    config: Any,
    *,
    seed: int,
    files: Iterable[str | Path] = (),
    name: str = MANIFEST,
    **rules: str,
) -> Path:
    """Writes what is needed to repeat a run to `folder`/`name` (process 0 only): the same text for
    the same code, data and command on any machine, apart from versions.

    Args:
        config: the merged configuration as plain dicts (`settings.to_dict`).
        seed: before the rank is added.
        files: annotation files, whose fingerprints tell a changed data set from the same one.
        name: of the file, another one for every job in a folder.
        rules: what the numbers depend on and no configuration can change, by name.
    """
    path = Path(folder) / name
    if is_main():
        manifest = {
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "config": config,
            "seed": seed,
            "rules": rules,
            "world_size": world_size(),
            "git": git_state(),
            "versions": versions(),
            "data": {str(file): fingerprint(file) for file in files},
        }
        write_text(path, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    return path


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(_PACKAGE_NAMES.get(package, package))
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_state() -> dict[str, Any]:
    """Commit of this code and whether files differ from it; "unknown" outside a git checkout."""
    root = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return {"commit": "unknown", "dirty": None}
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "unknown", "dirty": None}


def fingerprint(path: str | Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of the first and last MiB of a file, which must exist: cheap."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such annotation file; check the paths in the config")
    size, digest = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(_MEBIBYTE))
        file.seek(max(0, size - _MEBIBYTE))
        digest.update(file.read(_MEBIBYTE))
    return {"bytes": size, "sha256_of_ends": digest.hexdigest()}

"""What a frozen network gives for an image, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from groundwork import utils
from groundwork.files.safe import atomic_write
from groundwork.models.common.checks import require_positive

logger = logging.getLogger("groundwork")


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheConfig:
    """Keeps what a frozen network gives for an image on disk: it is then computed once, and not
    once per epoch. An image that augmentation has changed is another image.

    folder: may be shared by runs; another network or image size finds nothing of these there.
    gigabytes: its size at most; what does not fit is computed again. RefCLIP's detector gives 4.8
        MB for an image of 416 px, 82 GB for RefCOCO's training images. half: in half precision, in
        half the space; the results then differ a little.
    """

    folder: str
    gigabytes: float = 100.0
    half: bool = False

    def __post_init__(self) -> None:
        require_positive(self, "gigabytes")

    def build(self, kind: str = "") -> FrozenCache:
        """The cache; `kind` says what is not seen from a network's weights, such as which of its
        maps are kept."""
        return FrozenCache(self.folder, self.gigabytes, half=self.half, kind=kind)


class FrozenCache:
    """Remembers the outputs of a network by the pixels of the image and the weights of the network.

    So neither another size, another image under an old name nor another network finds old values.
    When the folder has its size, nothing more is added: a training goes through all images in turn,
    so that making room would only throw out what is needed next.

    Args:
        folder: receives a file per image; may be shared by runs and processes.
        gigabytes: the folder's size, at most; of 10^9 bytes.
        half: keep half precision, in half the space; the outputs are then rounded.
        kind: what the weights do not say of the network.
    """

    def __init__(self, folder: str | Path, gigabytes: float, *, half: bool = False, kind: str = ""):
        self.folder, self.half, self._of = Path(folder), half, bytes(kind, "utf-8")
        self._kind = torch.float16 if half else torch.float32
        self._limit = gigabytes * 1e9
        self._room: float | None = None
        self._weights: tuple[tuple[int, ...], bytes] | None = None
        self.hits = self.misses = 0

    def __call__(self, network: nn.Module, image: Tensor) -> list[Tensor]:
        """Image (B, 3, H, W) -> what the network, in evaluation mode, gives for it: several
        tensors, whose rows belong to the images."""
        weights = self._weights_of(network) + precision_of(image.device.type) + self._of
        files = [self._file(one, weights) for one in image.cpu().numpy()]
        different = list(dict.fromkeys(files))
        read = {file: self._read(file, image.device) for file in different}
        found = {file: parts for file, parts in read.items() if parts is not None}
        # An image comes once for each of its expressions: the first of them is computed.
        missing = {file: files.index(file) for file in different if file not in found}
        self.hits, self.misses = self.hits + len(files) - len(missing), self.misses + len(missing)
        if missing:
            seen = network(image[list(missing.values())])
            for place, file in enumerate(missing):
                kept = [part[place].to(self._kind) for part in seen]
                self._write(file, kept)
                found[file] = [part.float() for part in kept]  # the same as when it is read
        rows = [found[file] for file in files]
        return [torch.stack(parts) for parts in zip(*rows, strict=True)]

    def _file(self, image: np.ndarray, weights: bytes) -> Path:
        digest = hashlib.blake2b(weights + bytes(str(image.shape), "ascii"), digest_size=20)
        digest.update(image.tobytes())
        name = digest.hexdigest() + ("h" if self.half else "")
        return self.folder / name[:2] / f"{name}.npz"

    def _read(self, file: Path, device: torch.device) -> list[Tensor] | None:
        """The outputs that a file holds, in single precision; None if there is no such file, or
        a damaged one, which is then made anew."""
        if not file.is_file():
            return None
        try:
            with np.load(file, allow_pickle=False) as arrays:
                parts = [torch.from_numpy(arrays[name]) for name in arrays.files]
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("%s is damaged (%s) and is made anew", file, error)
            return None
        return [part.to(device, torch.float32) for part in parts]

    def _weights_of(self, network: nn.Module) -> bytes:
        state = list(network.state_dict().values())
        # Torch counts how often a tensor was written to: the weights are hashed once.
        versions = tuple(value._version for value in state)
        if self._weights is None or self._weights[0] != versions:
            digest = hashlib.blake2b(digest_size=20)
            for value in state:
                digest.update(value.detach().cpu().numpy().tobytes())
            self._weights = (versions, digest.digest())
        return self._weights[1]

    def _write(self, file: Path, parts: list[Tensor]) -> None:
        size = sum(part.nbytes for part in parts) + 2000  # with the file's own words
        if self._room is None:
            used = sum(one.stat().st_size for one in self.folder.rglob("*.npz"))
            # Every process fills its share of the room.
            self._room = (self._limit - used) / utils.world_size()
        if size > self._room:
            return
        self._room -= size
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as partial, open(partial, "wb") as stream:
            np.savez(stream, *(part.cpu().numpy() for part in parts))


def precision_of(device: str) -> bytes:
    """In which precision a network computes here: maps of another are other maps."""
    autocast = torch.is_autocast_enabled(device)
    return bytes(str(torch.get_autocast_dtype(device)), "ascii") if autocast else b""
